//! The kubelet's own API, and what the node clears away.

use crate::cluster::{Cluster, succeed};
use serde_json::Value;
use std::process::{Command, Stdio};

const BUSY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "dd if=/dev/zero of=/v/file bs=1M count=3; dd if=/dev/zero of=/layer bs=1M count=2; echo done; while :; do :; done"]
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    volumeMounts: [{name: v, mountPath: /v}]
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
"#;

impl Cluster {
    fn raw(&self, path: &str) -> String {
        self.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")])
    }

    /// Asks the kubelet itself: status code and body.
    fn ask_kubelet(&self, token: Option<&str>, path: &str) -> (String, String) {
        let url = format!("https://127.0.0.1:{}/{path}", self.record["kubeletPort"]);
        let mut command = Command::new("curl");
        command.args(["-sk", "-w", "\n%{http_code}", &url]);
        if let Some(token) = token {
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let answer = succeed(&mut command);
        let (body, code) = answer.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    }
}

#[test]
fn the_nodes_figures_through_the_api_server() {
    let cluster = Cluster::start();
    cluster.apply(BUSY);
    cluster.kubectl(&["wait", "pod/busy", "--for=condition=Ready", "--timeout=60s"]);
    cluster.until(&["logs", "busy"], "done");
    assert_eq!(cluster.raw("healthz"), "ok");
    let summary: Value = serde_json::from_str(&cluster.raw("stats/summary")).unwrap();
    let node = &summary["node"];
    assert_eq!(node["nodeName"], "node-1");
    for path in [
        "/cpu/usageNanoCores",
        "/cpu/usageCoreNanoSeconds",
        "/memory/workingSetBytes",
        "/fs/capacityBytes",
        "/runtime/imageFs/usedBytes",
        "/rlimit/maxpid",
    ] {
        assert!(node.pointer(path).and_then(Value::as_u64).is_some_and(|value| value > 0), "{path}: {node}");
    }
    let pod = &summary["pods"][0];
    assert_eq!((&pod["podRef"]["name"], &pod["podRef"]["namespace"]), (&"busy".into(), &"default".into()));
    assert_eq!(pod["podRef"]["uid"], cluster.get("pod/busy", ".metadata.uid").as_str());
    let container = &pod["containers"][0];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{pod}"));
    // A fifth of a core, as its limit says.
    let cores = number(&container["cpu"]["usageNanoCores"]);
    assert!((20_000_000..400_000_000).contains(&cores), "{cores}");
    assert!(number(&container["memory"]["workingSetBytes"]) < 64 << 20);
    assert!(number(&container["memory"]["availableBytes"]) < 64 << 20);
    assert!(number(&container["rootfs"]["usedBytes"]) >= 2 << 20, "{container}");
    let volumes = pod["volume"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "v").unwrap();
    assert!((3 << 20..4 << 20).contains(&number(&volume["usedBytes"])), "{volume}");
    assert!(number(&pod["ephemeral-storage"]["usedBytes"]) >= 5 << 20, "{pod}");
    assert!(number(&pod["process_stats"]["process_count"]) >= 1);
    assert!(pod["network"]["interfaces"].is_array(), "{pod}");

    let resource = cluster.raw("metrics/resource");
    for line in [
        "container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"busy\"} ",
        "pod_memory_working_set_bytes{namespace=\"default\",pod=\"busy\"} ",
        "node_cpu_usage_seconds_total ",
    ] {
        assert!(resource.lines().any(|text| text.starts_with(line)), "{line}: {resource}");
    }
    let cadvisor = cluster.raw("metrics/cadvisor");
    assert!(cadvisor.contains("container_memory_working_set_bytes{container=\"c\",id="), "{cadvisor}");
    assert!(cadvisor.contains("container_network_receive_bytes_total{container=\"\",id="), "{cadvisor}");
    let own = cluster.raw("metrics");
    for line in [
        "kubelet_node_name{node=\"node-1\"} 1",
        "kubelet_running_pods 1",
        "kubelet_running_containers{container_state=\"running\"} 1",
        "kubelet_started_pods_total 1",
    ] {
        assert!(own.lines().any(|text| text == line), "{line}: {own}");
    }
    let probes = cluster.raw("metrics/probes");
    assert!(probes.contains("probe_type=\"Readiness\",result=\"successful\"} "), "{probes}");

    let pods: Value = serde_json::from_str(&cluster.raw("pods")).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["status"]["phase"]), (&"PodList".into(), &"Running".into()));
    let running: Value = serde_json::from_str(&cluster.raw("runningpods/")).unwrap();
    assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "c");
    let settings: Value = serde_json::from_str(&cluster.raw("configz")).unwrap();
    assert_eq!(settings["kubeletconfig"]["maxPods"], 110);
    let (code, text) = cluster.try_kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/logs/"]);
    assert!(code != 0 && text.contains("does not serve the node's logs"), "{text}");
}

