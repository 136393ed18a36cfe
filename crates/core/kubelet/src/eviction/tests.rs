//! Tables of what a node has left, and who goes.

#![allow(clippy::unwrap_used)]
use super::settings::Amount;
use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const MI: u64 = 1 << 20;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn settings(hard: &str, soft: &str, grace: &str, reclaim: &str) -> Settings {
    Settings::parse(Some(hard), Some(soft), Some(grace), Some(reclaim)).unwrap()
}

fn memory(available_mi: u64) -> Observations {
    BTreeMap::from([(Signal::MemoryAvailable, Observation { available: available_mi * MI, capacity: 1000 * MI })])
}

#[test]
fn flags() {
    let usual = Settings::parse(None, None, None, None).unwrap();
    let shown: Vec<_> = usual.thresholds.iter().map(|one| (one.signal.name(), one.value)).collect();
    assert_eq!(
        shown,
        [
            ("memory.available", Amount::Absolute(100 * MI)),
            ("nodefs.available", Amount::Fraction(0.1)),
            ("nodefs.inodesFree", Amount::Fraction(0.05)),
            ("imagefs.available", Amount::Fraction(0.15)),
            ("imagefs.inodesFree", Amount::Fraction(0.05)),
        ]
    );
    let disk = |available: u64, capacity: u64| {
        BTreeMap::from([(Signal::NodeFsAvailable, Observation { available, capacity })])
    };
    assert!(is_relieved(&usual, &disk(1025 * MI, 1 << 40)), "a large disk of somebody else's");
    assert!(!is_relieved(&usual, &disk(1023 * MI, 1 << 40)) && !is_relieved(&usual, &disk(9, 100)));
    assert!(!is_relieved(&settings("nodefs.available<10%", "", "", ""), &disk(1025 * MI, 1 << 40)), "asked for");
    let given = settings(
        "memory.available<1Gi, pid.available<0",
        "nodefs.available<20%",
        "nodefs.available=1m30s",
        "nodefs.available=1Gi",
    );
    assert_eq!(given.thresholds.len(), 2, "zero switches off");
    assert_eq!(given.thresholds[1].grace_period, Some(seconds(90)));
    assert_eq!(given.thresholds[1].minimum_reclaim, Some(Amount::Absolute(1024 * MI)));
    assert!(settings("", "", "", "").thresholds.is_empty());
    let shown = usual.shown(false);
    assert_eq!((shown["memory.available"].as_str(), shown["nodefs.available"].as_str()), ("100Mi", "10%"));
    assert_eq!(given.shown(true), BTreeMap::from([("nodefs.available", "20%".to_owned())]));
    for (hard, soft, grace, reclaim, why) in [
        ("swap.available<1", "", "", "", "--eviction-hard: unsupported eviction signal swap.available"),
        ("memory.available=1", "", "", "", "--eviction-hard: \"memory.available=1\" is not of the form SIGNAL<VALUE"),
        ("memory.available<-1", "", "", "", "--eviction-hard: \"-1\" must not be negative"),
        ("memory.available<110%", "", "", "", "--eviction-hard: \"110%\" must be a percentage between 0% and 100%"),
        (
            "",
            "memory.available<1Gi",
            "",
            "",
            "--eviction-soft-grace-period: grace period must be specified for the soft eviction threshold memory.available",
        ),
        (
            "",
            "memory.available<1Gi",
            "memory.available=soon",
            "",
            "--eviction-soft-grace-period: \"soon\" is no duration",
        ),
        ("memory.available<1", "", "", "memory.available=x", "--eviction-minimum-reclaim: \"x\" is no quantity"),
    ] {
        let wrong = Settings::parse(Some(hard), Some(soft), Some(grace), Some(reclaim)).unwrap_err();
        assert_eq!(wrong.to_string(), why);
    }
}

