//! Plug-ins on small objects, in upstream's words (golden groups admission and authz).
#![allow(clippy::unwrap_used)]

use super::*;
use crate::lookup::fake::Cluster;
use serde_json::json;

struct Case<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    operation: Operation,
    user: User,
    old: Option<Value>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            group: "",
            resource: "pods",
            subresource: "",
            operation: Operation::Create,
            user: User::default(),
            old: None,
        }
    }
}

impl Case<'_> {
    /// Both phases; the object and its warnings, or the refusal's message.
    fn run(&self, cluster: &Cluster, mut object: Value) -> Result<(Value, Vec<String>), String> {
        let authorizer = Authorizer::default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = Request {
            operation: self.operation,
            group: self.group,
            version: "v1",
            resource: self.resource,
            kind: "",
            subresource: self.subresource,
            namespace: "ns",
            name: &name,
            user: &self.user,
            old: self.old.as_ref(),
            dry_run: false,
            lookup: cluster,
            times: &Times::default(),
            authorizer: &authorizer,
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            random: 7,
        };
        mutate(&request, &mut object).map_err(|refusal| refusal.message)?;
        let warnings = validate(&request, &object).map_err(|refusal| refusal.message)?;
        Ok((object, warnings))
    }
}

fn cluster_with(namespace: Value) -> Cluster {
    Cluster::default().with("", "namespaces", &namespace).with(
        "",
        "serviceaccounts",
        &json!({"metadata": {"name": "default", "namespace": "ns"}}),
    )
}

fn cluster() -> Cluster {
    cluster_with(json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}))
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": {"containers": [{"name": "c"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn refusal(cluster: &Cluster, object: Value) -> String {
    Case::default().run(cluster, object).unwrap_err()
}

#[test]
fn a_plain_pod_gets_account_token_priority_and_tolerations() {
    let (made, warnings) = Case::default().run(&cluster(), pod(json!({}))).unwrap();
    assert!(warnings.is_empty());
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    let mount =
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    let keys: Vec<&str> = pod::items(spec, "tolerations").map(|toleration| pod::text(toleration, "key")).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
}

#[test]
fn the_token_is_not_mounted_twice_nor_unasked() {
    let off = json!({"automountServiceAccountToken": false});
    assert!(Case::default().run(&cluster(), pod(off)).unwrap().0["spec"]["volumes"].is_null());
    let (made, _) = Case::default().run(&cluster(), pod(json!({}))).unwrap();
    let (again, _) = Case::default().run(&cluster(), made.clone()).unwrap();
    assert_eq!(made, again);
}

