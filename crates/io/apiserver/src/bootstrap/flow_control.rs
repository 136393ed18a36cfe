//! Flow schemas and priority levels of the first start (upstream `apiserver/pkg/apis/flowcontrol/bootstrap`).
//!
//! They are the objects that clients see; how requests are queued here is the HTTP edge's own rule.

use super::Bootstrap;
use serde_json::{Value, json};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) fn objects() -> Vec<Bootstrap> {
    levels().into_iter().chain(schemas()).collect()
}

fn object(plural: &'static str, kind: &str, name: &str, spec: &Value) -> Bootstrap {
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": name, "generation": 1, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
        "status": {},
    });
    Bootstrap::new(GROUP, plural, object)
}

fn levels() -> Vec<Bootstrap> {
    let level =
        |name: &str, spec: &Value| object("prioritylevelconfigurations", "PriorityLevelConfiguration", name, spec);
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let catch_all = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
    }});
    let mut all = vec![level("exempt", &exempt), level("catch-all", &catch_all)];
    let queued = [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ];
    for (name, shares, lendable, queues, hand) in queued {
        let spec = json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": {
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
            },
        }});
        all.push(level(name, &spec));
    }
    all
}

fn schemas() -> Vec<Bootstrap> {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let kube_system = json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}});
    let everyone = vec![group("system:unauthenticated"), group("system:authenticated")];
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let path = |verbs: &[&str], paths: &[&str]| json!({"verbs": verbs, "nonResourceURLs": paths});
    let everything = |subjects: Vec<Value>| {
        json!({
            "subjects": subjects,
            "resourceRules": [rule(&["*"], &["*"], &["*"], true)],
            "nonResourceRules": [path(&["*"], &["*"])],
        })
    };
    let probes = json!({
        "subjects": everyone,
        "nonResourceRules": [path(&["get"], &["/healthz", "/readyz", "/livez"])],
    });
    let leases = json!({
        "subjects": [user("system:kube-controller-manager"), user("system:kube-scheduler"), kube_system],
        "resourceRules": [rule(&["get", "create", "update"], &["coordination.k8s.io"], &["leases"], false)],
    });
    let nodes = json!({
        "subjects": [group("system:nodes")],
        "resourceRules": [
            rule(&["*"], &[""], &["nodes", "nodes/status"], true),
            rule(&["*"], &["coordination.k8s.io"], &["leases"], false),
        ],
    });
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    let all = [
        ("exempt", "exempt", 1, "", everything(vec![group("system:masters")])),
        ("catch-all", "catch-all", 10_000, by_user, everything(everyone.clone())),
        ("probes", "exempt", 2, "", probes),
        ("system-leader-election", "leader-election", 100, by_user, leases),
        ("system-node-high", "node-high", 400, by_user, nodes),
        ("system-nodes", "system", 500, by_user, everything(vec![group("system:nodes")])),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            everything(vec![user("system:kube-controller-manager")]),
        ),
        ("kube-scheduler", "workload-high", 800, by_namespace, everything(vec![user("system:kube-scheduler")])),
        ("kube-system-service-accounts", "workload-high", 900, by_namespace, everything(vec![kube_system.clone()])),
        ("service-accounts", "workload-low", 9000, by_user, everything(vec![group("system:serviceaccounts")])),
        ("global-default", "global-default", 9900, by_user, everything(everyone.clone())),
    ];
    all.into_iter()
        .map(|(name, level, precedence, distinguisher, rule)| {
            let mut spec = json!({
                "priorityLevelConfiguration": {"name": level},
                "matchingPrecedence": precedence,
                "rules": [rule],
            });
            if !distinguisher.is_empty() {
                spec["distinguisherMethod"] = json!({"type": distinguisher});
            }
            object("flowschemas", "FlowSchema", name, &spec)
        })
        .collect()
}
