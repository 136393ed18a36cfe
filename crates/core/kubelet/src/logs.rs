//! Which container's log stands for a name (upstream `validateContainerLogStatus`).

use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodStatus};

/// The id, as the status shows it (`minke://ID`), of the container whose log is asked for: the latest one that ran, or with
/// `previous` the one before it. The error is told to the user.
pub fn source(pod_name: &str, status: &PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let who = format!("container {container:?} in pod {pod_name:?}");
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let Some(status) = all.find(|status| status.name == container) else {
        return Err(format!("{who} is not available"));
    };
    let id = |end: &ContainerStateTerminated| end.container_id.clone().filter(|id| !id.is_empty());
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last_id = last.and_then(id);
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated {who} not found"));
    }
    if state.running.is_some() {
        return Ok(status.container_id.clone().unwrap_or_default());
    }
    if state.terminated.is_some() || last.is_some() {
        let id = state.terminated.as_ref().and_then(id).or(last_id);
        return id.ok_or_else(|| format!("{who} is terminated"));
    }
    let Some(waiting) = state.waiting else { return Err(format!("{who} is waiting to start - no logs yet")) };
    Err(match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" => format!("{who} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => format!("{who} is waiting to start: trying and failing to pull image"),
        reason => format!("{who} is waiting to start: {reason}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn source_of(state: &Value, last: &Value, previous: bool) -> Result<String, String> {
        let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "minke://now", "state": state, "lastState": last});
        let status = serde_json::from_value(json!({"containerStatuses": [container]})).unwrap_or_default();
        source("p", &status, "c", previous)
    }

    #[test]
    fn each_state_has_its_log_or_its_words() {
        let none = json!({});
        let running = json!({"running": {}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let cases = [
            (running.clone(), none.clone(), false, Ok("minke://now")),
            (running.clone(), ended("minke://old"), false, Ok("minke://now")),
            (running.clone(), ended("minke://old"), true, Ok("minke://old")),
            (running, none.clone(), true, Err("previous terminated container \"c\" in pod \"p\" not found")),
            (ended("minke://a"), ended("minke://old"), false, Ok("minke://a")),
            (ended(""), ended("minke://old"), false, Ok("minke://old")),
            (ended(""), none.clone(), false, Err("container \"c\" in pod \"p\" is terminated")),
            (waiting("CrashLoopBackOff"), ended("minke://old"), false, Ok("minke://old")),
            (waiting("CrashLoopBackOff"), ended(""), false, Err("container \"c\" in pod \"p\" is terminated")),
            (
                waiting("ErrImagePull"),
                none.clone(),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            (
                waiting("ImagePullBackOff"),
                none.clone(),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (
                waiting("PodInitializing"),
                none.clone(),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: PodInitializing"),
            ),
            (none.clone(), none, false, Err("container \"c\" in pod \"p\" is waiting to start - no logs yet")),
        ];
        for (state, last, previous, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(source_of(&state, &last, previous), expected, "{state} {last} {previous}");
        }
        let unknown = source("p", &PodStatus::default(), "d", false);
        assert_eq!(unknown, Err("container \"d\" in pod \"p\" is not available".to_owned()));
    }
}
