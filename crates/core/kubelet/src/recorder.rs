//! Events, counted and aggregated as client-go's `EventCorrelator` does (`tools/record/events_cache.go`): equal ones become one
//! object with a count; from the tenth different message of one reason on they are combined; who says too much is not heard.

use crate::pod::PodEvent;
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::{BTreeMap, BTreeSet};

/// So many different messages of one reason, and further ones are combined.
const AGGREGATE_AFTER: usize = 10;
/// Messages further apart than this, in seconds, are not combined.
const AGGREGATE_WITHIN_S: i64 = 600;
/// So many events of one object at once; then one more every five minutes.
const BURST: f64 = 25.0;
const REFILL_PER_S: f64 = 1.0 / 300.0;
/// What is remembered of each kind of thing, at most.
const REMEMBERED: usize = 4096;

/// The event recorder of one component. What it returns must be written in that order.
#[derive(Debug)]
pub struct Recorder {
    component: String,
    host: String,
    similar: Remembered<Vec<String>, Similar>,
    seen: Remembered<Vec<String>, Event>,
    allowances: Remembered<Vec<String>, Allowance>,
    /// Makes names differ where the clock does not.
    last_ns: i128,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Timestamp,
}

impl Recorder {
    /// `component` as in `source.component`: `kubelet`; `host` is the node's name, empty for others.
    pub fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            similar: Remembered::default(),
            seen: Remembered::default(),
            allowances: Remembered::default(),
            last_ns: 0,
        }
    }

    /// The write that tells of a Pod's event: a create, a patch of its count, or nothing.
    pub fn pod(&mut self, pod: &Pod, event: &PodEvent, now: Timestamp) -> Option<Write> {
        let metadata = &pod.metadata;
        let about = ObjectReference {
            kind: Some("Pod".to_owned()),
            api_version: Some("v1".to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: Some(event.field_path.clone()).filter(|path| !path.is_empty()),
        };
        self.record(about, event.warning, &event.reason, &event.message, now)
    }

    /// The write that tells of an event of any object.
    pub fn record(
        &mut self,
        about: ObjectReference,
        warning: bool,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> Option<Write> {
        let event = self.make(about, warning, reason, message, now);
        let (event, key) = self.aggregate(event, now);
        let (event, patch) = self.count(event, key, now);
        self.may_speak(&event, now).then(|| write(&event, patch))
    }

    /// The create to send when a patch was answered with 404: the event's time to live was over.
    pub fn create_again(&self, patch: &Write) -> Option<Write> {
        let event = self.seen.entries.values().map(|(_, event)| event).find(|event| {
            event.metadata.name.as_deref() == Some(&patch.target.name)
                && event.metadata.namespace.as_deref().unwrap_or_default() == patch.target.namespace
        })?;
        (patch.verb == Verb::StrategicPatch).then(|| write(event, None))
    }

    fn make(&mut self, about: ObjectReference, warning: bool, reason: &str, message: &str, now: Timestamp) -> Event {
        let namespace =
            about.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned());
        self.last_ns = now.as_nanosecond().max(self.last_ns + 1);
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), self.last_ns);
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: about,
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }

    /// The event or, if there were many similar ones of late, one that stands for them; and the key it is counted under.
    fn aggregate(&mut self, mut event: Event, now: Timestamp) -> (Event, Vec<String>) {
        let about = &event.involved_object;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let message = text(&event.message);
        let mut key = object_key(about);
        key.extend([text(&event.type_), text(&event.reason)]);
        let similar = self.similar.get_or(key.clone(), || Similar { messages: BTreeSet::new(), last: now });
        if now.as_second() - similar.last.as_second() > AGGREGATE_WITHIN_S {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(message.clone());
        if similar.messages.len() < AGGREGATE_AFTER {
            key.extend([text(&about.field_path), message]);
            return (event, key);
        }
        similar.messages.pop_first();
        event.message = Some(format!("(combined from similar events): {message}"));
        (event, key)
    }

    /// Counts an event that was seen before. Returns the whole event and, if it exists already, what is to be patched.
    fn count(&mut self, event: Event, key: Vec<String>, now: Timestamp) -> (Event, Option<serde_json::Value>) {
        let mut again = true;
        let seen = self.seen.get_or(key, || {
            again = false;
            event.clone()
        });
        if !again {
            return (event, None);
        }
        seen.count = Some(seen.count.unwrap_or(1) + 1);
        seen.last_timestamp = Some(Time(now));
        seen.message = event.message;
        let patch =
            serde_json::json!({"count": seen.count, "lastTimestamp": seen.last_timestamp, "message": seen.message});
        (seen.clone(), Some(patch))
    }

    fn may_speak(&mut self, event: &Event, now: Timestamp) -> bool {
        let allowance =
            self.allowances.get_or(object_key(&event.involved_object), || Allowance { left: BURST, at: now });
        let passed_ms =
            i32::try_from((now.as_millisecond() - allowance.at.as_millisecond()).max(0)).unwrap_or(i32::MAX);
        allowance.left = (allowance.left + f64::from(passed_ms) / 1000.0 * REFILL_PER_S).min(BURST);
        allowance.at = now;
        let may = allowance.left >= 1.0;
        if may {
            allowance.left -= 1.0;
        }
        may
    }
}

