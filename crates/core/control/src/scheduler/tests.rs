//! Tables of clusters and what becomes of a Pod in them.
#![allow(clippy::unwrap_used)]

use super::*;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// A node of two processors with everything a node has; `more` is merged over it.
fn node(name: &str, more: Value) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    merge(&mut node, &more);
    node
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"containers": [{"name": "c"}]}});
    merge(&mut pod, &more);
    pod
}

/// A Pod that runs on a node.
fn on(node: &str, name: &str, more: Value) -> Value {
    let mut pod = pod(name, more);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

fn requests(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            patch.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn both(mut a: Value, b: Value) -> Value {
    merge(&mut a, &b);
    a
}

fn cluster(nodes: Vec<Value>, pods: Vec<Value>) -> Cluster {
    let nodes = nodes.into_iter().map(|node| Arc::new(serde_json::from_value(node).unwrap()));
    Cluster::new(nodes, pods.into_iter().map(|pod| Arc::new(serde_json::from_value(pod).unwrap())))
}

fn check(nodes: Vec<Value>, pods: Vec<Value>, new: Value, expected: Expect) {
    let new: Pod = serde_json::from_value(new).unwrap();
    expected.assert_eq(&text(&plan(&cluster(nodes, pods), &new)));
}

fn text(decision: &Decision) -> String {
    match decision {
        Decision::None => "nothing".to_owned(),
        Decision::Gated { message } => format!("gated: {message}"),
        Decision::Bind { node } => format!("bind to {node}"),
        Decision::Unschedulable { message, preemption } => match preemption {
            Preemption::Keep => message.clone(),
            Preemption::Forget => format!("{message} (no nomination)"),
            Preemption::Evict { node, victims } => {
                let names: Vec<_> = victims.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
                format!("{message} (evicts {} from {node})", names.join(", "))
            }
        },
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let one = || vec![node("n", json!({}))];
    check(one(), vec![], pod("p", json!({"spec": {"schedulerName": "mine"}})), expect!["nothing"]);
    check(one(), vec![], on("n", "p", json!({})), expect!["nothing"]);
    check(
        one(),
        vec![],
        pod("p", json!({"metadata": {"deletionTimestamp": "2027-01-15T09:00:00Z"}})),
        expect!["nothing"],
    );
    let gated = json!({"spec": {"schedulingGates": [{"name": "a/b"}]}});
    check(one(), vec![], pod("p", gated), expect!["gated: Scheduling is blocked due to non-empty scheduling gates"]);
    check(vec![], vec![], pod("p", json!({})), expect!["no nodes available to schedule pods"]);
}

#[test]
fn resources() {
    let one = || vec![node("n", json!({}))];
    check(one(), vec![], pod("p", requests("2")), expect!["bind to n"]);
    check(
        one(),
        vec![],
        pod("p", requests("1000")),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    let two = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1000", "memory": "10000Gi"}}}]}});
    check(
        one(),
        vec![],
        pod("p", two),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    let extended =
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/none": "1"}}}]}});
    check(
        one(),
        vec![],
        pod("p", extended),
        expect![
            "0/1 nodes are available: 1 Insufficient example.com/none. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    check(
        one(),
        vec![on("n", "a", requests("1500m"))],
        pod("p", requests("1")),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
    let ended = json!({"status": {"phase": "Succeeded"}});
    check(one(), vec![on("n", "a", both(requests("1500m"), ended))], pod("p", requests("1")), expect!["bind to n"]);
    let full = (0..10).map(|i| on("n", &format!("a{i}"), json!({}))).collect();
    check(
        one(),
        full,
        pod("p", json!({})),
        expect![
            "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
    let init = json!({"spec": {"initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]}});
    check(
        one(),
        vec![],
        pod("p", init),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
}

#[test]
fn the_emptier_node_is_taken() {
    let two = || vec![node("a", json!({})), node("b", json!({}))];
    check(two(), vec![], pod("p", json!({})), expect!["bind to a"]);
    check(two(), vec![on("a", "x", requests("1"))], pod("p", requests("500m")), expect!["bind to b"]);
    check(two(), vec![on("a", "x", json!({}))], pod("p", json!({})), expect!["bind to b"]);
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}}]}}}});
    check(two(), vec![on("a", "x", requests("100m"))], pod("p", prefers), expect!["bind to a"]);
    let soft = node("a", json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}));
    check(
        vec![soft, node("b", json!({}))],
        vec![on("b", "x", requests("100m"))],
        pod("p", json!({})),
        expect!["bind to b"],
    );
}

#[test]
fn selectors_and_affinity_to_nodes() {
    let one = || vec![node("n", json!({"metadata": {"labels": {"disk": "ssd", "size": "5"}}}))];
    let selects = |value: &str| pod("p", json!({"spec": {"nodeSelector": {"disk": value}}}));
    check(one(), vec![], selects("ssd"), expect!["bind to n"]);
    check(
        one(),
        vec![],
        selects("hdd"),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    let holds = |key: &str, operator: &str, values: &[&str]| {
        let term = json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let required = json!({"nodeSelectorTerms": [term]});
        let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}});
        let new: Pod = serde_json::from_value(pod("p", json!({"spec": spec}))).unwrap();
        matches!(plan(&cluster(one(), vec![]), &new), Decision::Bind { .. })
    };
    let cases = [
        holds("disk", "In", &["ssd", "x"]),
        holds("disk", "NotIn", &["ssd"]),
        holds("none", "NotIn", &["x"]),
        holds("disk", "Exists", &[]),
        holds("disk", "DoesNotExist", &[]),
        holds("size", "Gt", &["4"]),
        holds("size", "Lt", &["5"]),
        holds("disk", "Gt", &["4"]),
    ];
    assert_eq!(cases, [true, false, true, true, false, true, false, false]);
    let field =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    let named =
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": field}}}});
    check(one(), vec![], pod("p", named), expect!["bind to n"]);
    let empty = json!({"nodeSelectorTerms": [{}]});
    let none =
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": empty}}}});
    check(
        one(),
        vec![],
        pod("p", none),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
}

#[test]
fn taints_and_cordons() {
    let tainted = || vec![node("n", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}))];
    let tolerates = |toleration: Value| pod("p", json!({"spec": {"tolerations": [toleration]}}));
    check(
        tainted(),
        vec![],
        pod("p", json!({})),
        expect![
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    check(tainted(), vec![], tolerates(json!({"key": "k", "value": "v"})), expect!["bind to n"]);
    check(tainted(), vec![], tolerates(json!({"operator": "Exists"})), expect!["bind to n"]);
    check(
        tainted(),
        vec![],
        tolerates(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})),
        expect![
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    let cordoned = || {
        vec![
            node("a", json!({"spec": {"unschedulable": true}})),
            node("b", json!({"metadata": {"labels": {"x": "y"}}})),
        ]
    };
    check(
        cordoned(),
        vec![],
        pod("p", json!({"spec": {"nodeSelector": {"no": "where"}}})),
        expect![
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    let daemon = json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"});
    check(cordoned(), vec![on("b", "x", requests("1"))], tolerates(daemon), expect!["bind to a"]);
}

#[test]
fn host_ports() {
    let uses = |ip: &str, protocol: &str, number: i32| json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": number, "hostIP": ip, "protocol": protocol}]}]}});
    let fits = |a: Value, b: Value| {
        let new: Pod = serde_json::from_value(pod("p", b)).unwrap();
        matches!(plan(&cluster(vec![node("n", json!({}))], vec![on("n", "a", a)]), &new), Decision::Bind { .. })
    };
    assert!(!fits(uses("", "TCP", 80), uses("", "TCP", 80)));
    assert!(fits(uses("", "TCP", 80), uses("", "UDP", 80)));
    assert!(fits(uses("127.0.0.1", "TCP", 80), uses("127.0.0.2", "TCP", 80)));
    assert!(!fits(uses("127.0.0.1", "TCP", 80), uses("0.0.0.0", "TCP", 80)));
    check(
        vec![node("n", json!({}))],
        vec![on("n", "a", uses("", "TCP", 80))],
        pod("p", uses("", "TCP", 80)),
        expect![
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
}

/// `x: VALUE` as a label, with a required term about Pods with the same label.
fn social(kind: &str, value: &str) -> Value {
    let term = json!([{"labelSelector": {"matchLabels": {"x": value}}, "topologyKey": "kubernetes.io/hostname"}]);
    json!({"metadata": {"labels": {"x": value}}, "spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}}})
}

#[test]
fn wishes_for_company_and_distance() {
    let two = || vec![node("a", json!({})), node("b", json!({}))];
    let labelled = json!({"metadata": {"labels": {"x": "1"}}});
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"x": "1"}}});
    let soft = |kind: &str| json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "podAffinityTerm": term}]}}}});
    let there = |node: &str, more: &Value| vec![on(node, "p", more.clone())];
    // Without a wish the emptier node is better.
    check(two(), there("b", &labelled), pod("q", json!({})), expect!["bind to a"]);
    check(two(), there("b", &labelled), pod("q", soft("podAffinity")), expect!["bind to b"]);
    check(two(), there("a", &labelled), pod("q", soft("podAntiAffinity")), expect!["bind to b"]);
    // What those who are there wish for counts, too; their hard wishes a little.
    check(two(), there("b", &soft("podAffinity")), pod("q", labelled.clone()), expect!["bind to b"]);
    check(two(), there("a", &soft("podAntiAffinity")), pod("q", labelled.clone()), expect!["bind to b"]);
    check(two(), there("b", &social("podAffinity", "1")), pod("q", labelled), expect!["bind to b"]);
}