#[test]
fn who_may_ask_the_kubelet() {
    let cluster = Cluster::start();
    for name in ["metrics", "pods", "nobody", "all"] {
        cluster.kubectl(&["create", "serviceaccount", name]);
    }
    for (name, resource) in [("metrics", "nodes/metrics,nodes/stats"), ("pods", "nodes/pods"), ("all", "nodes/proxy")] {
        cluster.kubectl(&["create", "clusterrole", name, "--verb=get", &format!("--resource={resource}")]);
        let subject = format!("--serviceaccount=default:{name}");
        cluster.kubectl(&["create", "clusterrolebinding", name, &format!("--clusterrole={name}"), &subject]);
    }
    let code = |token: Option<&str>, path: &str| cluster.ask_kubelet(token, path).0;
    let token = |name: &str| cluster.kubectl(&["create", "token", name]).trim().to_owned();
    assert_eq!(cluster.ask_kubelet(None, "pods"), ("401".to_owned(), "Unauthorized".to_owned()));
    assert_eq!(code(Some("nonsense"), "healthz"), "401");
    let (metrics, pods, nobody, all) = (token("metrics"), token("pods"), token("nobody"), token("all"));
    assert_eq!(
        (code(Some(&metrics), "metrics/resource"), code(Some(&metrics), "stats/summary")),
        ("200".into(), "200".into())
    );
    assert_eq!(code(Some(&metrics), "pods"), "403");
    assert_eq!((code(Some(&pods), "pods"), code(Some(&pods), "runningpods/")), ("200".into(), "200".into()));
    assert_eq!((code(Some(&pods), "metrics"), code(Some(&pods), "configz")), ("403".into(), "403".into()));
    // Since fine-grained rules came, proxy still allows what it did, metrics and stats excepted.
    assert_eq!(
        (code(Some(&all), "pods"), code(Some(&all), "healthz"), code(Some(&all), "metrics")),
        ("200".into(), "200".into(), "403".into())
    );
    let refused = "Forbidden (user=system:serviceaccount:default:nobody, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(cluster.ask_kubelet(Some(&nobody), "pods"), ("403".to_owned(), refused.to_owned()));
}

#[test]
fn a_followed_log_loses_nothing_when_it_is_rotated() {
    let cluster = Cluster::start_with(&["--container-log-max-size", "16Ki", "--container-log-max-files", "3"]);
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, "n=0; while [ $n -lt 500 ]; do n=$((n+1)); echo line $n is long enough to fill a file soon enough; sleep 0.1; done"]
"#,
    );
    cluster.kubectl(&["wait", "pod/talker", "--for=condition=Ready", "--timeout=60s"]);
    let mut follower = cluster.command(&["logs", "-f", "talker"]);
    let followed = follower.stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(followed.stdout).unwrap();
    let numbers: Vec<u32> = text.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
    let uid = cluster.get("pod/talker", ".metadata.uid");
    let directory = cluster.path(&format!("logs/pods/default_talker_{uid}/c"));
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names[0] == "0.log" && (2..=3).contains(&names.len()), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("0.log.20")), "{names:?}");
}

#[test]
fn unused_images_go_when_the_disk_is_full() {
    // Any machine's disk is fuller than one percent.
    let cluster = Cluster::start_with(&[
        "--image-gc-high-threshold",
        "1",
        "--image-gc-low-threshold",
        "0",
        "--minimum-image-ttl-duration",
        "1s",
    ]);
    cluster.until(&["get", "events", "-o", "jsonpath={.items[*].reason}"], "FreeDiskSpaceFailed");
    // Nothing tells of an image's end.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while cluster.minke(&["image", "ls"]).contains("busybox") {
        assert!(std::time::Instant::now() < end, "busybox is still there");
    }
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.kind=Node"]);
    assert!(events.contains("Insufficient free disk space on the node's image filesystem"), "{events}");
}
