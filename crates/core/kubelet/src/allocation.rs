//! What a node has granted each of its Pods, and in which order it looks again at what it could not grant yet (upstream
//! `pkg/kubelet/allocation`, KEP-1287). The machines see Pods as granted.

use crate::allocated::{asks_more, same};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The amounts granted to one Pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocation {
    whole: Option<ResourceRequirements>,
    containers: BTreeMap<String, Option<ResourceRequirements>>,
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

impl Allocation {
    /// What the Pod asks for.
    pub fn of(pod: &Pod) -> Self {
        Self {
            whole: pod.spec.as_ref().and_then(|spec| spec.resources.clone()),
            containers: containers(pod).map(|c| (c.name.clone(), c.resources.clone())).collect(),
        }
    }

    /// Of a Pod seen for the first time: where its status tells of other requests than its spec, the change of the spec was not
    /// granted yet. (What changes only limits always is.)
    pub fn at_first(pod: &Pod) -> Self {
        let mut allocation = Self::of(pod);
        let Some(status) = &pod.status else { return allocation };
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        for status in statuses {
            let (Some(slot), Some(requests)) =
                (allocation.containers.get_mut(&status.name), &status.allocated_resources)
            else {
                continue;
            };
            let granted = ResourceRequirements { requests: Some(requests.clone()), ..slot.clone().unwrap_or_default() };
            if !same(Some(&granted), slot.as_ref()) {
                let limits = status.resources.as_ref().and_then(|resources| resources.limits.clone());
                *slot = Some(ResourceRequirements { limits: limits.or(granted.limits.clone()), ..granted });
            }
        }
        let held = status.allocated_resources.as_ref().zip(status.resources.as_ref());
        if let (Some(whole), Some((requests, actual))) = (&mut allocation.whole, held)
            && crate::allocated::requests(pod).as_ref() != Some(requests)
        {
            let of = |name: &String| requests.contains_key(name);
            for (name, amount) in whole.requests.iter_mut().flatten().filter(|(name, _)| of(name)) {
                let overhead = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()?.get(name));
                *amount = crate::allocated::without(&requests[name], overhead);
            }
            for (name, amount) in whole.limits.iter_mut().flatten() {
                if let Some(limit) = actual.limits.as_ref().and_then(|limits| limits.get(name)) {
                    amount.clone_from(limit);
                }
            }
        }
        allocation
    }

    /// Whether the Pod asks for something else than it was granted.
    pub fn differs(&self, pod: &Pod) -> bool {
        let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let other = |c: &Container| {
            self.containers.get(&c.name).is_some_and(|granted| !same(granted.as_ref(), c.resources.as_ref()))
        };
        !same(self.whole.as_ref(), whole) || containers(pod).any(other)
    }

    /// The Pod with the amounts that it was granted.
    pub fn granted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if !self.differs(pod) {
            return Arc::clone(pod);
        }
        let mut pod = Pod::clone(pod);
        if let Some(spec) = &mut pod.spec {
            spec.resources.clone_from(&self.whole);
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(granted) = self.containers.get(&container.name) {
                    container.resources.clone_from(granted);
                }
            }
        }
        Arc::new(pod)
    }
}

/// Pods whose change waits, with what they were granted, in the order in which they are looked at: those that ask for no more
/// first, then by priority, by class, by how long they have waited.
pub fn in_order(mut waiting: Vec<(Arc<Pod>, Allocation)>) -> Vec<(Arc<Pod>, Allocation)> {
    waiting.sort_by_cached_key(|(pod, allocation)| {
        let more = asks_more(&allocation.granted(pod), pod);
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        let guaranteed = crate::resources::Qos::of(pod) == crate::resources::Qos::Guaranteed;
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let since = conditions.filter(|condition| condition.type_ == crate::conditions::RESIZE_PENDING);
        let since = since.filter_map(|condition| condition.last_transition_time.as_ref().map(|time| time.0)).min();
        (more, Reverse(priority), !guaranteed, since.is_none(), since)
    });
    waiting
}

/// What events tell of a change: `{"containers":[…],"generation":2}` (upstream `events/resize.go`).
pub fn summary(pod: &Pod, generation: i64, error: &str) -> String {
    #[derive(Serialize)]
    struct Of<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Of<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        containers: Vec<Of<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    fn of(container: &Container) -> Of<'_> {
        Of { name: &container.name, resources: container.resources.clone().unwrap_or_default() }
    }
    let spec = pod.spec.as_ref();
    let summary = Summary {
        init_containers: spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten()).map(of).collect(),
        containers: spec.into_iter().flat_map(|spec| &spec.containers).map(of).collect(),
        generation,
        error,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn one(cpu: &str, more: &Value) -> Arc<Pod> {
        let mut pod_value = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        pod_value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod(pod_value)
    }

    #[test]
    fn what_was_not_granted_is_not_seen() {
        let (old, new) = (one("100m", &json!({})), one("0.2", &json!({})));
        let allocation = Allocation::of(&old);
        assert!(allocation.differs(&new) && !allocation.differs(&one("0.1", &json!({}))));
        assert_eq!(allocation.granted(&new), old);
    }

    #[test]
    fn after_a_restart_the_status_tells_what_was_granted() {
        let of = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "100m"}, "resources": of("100m")});
        let status = json!({"status": {"containerStatuses": [status]}});
        let waits = one("3", &status);
        assert_eq!(Allocation::at_first(&waits).granted(&waits).spec, one("100m", &json!({})).spec);
        assert!(!Allocation::at_first(&one("100m", &status)).differs(&one("100m", &json!({}))));
    }

    #[test]
    fn after_a_restart_the_whole_pods_too() {
        let spec = |cpu: &str| {
            json!({"containers": [{"name": "c"}], "overhead": {"cpu": "50m"},
            "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
        };
        let status = json!({"allocatedResources": {"cpu": "150m"}, "resources": {"limits": {"cpu": "100m"}}});
        let waits = pod(json!({"spec": spec("2"), "status": status}));
        assert_eq!(Allocation::at_first(&waits).granted(&waits).spec, pod(json!({"spec": spec("100m")})).spec);
    }

    #[test]
    fn those_that_wait_have_an_order() {
        let named = |name: &str, cpu: &str, priority: i32, since: &str| {
            let condition = json!({"type": "PodResizePending", "status": "True", "lastTransitionTime": since});
            let pod = pod(
                json!({"metadata": {"name": name}, "status": {"qosClass": "Burstable", "conditions": [condition]},
                "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
            );
            (pod, Allocation::of(&one("1", &json!({}))))
        };
        let (early, late) = ("2027-01-01T00:00:00Z", "2027-01-01T00:00:09Z");
        let waiting = vec![
            named("late", "2", 0, late),
            named("early", "2", 0, early),
            named("important", "2", 9, late),
            named("less", "500m", 0, late),
        ];
        let names: Vec<_> = in_order(waiting).into_iter().map(|(pod, _)| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["less", "important", "early", "late"]);
    }

    #[test]
    fn is_told_as_upstream_tells_it() {
        let resources =
            json!({"limits": {"cpu": "50m", "memory": "48Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}});
        let pod = pod(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}));
        let expected = r#"{"containers":[{"name":"c","resources":{"limits":{"cpu":"50m","memory":"48Mi"},"requests":{"cpu":"10m","memory":"16Mi"}}}],"generation":2}"#;
        assert_eq!(summary(&pod, 2, ""), expected);
    }
}