#[test]
fn a_hard_threshold_acts_at_once_and_its_condition_lingers() {
    let settings = settings("memory.available<100Mi", "", "", "");
    let mut manager = Manager::default();
    assert_eq!(manager.observe(&settings, &memory(100), seconds(0)), Turn::default());
    let turn = manager.observe(&settings, &memory(99), seconds(10));
    assert_eq!((turn.conditions.len(), turn.reclaim.len()), (1, 1));
    let turn = manager.observe(&settings, &memory(500), seconds(20));
    assert_eq!((turn.conditions.into_iter().next(), turn.reclaim.len()), (Some(Condition::MemoryPressure), 0));
    assert_eq!(manager.observe(&settings, &memory(500), seconds(309)).conditions.len(), 1);
    assert_eq!(manager.observe(&settings, &memory(500), seconds(310)), Turn::default());
}

#[test]
fn a_soft_threshold_waits_and_begins_anew() {
    let settings = settings("", "memory.available<200Mi", "memory.available=30s", "");
    let mut manager = Manager::default();
    let mut reclaims =
        |available: u64, at: u64| !manager.observe(&settings, &memory(available), seconds(at)).reclaim.is_empty();
    assert!(!reclaims(150, 0) && !reclaims(150, 29));
    assert!(reclaims(150, 30));
    assert!(!reclaims(300, 40) && !reclaims(150, 50) && !reclaims(150, 79));
    assert!(reclaims(150, 80));
}

#[test]
fn what_was_reclaimed_must_be_more_than_enough() {
    let settings = settings("memory.available<100Mi", "", "", "memory.available=50Mi");
    let mut manager = Manager::default();
    let mut reclaims =
        |available: u64, at: u64| !manager.observe(&settings, &memory(available), seconds(at)).reclaim.is_empty();
    assert!(!reclaims(120, 0), "not met before");
    assert!(reclaims(99, 10) && reclaims(149, 20));
    assert!(!reclaims(150, 30) && !reclaims(120, 40));
    assert!(!is_relieved(&settings, &memory(149)) && is_relieved(&settings, &memory(150)));
}

#[test]
fn memory_is_reclaimed_first() {
    let settings = settings("nodefs.available<50%,memory.available<100Mi,pid.available<1k", "", "", "");
    let mut observations = memory(1);
    observations.insert(Signal::NodeFsAvailable, Observation { available: 1, capacity: 100 });
    observations.insert(Signal::PidAvailable, Observation { available: 999, capacity: 5000 });
    let turn = Manager::default().observe(&settings, &observations, seconds(0));
    let order: Vec<_> = turn.reclaim.iter().map(|threshold| threshold.signal.resource()).collect();
    assert_eq!(order, ["memory", "ephemeral-storage", "pids"]);
    assert_eq!(turn.conditions.len(), 3);
}

/// A Pod of that priority that uses, and requests, so much memory; half of it on disk.
fn pod(uid: &str, priority: i32, used: u64, request: u64) -> Usage {
    let used = Used { memory: used * MI, storage: used * MI / 2, inodes: used, pids: used };
    let (memory_request, storage_request) = (request * MI, request * MI / 2);
    Usage { uid: uid.to_owned(), priority, used: Some(used), memory_request, storage_request, ..Usage::default() }
}