#[test]
fn affinity_between_pods() {
    let one = || vec![node("n", json!({}))];
    let two = || vec![node("a", json!({})), node("b", json!({}))];
    check(
        one(),
        vec![on("n", "p", social("podAntiAffinity", "1"))],
        pod("q", social("podAntiAffinity", "1")),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
    check(
        two(),
        vec![on("a", "p", social("podAntiAffinity", "1"))],
        pod("q", social("podAntiAffinity", "1")),
        expect!["bind to b"],
    );
    check(
        one(),
        vec![on("n", "p", social("podAntiAffinity", "1"))],
        pod("q", json!({"metadata": {"labels": {"x": "1"}}})),
        expect![
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
    let elsewhere = json!({"metadata": {"labels": {"x": "1"}, "namespace": "other"}});
    check(one(), vec![on("n", "p", elsewhere)], pod("q", social("podAntiAffinity", "1")), expect!["bind to n"]);
    check(
        two(),
        vec![on("b", "p", json!({"metadata": {"labels": {"x": "1"}}}))],
        pod("q", social("podAffinity", "1")),
        expect!["bind to b"],
    );
    // The first of its kind may go anywhere.
    check(one(), vec![], pod("q", social("podAffinity", "1")), expect!["bind to n"]);
    let mut lonely = social("podAffinity", "1");
    lonely["metadata"]["labels"] = json!({});
    check(
        one(),
        vec![],
        pod("q", lonely),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod affinity rules. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
}

#[test]
fn topology_spread() {
    let spread = |key: &str| {
        let constraint = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"x": "1"}}});
        json!({"metadata": {"labels": {"x": "1"}}, "spec": {"topologySpreadConstraints": [constraint]}})
    };
    let counted = || json!({"metadata": {"labels": {"x": "1"}}});
    let zone = |name: &str| node(name, json!({"metadata": {"labels": {"zone": name}}}));
    check(
        vec![node("n", json!({}))],
        vec![],
        pod("p", spread("no/such")),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
    check(
        vec![zone("a"), zone("b")],
        vec![on("a", "x", counted())],
        pod("p", both(spread("zone"), requests("1"))),
        expect!["bind to b"],
    );
    check(
        vec![zone("a"), node("b", json!({"metadata": {"labels": {"zone": "b"}}, "spec": {"unschedulable": true}}))],
        vec![on("a", "x", counted())],
        pod("p", spread("zone")),
        expect![
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling. (no nomination)"
        ],
    );
}

#[test]
fn claims() {
    let uses = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}});
    let new: Pod = serde_json::from_value(pod("p", uses)).unwrap();
    let mut cluster = cluster(vec![node("n", json!({}))], vec![]);
    expect!["0/1 nodes are available: persistentvolumeclaim \"none\" not found. not found"]
        .assert_eq(&text(&plan(&cluster, &new)));
    let mut claim = |claim: Value| {
        cluster.claims.insert(("default".into(), "none".into()), Arc::new(serde_json::from_value(claim).unwrap()));
        text(&plan(&cluster, &new))
    };
    let unbound = claim(json!({"metadata": {"name": "none"}, "status": {"phase": "Pending"}}));
    expect!["0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"].assert_eq(&unbound);
    let bound =
        claim(json!({"metadata": {"name": "none"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
    expect!["bind to n"].assert_eq(&bound);
}

#[test]
fn preemption() {
    let one = || vec![node("n", json!({}))];
    let rank = |cpu: &str, priority: i32| both(requests(cpu), json!({"spec": {"priority": priority}}));
    check(
        one(),
        vec![on("n", "low", rank("1", 10)), on("n", "lower", rank("1", 5))],
        pod("p", rank("1", 1000)),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n, preempting 1 victims (evicts lower from n)"
        ],
    );
    check(
        one(),
        vec![on("n", "low", rank("2", 10))],
        pod("p", both(rank("1", 1000), json!({"spec": {"preemptionPolicy": "Never"}}))),
        expect!["0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."],
    );
    let going = json!({"metadata": {"deletionTimestamp": "2027-01-15T09:00:00Z"}, "status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}});
    check(
        one(),
        vec![on("n", "low", both(rank("2", 10), going))],
        pod("p", both(rank("1", 1000), json!({"status": {"nominatedNodeName": "n"}}))),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."
        ],
    );
    // What is kept free for a nominated Pod is not given to another of lower priority.
    let nominated = pod("high", both(rank("2", 1000), json!({"status": {"nominatedNodeName": "n"}})));
    check(
        one(),
        vec![nominated],
        pod("p", rank("1", 10)),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ],
    );
    check(
        vec![node("a", json!({})), node("b", json!({}))],
        vec![on("a", "x", rank("2", 10)), on("b", "y", rank("2", 5))],
        pod("p", rank("2", 1000)),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node b, preempting 1 victims (evicts y from b)"
        ],
    );
}

#[test]
fn writes() {
    use crate::testing::{World, plan_text};
    use api::controller::ResourceName;
    let resource = |plural| ResourceName { group: "", version: "v1", plural };
    let check = |new: Value, expected: Expect| {
        let world = World::new()
            .with(resource("nodes"), &node("n", json!({})).to_string())
            .with(resource("pods"), &new.to_string());
        expected.assert_eq(&plan_text(&controller::controller(), &world, "default", "p"));
    };
    check(
        pod("p", json!({})),
        expect![[r#"
        Create v1 pods default/p/binding {"apiVersion":"v1","kind":"Binding","metadata":{"name":"p","namespace":"default","uid":"p"},"target":{"kind":"Node","name":"n"}}
        Create v1 events default/ {"action":"Binding","apiVersion":"v1","eventTime":"2027-01-15T08:00:00.000000Z","involvedObject":{"apiVersion":"v1","kind":"Pod","name":"p","namespace":"default","resourceVersion":null,"uid":"p"},"kind":"Event","message":"Successfully assigned default/p to n","metadata":{"name":"p.18fae27693b40000","namespace":"default"},"reason":"Scheduled","reportingComponent":"default-scheduler","reportingInstance":"default-scheduler","type":"Normal"}
    "#]],
    );
    check(
        pod("p", requests("1000")),
        expect![[r#"
        StrategicPatch v1 pods default/p/status {"metadata":{"uid":"p"},"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"2027-01-15T08:00:00Z","message":"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.","observedGeneration":null,"reason":"Unschedulable","status":"False","type":"PodScheduled"}]}}
        Create v1 events default/ {"action":"Scheduling","apiVersion":"v1","eventTime":"2027-01-15T08:00:00.000000Z","involvedObject":{"apiVersion":"v1","kind":"Pod","name":"p","namespace":"default","resourceVersion":null,"uid":"p"},"kind":"Event","message":"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.","metadata":{"name":"p.18fae27693b40000","namespace":"default"},"reason":"FailedScheduling","reportingComponent":"default-scheduler","reportingInstance":"default-scheduler","type":"Warning"}
    "#]],
    );
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let told = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}});
    check(pod("p", both(requests("1000"), told)), expect![[""]]);
    check(
        pod("p", json!({"spec": {"schedulingGates": [{"name": "a/b"}]}})),
        expect![[r#"
        StrategicPatch v1 pods default/p/status {"metadata":{"uid":"p"},"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"2027-01-15T08:00:00Z","message":"Scheduling is blocked due to non-empty scheduling gates","observedGeneration":null,"reason":"SchedulingGated","status":"False","type":"PodScheduled"}]}}
    "#]],
    );
}

/// A Pod that somebody bound without the scheduler.
#[test]
fn a_node_refuses_what_does_not_fit_it() {
    let tainted = |effect: &str| node("n", json!({"spec": {"taints": [{"key": "k", "effect": effect}]}}));
    let gpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}});
    let with_gpu = |amount: &str| node("n", json!({"status": {"allocatable": {"example.com/gpu": amount}}}));
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}});
    let labelled = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    let full = |number: usize| (0..number).map(|i| on("n", &format!("p{i}"), json!({}))).collect::<Vec<_>>();
    let plain = || node("n", json!({}));
    let cases = [
        (plain(), vec![], json!({}), None),
        (
            plain(),
            vec![],
            requests("3"),
            Some("OutOfcpu: Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"),
        ),
        (
            plain(),
            vec![on("n", "o", requests("1500m"))],
            requests("600m"),
            Some("OutOfcpu: Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000"),
        ),
        (
            plain(),
            full(10),
            json!({}),
            Some("OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 10, capacity: 10"),
        ),
        (
            plain(),
            vec![],
            labelled.clone(),
            Some("NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
        ),
        (node("n", json!({"metadata": {"labels": {"disk": "ssd"}}})), vec![], labelled, None),
        (
            plain(),
            vec![],
            json!({"spec": {"nodeName": "m"}}),
            Some("NodeName: Predicate NodeName failed: node(s) didn't match the requested node name"),
        ),
        (
            plain(),
            vec![on("n", "o", port.clone())],
            port,
            Some("NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"),
        ),
        (tainted("NoSchedule"), vec![], json!({}), None),
        (
            tainted("NoExecute"),
            vec![],
            json!({}),
            Some("TaintToleration: Predicate TaintToleration failed: node(s) had untolerated taint(s)"),
        ),
        (plain(), vec![], gpu.clone(), None),
        (with_gpu("1"), vec![], gpu.clone(), None),
        (
            with_gpu("0"),
            vec![],
            gpu,
            Some(
                "OutOfexample.com/gpu: Node didn't have enough resource: example.com/gpu, requested: 1, used: 0, capacity: 0",
            ),
        ),
    ];
    for (node, pods, new, expected) in cases {
        let new: Pod = serde_json::from_value(pod("new", new)).unwrap();
        let refusal = admission::refusal(&new, &cluster(vec![node], pods).nodes[0]);
        let said = refusal.map(|refusal| format!("{}: {}", refusal.reason, refusal.message));
        assert_eq!(said.as_deref(), expected);
    }
}

/// While a Pod is resized, the largest of what it asks for, was granted and has counts; what can never be granted does not.
#[test]
fn a_resized_pod_holds_the_most_of_its_sizes() {
    let running = |asked: &str, granted: &str, actual: &str, pending: &str| {
        let status = json!({"status": {
            "allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": actual}},
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
        }});
        vec![on("n", "r", both(requests(asked), status))]
    };
    let one = || vec![node("n", json!({}))];
    let new = || pod("p", requests("1500m"));
    check(one(), running("500m", "500m", "500m", "Deferred"), new(), expect!["bind to n"]);
    let no_room = || {
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (no nomination)"
        ]
    };
    check(one(), running("600m", "500m", "500m", "Deferred"), new(), no_room());
    check(one(), running("500m", "600m", "500m", "Deferred"), new(), no_room());
    check(one(), running("500m", "500m", "600m", "Deferred"), new(), no_room());
    check(one(), running("600m", "500m", "500m", "Infeasible"), new(), expect!["bind to n"]);
    // Nodes that tell of containers only.
    let status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "allocatedResources": {"cpu": "600m"}});
    let status = json!({"status": {"containerStatuses": [status]}});
    check(one(), vec![on("n", "r", both(requests("500m"), status))], new(), no_room());
}
