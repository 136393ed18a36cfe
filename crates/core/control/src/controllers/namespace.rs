//! Empties a namespace that is being deleted, Pods first (KEP-5080), then lets it go (upstream
//! `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`).

use super::{NAMESPACES, its_namespace, itself};
use api::controller::{Concerns, Config, Controller, Key, Plan, ResourceName, View};
use api::object::Object;
use api::write::{Target, Verb, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

const FINALIZER: &str = "kubernetes";
const PODS: ResourceName = ResourceName { group: "", version: "v1", plural: "pods" };

/// Every namespaced resource that can be listed and deleted, in the version that is stored.
static CONTENT: LazyLock<Vec<ResourceName>> = LazyLock::new(|| {
    let deletable = |verbs: &[&str]| ["list", "watch", "delete"].iter().all(|verb| verbs.contains(verb));
    let resources = api::table::resources().iter();
    // core/v1 Events are the same objects as events.k8s.io's.
    let content = resources.filter(|r| r.namespaced && r.stored && deletable(r.verbs));
    content.map(|r| ResourceName { group: r.group, version: r.version, plural: r.plural }).collect()
});

static WATCHES: LazyLock<Vec<(ResourceName, Concerns)>> = LazyLock::new(|| {
    let content = CONTENT.iter().map(|resource| (*resource, if_terminating as Concerns));
    std::iter::once((NAMESPACES, itself as Concerns)).chain(content).collect()
});

pub(super) fn controller() -> Controller {
    Controller { name: "namespace-controller", watches: &WATCHES, plan }
}

fn if_terminating(view: &dyn View, object: &Object) -> Vec<Key> {
    let keys = its_namespace(view, object);
    if keys.iter().any(|key| terminating(view, &key.name).is_some()) { keys } else { Vec::new() }
}

fn terminating(view: &dyn View, name: &str) -> Option<Arc<Namespace>> {
    let namespace = view.get(NAMESPACES, "", name)?.typed::<Namespace>().ok()?;
    namespace.metadata.deletion_timestamp.is_some().then_some(namespace)
}

fn plan(_: &Config, view: &dyn View, key: &Key, now: Timestamp) -> Plan {
    let Some(namespace) = terminating(view, &key.name) else { return Plan::default() };
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    let others: Vec<_> = finalizers.clone().filter(|finalizer| *finalizer != FINALIZER).collect();
    if others.len() == finalizers.count() {
        return Plan::default();
    }
    let left: Vec<(ResourceName, Vec<Arc<Object>>)> = CONTENT
        .iter()
        .map(|resource| (*resource, view.list(*resource, &key.name)))
        .filter(|(_, objects)| !objects.is_empty())
        .collect();
    let waiting: Vec<(ResourceName, Vec<Arc<Object>>)> = left
        .iter()
        .map(|(resource, objects)| (*resource, objects.iter().filter(|o| waits(*resource, o)).cloned().collect()))
        .filter(|(_, objects): &(_, Vec<_>)| !objects.is_empty())
        .collect();
    let mut writes: Vec<Write> = Vec::new();
    if left.is_empty() || !waiting.is_empty() {
        writes.extend(status(&namespace, &waiting, now));
    }
    let pods_first = left.iter().any(|(resource, _)| *resource == PODS);
    for (resource, objects) in left.iter().filter(|(resource, _)| !pods_first || *resource == PODS) {
        for object in objects.iter().filter(|object| !is_terminating(object)) {
            writes.push(Write {
                verb: Verb::Delete,
                target: target(*resource, &key.name, &object.name),
                body: json!({"preconditions": {"uid": meta(object)["uid"]}}).to_string().into(),
            });
        }
    }
    if left.is_empty() {
        let mut released = serde_json::to_value(&*namespace).unwrap_or_default();
        released["spec"]["finalizers"] = json!(others);
        let target = Target { subresource: "finalize", ..target(NAMESPACES, "", &key.name) };
        writes.push(Write { verb: Verb::Update, target, body: released.to_string().into() });
    }
    Plan { writes, ..Plan::default() }
}

fn target(resource: ResourceName, namespace: &str, name: &str) -> Target {
    let ResourceName { group, version, plural } = resource;
    Target { group, version, plural, namespace: namespace.to_owned(), name: name.to_owned(), subresource: "" }
}

fn meta(object: &Object) -> Value {
    let whole: Value = serde_json::from_slice(&object.json()).unwrap_or_default();
    whole["metadata"].clone()
}

fn is_terminating(object: &Object) -> bool {
    meta(object)["deletionTimestamp"].is_string()
}

/// Whether deleting the object does not make it go at once.
fn waits(resource: ResourceName, object: &Object) -> bool {
    let metadata = meta(object);
    resource == PODS || metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

/// The conditions that tell what deletion still waits for, if they changed.
fn status(namespace: &Namespace, left: &[(ResourceName, Vec<Arc<Object>>)], now: Timestamp) -> Option<Write> {
    let (mut content, mut held) = (String::new(), std::collections::BTreeMap::<String, usize>::new());
    for (resource, objects) in left {
        let separator = if content.is_empty() { "" } else { ", " };
        let ResourceName { group, plural, .. } = resource;
        write!(content, "{separator}{plural}.{group} has {} resource instances", objects.len()).ok();
        for finalizer in objects.iter().flat_map(|object| {
            let finalizers = meta(object)["finalizers"].clone();
            finalizers
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|f| f.as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        }) {
            *held.entry(finalizer).or_default() += 1;
        }
    }
    let held: Vec<_> = held.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let condition = |of: &str, wrong: bool, reason: &str, message: String| {
        let status = if wrong { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == of && c.status == status);
        let since = before.and_then(|condition| condition.last_transition_time.clone()).map_or(now, |time| time.0);
        json!({"type": of, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": format!("{since:.0}")})
    };
    let or = |wrong: bool, bad: &'static str, good: &'static str| if wrong { bad } else { good };
    let remains = !left.is_empty();
    let content_message = if remains {
        format!("Some resources are remaining: {content}")
    } else {
        "All content successfully removed".to_owned()
    };
    let held_message = if held.is_empty() {
        "All content-preserving finalizers finished".to_owned()
    } else {
        format!("Some content in the namespace has finalizers remaining: {}", held.join(", "))
    };
    let conditions = json!([
        condition(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned()
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned()
        ),
        condition(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned()
        ),
        condition(
            "NamespaceContentRemaining",
            remains,
            or(remains, "SomeResourcesRemain", "ContentRemoved"),
            content_message
        ),
        condition(
            "NamespaceFinalizersRemaining",
            !held.is_empty(),
            or(!held.is_empty(), "SomeFinalizersRemain", "ContentHasNoFinalizers"),
            held_message
        ),
    ]);
    if serde_json::to_value(&old).is_ok_and(|old| old == conditions) {
        return None;
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let target = Target { subresource: "status", ..target(NAMESPACES, "", name) };
    let mut body = serde_json::to_value(namespace).unwrap_or_default();
    body["status"]["conditions"] = conditions;
    Some(Write { verb: Verb::Update, target, body: body.to_string().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, plan_text};
    use expect_test::expect;

    const GOING: &str =
        r#"{"metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"finalizers":["kubernetes"]}}"#;
    const MAPS: ResourceName = ResourceName { group: "", version: "v1", plural: "configmaps" };

    fn deletions(world: &World) -> String {
        let text = plan_text(&controller(), world, "", "a");
        text.lines().filter(|line| !line.contains("/a/status")).fold(String::new(), |all, line| all + line + "\n")
    }

    #[test]
    fn pods_go_first_then_the_rest_then_the_finalizer() {
        let map = r#"{"metadata":{"name":"m","namespace":"a","uid":"1"}}"#;
        let world = World::new().with(NAMESPACES, GOING).with(MAPS, map);
        let pod = r#"{"metadata":{"name":"p","namespace":"a","uid":"2"}}"#;
        let going = r#"{"metadata":{"name":"q","namespace":"a","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
        let with_pods = world.clone().with(PODS, pod).with(PODS, going);
        expect![[r#"
            Delete v1 pods a/p {"preconditions":{"uid":"2"}}
        "#]]
        .assert_eq(&deletions(&with_pods));
        expect![[r#"
            Delete v1 configmaps a/m {"preconditions":{"uid":"1"}}
        "#]]
        .assert_eq(&deletions(&world));
        let empty = World::new().with(NAMESPACES, GOING);
        assert!(deletions(&empty).starts_with("Update v1 namespaces /a/finalize "));
        assert!(deletions(&empty).contains(r#""finalizers":[]"#));
    }

    #[test]
    fn active_namespaces_are_left_alone() {
        let world = World::new().with(NAMESPACES, r#"{"metadata":{"name":"a"},"spec":{"finalizers":["kubernetes"]}}"#);
        assert_eq!(plan_text(&controller(), &world, "", "a"), "");
    }
}