fn order(signal: Signal, mut pods: Vec<Usage>) -> String {
    rank(signal, &mut pods);
    pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_goes_first() {
    // Upstream's `TestMemoryPressure`.
    let pods = || {
        vec![
            pod("best-effort-low", 0, 450, 0),
            pod("best-effort-high", 10, 400, 0),
            pod("burstable-high-usage", 0, 900, 100),
            pod("burstable-below", 0, 900, 1000),
            pod("guaranteed-high", 10, 100, 1000),
            Usage { used: None, ..pod("unknown", 100, 0, 0) },
        ]
    };
    let wanted = "unknown burstable-high-usage best-effort-low best-effort-high burstable-below guaranteed-high";
    assert_eq!(order(Signal::MemoryAvailable, pods()), wanted);
    assert_eq!(order(Signal::NodeFsAvailable, pods()), wanted);
    let by_count = "unknown burstable-high-usage burstable-below best-effort-low best-effort-high guaranteed-high";
    assert_eq!(order(Signal::PidAvailable, pods()), by_count);
    assert_eq!(order(Signal::NodeFsInodesFree, pods()), by_count);
}

#[test]
fn what_an_evicted_pod_is_told() {
    let settings = settings("memory.available<100Mi,nodefs.available<10%,pid.available<1k", "", "", "");
    let mut observations = memory(64);
    observations.insert(Signal::NodeFsAvailable, Observation { available: 1024 * MI, capacity: 20480 * MI });
    observations.insert(Signal::PidAvailable, Observation { available: 12, capacity: 32768 });
    let container = |name: &str, used: u64, request: u64| ContainerUsage {
        name: name.to_owned(),
        memory: used * MI,
        memory_request: request * MI,
        storage: used,
        ..ContainerUsage::default()
    };
    let pod = Usage { containers: vec![container("a", 300, 100), container("b", 1, 100)], ..pod("u", 0, 301, 200) };
    let said = |signal| message(signal, &pod, &settings.thresholds, &observations);
    assert_eq!(
        said(Signal::MemoryAvailable),
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. Container a was using 300Mi, \
         request is 100Mi, has larger consumption of memory. "
    );
    assert_eq!(
        said(Signal::NodeFsAvailable),
        "The node was low on resource: ephemeral-storage. Threshold quantity: 2Gi, available: 1Gi. Container a was using \
         300, request is 0, has larger consumption of ephemeral-storage. Container b was using 1, request is 0, has larger \
         consumption of ephemeral-storage. "
    );
    assert_eq!(
        said(Signal::PidAvailable),
        "The node was low on resource: pids. Threshold quantity: 1k, available: 12. "
    );
}

#[test]
fn who_is_taken_under_pressure() {
    let memory = BTreeSet::from([Condition::MemoryPressure]);
    let both = BTreeSet::from([Condition::DiskPressure, Condition::MemoryPressure]);
    let said = |conditions: &BTreeSet<Condition>, critical, best_effort, tolerates| {
        refusal(conditions, critical, best_effort, tolerates)
    };
    assert_eq!(said(&BTreeSet::new(), false, true, false), None);
    assert_eq!(said(&memory, false, false, false), None);
    assert_eq!(said(&memory, false, true, true), None);
    assert_eq!(said(&both, true, true, false), None);
    assert_eq!(said(&memory, false, true, false).unwrap(), "The node had condition: [MemoryPressure]. ");
    assert_eq!(said(&both, false, false, true).unwrap(), "The node had condition: [MemoryPressure DiskPressure]. ");
}

#[test]
fn limits_of_local_storage() {
    let container = |name: &str, limit: Value| json!({"name": name, "resources": {"limits": limit}});
    let pod = |volume: Value, containers: Value| -> Pod {
        serde_json::from_value(json!({"spec": {"volumes": [volume], "containers": containers}})).unwrap()
    };
    let local = |pod: u64, volume: u64, c: u64| Local {
        pod,
        volumes: BTreeMap::from([("v".to_owned(), volume)]),
        containers: BTreeMap::from([("c".to_owned(), c)]),
    };
    let limited = json!({"name": "v", "emptyDir": {"sizeLimit": "1Mi"}});
    let in_memory = json!({"name": "v", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}});
    let plain = json!({"name": "v", "emptyDir": {}});
    let free = json!([container("c", json!({}))]);
    let both = json!([
        container("c", json!({"ephemeral-storage": "2Mi"})),
        container("d", json!({"ephemeral-storage": "3Mi"}))
    ]);
    for (volume, containers, local, wanted) in [
        (&limited, &free, local(0, MI, 0), None),
        (&limited, &free, local(0, MI + 1, 0), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")),
        (&in_memory, &free, local(0, 2 * MI, 0), None),
        (&plain, &free, local(1 << 40, 1 << 40, 1 << 40), None),
        (&plain, &both, local(5 * MI, 0, 2 * MI), None),
        (
            &plain,
            &both,
            local(5 * MI + 1, 0, 0),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. "),
        ),
        (
            &plain,
            &both,
            local(3 * MI, 0, 2 * MI + 1),
            Some("Container c exceeded its local ephemeral storage limit \"2Mi\". "),
        ),
    ] {
        let found = over_limit(&pod(volume.clone(), containers.clone()), &local).map(|(_, message)| message);
        assert_eq!(found.as_deref(), wanted);
    }
}