fn object_key(about: &ObjectReference) -> Vec<String> {
    let parts = [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version];
    parts.map(|part| part.clone().unwrap_or_default()).into()
}

fn write(event: &Event, patch: Option<serde_json::Value>) -> Write {
    let name = event.metadata.name.clone().unwrap_or_default();
    let (verb, name, body) = match patch {
        Some(patch) => (Verb::StrategicPatch, name, patch.to_string()),
        None => (Verb::Create, String::new(), serde_json::to_string(event).unwrap_or_default()),
    };
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let target = Target { group: "", version: "v1", plural: "events", namespace, name, subresource: "" };
    Write { verb, target, body: body.into() }
}

/// A map that forgets what was used least recently.
#[derive(Debug)]
struct Remembered<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    uses: BTreeMap<u64, K>,
    clock: u64,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), uses: BTreeMap::new(), clock: 0 }
    }
}

impl<K: Ord + Clone, V> Remembered<K, V> {
    fn get_or(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        if !self.entries.contains_key(&key)
            && self.entries.len() >= REMEMBERED
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let entry = self.entries.entry(key.clone()).or_insert_with(|| (0, make()));
        self.uses.remove(&entry.0);
        entry.0 = self.clock;
        self.uses.insert(self.clock, key);
        &mut entry.1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Played {
        recorder: Recorder,
        now: Timestamp,
    }

    impl Played {
        fn new() -> Self {
            Self { recorder: Recorder::new("kubelet", "n"), now: Timestamp::from_second(1_000_000).unwrap() }
        }

        /// One event after `after_s`: `create MESSAGE`, `patch COUNT MESSAGE` or `-`.
        fn say(&mut self, after_s: i64, pod: &str, reason: &'static str, message: &str) -> String {
            self.now = Timestamp::from_second(self.now.as_second() + after_s).unwrap();
            let mut object = Pod::default();
            object.metadata.name = Some(pod.to_owned());
            let event = PodEvent {
                warning: true,
                reason: reason.into(),
                message: message.to_owned(),
                field_path: String::new(),
            };
            let Some(write) = self.recorder.pod(&object, &event, self.now) else { return "-".to_owned() };
            let body: serde_json::Value = serde_json::from_slice(&write.body).unwrap();
            let message = body["message"].as_str().unwrap();
            match write.verb {
                Verb::Create => format!("create {message}"),
                _ => format!("patch {} {message}", body["count"]),
            }
        }
    }

    #[test]
    fn equal_events_are_counted() {
        let mut played = Played::new();
        let said: Vec<_> = (0..3).map(|_| played.say(10, "p", "BackOff", "m")).collect();
        assert_eq!(said, ["create m", "patch 2 m", "patch 3 m"]);
        assert_eq!(played.say(0, "q", "BackOff", "m"), "create m");
        assert_eq!(played.say(0, "p", "Failed", "m"), "create m");
    }

    #[test]
    fn from_the_tenth_message_on_they_are_combined() {
        let mut played = Played::new();
        let said: Vec<_> = (0..12).map(|i| played.say(1, "p", "Failed", &format!("m{i}"))).collect();
        assert_eq!(said[8], "create m8");
        assert_eq!(
            said[9..],
            [
                "create (combined from similar events): m9",
                "patch 2 (combined from similar events): m10",
                "patch 3 (combined from similar events): m11"
            ]
        );
        assert_eq!(played.say(601, "p", "Failed", "later"), "create later");
    }

    #[test]
    fn who_says_too_much_is_not_heard() {
        let mut played = Played::new();
        let said: Vec<_> = (0..26).map(|_| played.say(0, "p", "BackOff", "m")).collect();
        assert_eq!(said[24..], ["patch 25 m", "-"]);
        assert_eq!(played.say(0, "q", "BackOff", "m"), "create m");
        assert_eq!(played.say(300, "p", "BackOff", "m"), "patch 27 m");
        assert_eq!(played.say(1, "p", "BackOff", "m"), "-");
    }

    #[test]
    fn a_lost_event_is_created_again_with_its_count() {
        let mut played = Played::new();
        let pod = Pod::default();
        let event = PodEvent {
            warning: false,
            reason: "Pulled".into(),
            message: "m".to_owned(),
            field_path: "spec.containers{c}".to_owned(),
        };
        played.recorder.pod(&pod, &event, played.now).unwrap();
        let patch = played.recorder.pod(&pod, &event, played.now).unwrap();
        let again = played.recorder.create_again(&patch).unwrap();
        let body: Event = serde_json::from_slice(&again.body).unwrap();
        assert_eq!(
            (again.verb, body.count, body.involved_object.field_path.as_deref()),
            (Verb::Create, Some(2), Some("spec.containers{c}"))
        );
    }
}