#[test]
fn refusals_read_as_upstreams() {
    let ending = cluster_with(json!({"metadata": {"name": "ns"}, "status": {"phase": "Terminating"}}));
    let class = json!({"metadata": {"name": "low"}, "value": 5, "preemptionPolicy": "Never"});
    let classes = cluster().with("scheduling.k8s.io", "priorityclasses", &class);
    let mirror = |spec: Value| {
        let mut pod = pod(spec);
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
        pod
    };
    let lines = [
        refusal(&Cluster::default(), pod(json!({}))),
        refusal(&ending, pod(json!({}))),
        refusal(&cluster(), pod(json!({"serviceAccountName": "nope"}))),
        refusal(&cluster(), mirror(json!({"serviceAccountName": "default"}))),
        refusal(&cluster(), pod(json!({"priorityClassName": "nope"}))),
        refusal(&classes, pod(json!({"priorityClassName": "low", "priority": 6}))),
        refusal(&classes, pod(json!({"priorityClassName": "low", "preemptionPolicy": "PreemptLowerPriority"}))),
        refusal(&cluster(), pod(json!({"runtimeClassName": "nope"}))),
    ];
    expect_test::expect![[r#"
        namespaces "ns" not found
        pods "x" is forbidden: unable to create new content in namespace ns because it is being terminated
        pods "x" is forbidden: error looking up service account ns/nope: serviceaccount "nope" not found
        pods "x" is forbidden: a mirror pod may not reference service accounts
        pods "x" is forbidden: no PriorityClass with name nope was found
        pods "x" is forbidden: the integer value of priority (6) must not be provided in pod spec; priority admission controller computed 5 from the given PriorityClass name
        pods "x" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name
        pods "x" is forbidden: pod rejected: RuntimeClass "nope" not found"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn limit_ranges_fill_and_bound() {
    let range = json!({
        "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"}, "min": {"cpu": "100m"}, "max": {"cpu": "1"}},
            {"type": "Pod", "max": {"cpu": "1500m"}},
        ]},
    });
    let cluster = cluster().with("", "limitranges", &range);
    let (made, _) = Case::default().run(&cluster, pod(json!({}))).unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let with = |resources: Value| pod(json!({"containers": [{"name": "c", "resources": resources}]}));
    let lines = [
        refusal(&cluster, with(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}))),
        refusal(&cluster, with(json!({"requests": {"cpu": "50m"}}))),
    ];
    expect_test::expect![[r#"
        pods "x" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]
        pods "x" is forbidden: minimum cpu usage per Container is 100m, but request is 50m"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn pod_security_levels() {
    let level = |mode: &str, level: &str| {
        let mut labels = json!({});
        labels[format!("pod-security.kubernetes.io/{mode}")] = level.into();
        cluster_with(json!({"metadata": {"name": "ns", "labels": labels}}))
    };
    let several = json!({
        "hostNetwork": true,
        "containers": [
            {"name": "c", "securityContext": {"privileged": true}},
            {"name": "d", "securityContext": {"privileged": true}},
        ],
    });
    let good = json!({"containers": [{"name": "c", "securityContext": {
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }}]});
    assert!(Case::default().run(&level("enforce", "restricted"), pod(good)).is_ok());
    let (_, warnings) = Case::default().run(&level("warn", "restricted"), pod(json!({}))).unwrap();
    let lines = [
        refusal(&level("enforce", "baseline"), pod(several)),
        refusal(&level("enforce", "restricted"), pod(json!({"volumes": [{"name": "n", "nfs": {}}]}))),
        warnings.join("\n"),
    ];
    expect_test::expect![[r#"
        pods "x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), privileged (containers "c", "d" must not set securityContext.privileged=true)
        pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), restricted volume types (volume "n" uses restricted volume type "nfs"), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")
        would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn nodes_write_only_what_is_theirs() {
    let node = User { name: "system:node:n".to_owned(), groups: vec!["system:nodes".to_owned()], ..User::default() };
    let status = |spec: Value, labels: Value| {
        let old = json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": spec});
        let mut new = old.clone();
        new["metadata"]["labels"] = labels;
        let case = Case {
            operation: Operation::Update,
            subresource: "status",
            user: node.clone(),
            old: Some(old),
            ..Case::default()
        };
        case.run(&cluster(), new).map_or_else(|message| message, |_| "yes".to_owned())
    };
    let create = |resource: &str, name: &str, labels: Value| {
        let case = Case { resource, user: node.clone(), ..Case::default() };
        let object = json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
        case.run(&cluster(), object).map_or_else(|message| message, |_| "yes".to_owned())
    };
    let lines = [
        status(json!({"nodeName": "n"}), Value::Null),
        status(json!({"nodeName": "other"}), Value::Null),
        status(json!({"nodeName": "n"}), json!({"a": "b"})),
        create("nodes", "n", json!({"kubernetes.io/hostname": "n"})),
        create("nodes", "other", Value::Null),
        create("nodes", "n", json!({"node-restriction.kubernetes.io/x": "y"})),
    ];
    expect_test::expect![[r#"
        yes
        pods "x" is forbidden: node "n" can only update pod status for pods with spec.nodeName set to itself
        pods "x" is forbidden: node "n" cannot update labels through pod status
        yes
        nodes "other" is forbidden: node "n" is not allowed to modify node "other"
        nodes "n" is forbidden: node "n" is not allowed to set the following labels: node-restriction.kubernetes.io/x"#]]
    .assert_eq(&lines.join("\n"));
}
