//! `run/cri.sock`: the runtime by another door, and the kubelet that puts right what a hand did there.

use crate::cluster::{Cluster, needed, said};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use runtime::cri::v1;
use std::process::{Command, Stdio};
use std::time::Duration;

const NOT_FOUND: u16 = 5;
const UNIMPLEMENTED: u16 = 12;

/// A client of CRI.
struct Cri {
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Cri {
    fn connect(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = cluster.path("run/cri.sock");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let (sender, connection) = runtime.block_on(async {
            let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap()
        });
        // It ends with the runtime.
        runtime.spawn(connection);
        Self { runtime, sender }
    }

    async fn send(&self, method: &str, request: &impl Message) -> http::Response<hyper::body::Incoming> {
        let service = if method.contains("Image") { "ImageService" } else { "RuntimeService" };
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(request.encoded_len().try_into().unwrap());
        body.extend_from_slice(&request.encode_to_vec());
        let uri = format!("http://localhost/runtime.v1.{service}/{method}");
        let call = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        self.sender.clone().send_request(call.body(Full::from(body.freeze())).unwrap()).await.unwrap()
    }

    /// The answer, or gRPC's code and words.
    fn try_call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, (u16, String)> {
        let call = async {
            let response = self.send(method, request).await;
            let head = response.headers().clone();
            let body = response.into_body().collect().await.unwrap();
            let end = body.trailers().cloned().unwrap_or(head);
            let text = |name: &str| end.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            if text("grpc-status") != "0" {
                return Err((text("grpc-status").parse().unwrap(), text("grpc-message")));
            }
            let mut bytes = body.to_bytes();
            bytes.advance(5);
            Ok(A::decode(bytes).unwrap())
        };
        let limit = Duration::from_secs(120);
        self.runtime.block_on(async { tokio::time::timeout(limit, call).await }).expect("an answer")
    }

    fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> A {
        self.try_call(method, request).unwrap_or_else(|(code, text)| panic!("{method}: {code} {text}"))
    }

    fn events(&self) -> Events<'_> {
        let response = self.runtime.block_on(self.send("GetContainerEvents", &v1::GetEventsRequest {}));
        Events { cri: self, body: response.into_body(), bytes: BytesMut::new() }
    }

    /// Id of the running container of that name.
    fn running(&self, name: &str) -> String {
        let label_selector = [("io.kubernetes.container.name".to_owned(), name.to_owned())].into();
        let state = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() });
        let filter = Some(v1::ContainerFilter { label_selector, state, ..v1::ContainerFilter::default() });
        let list: v1::ListContainersResponse = self.call("ListContainers", &v1::ListContainersRequest { filter });
        assert_eq!(list.containers.len(), 1, "{name}");
        list.containers[0].id.clone()
    }

    fn stop(&self, container_id: &str) {
        let request = v1::StopContainerRequest { container_id: container_id.to_owned(), timeout: 0 };
        self.call::<v1::StopContainerResponse>("StopContainer", &request);
    }
}

struct Events<'a> {
    cri: &'a Cri,
    body: hyper::body::Incoming,
    bytes: BytesMut,
}

impl Events<'_> {
    fn next(&mut self) -> v1::ContainerEventResponse {
        let read = async {
            loop {
                if self.bytes.len() >= 5 {
                    let length = u32::from_be_bytes(self.bytes[1..5].try_into().unwrap()) as usize;
                    if self.bytes.len() >= 5 + length {
                        self.bytes.advance(5);
                        return v1::ContainerEventResponse::decode(self.bytes.split_to(length)).unwrap();
                    }
                }
                let frame = self.body.frame().await.unwrap().unwrap();
                self.bytes.extend_from_slice(&frame.into_data().unwrap());
            }
        };
        let limit = Duration::from_secs(120);
        self.cri.runtime.block_on(async { tokio::time::timeout(limit, read).await }).expect("an event")
    }

    /// When it happened, and to whom.
    fn wait(&mut self, kind: v1::ContainerEventType, who: impl Fn(&str) -> bool) -> (i64, String) {
        loop {
            let event = self.next();
            if event.container_event_type() == kind && who(&event.container_id) {
                return (event.created_at, event.container_id);
            }
        }
    }
}

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: a, image: "busybox:1.37", command: [sh, -c, "date >> /v/starts; exec sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: b, image: "busybox:1.37", command: [sleep, "1000"]}
"#;

const STARTED: v1::ContainerEventType = v1::ContainerEventType::ContainerStartedEvent;
const STOPPED: v1::ContainerEventType = v1::ContainerEventType::ContainerStoppedEvent;

fn restarts(name: &str) -> String {
    format!(".status.containerStatuses[?(@.name==\"{name}\")].restartCount")
}

/// The classic.
#[test]
fn a_container_ended_by_hand_is_back_at_once() {
    let cluster = Cluster::start();
    let cri = Cri::connect(&cluster);
    for remove in [false, true] {
        cluster.apply(TWO);
        cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
        let untouched = "{.status.podIP} {.metadata.uid} {.status.containerStatuses[1]}";
        let untouched = || cluster.kubectl(&["get", "pod", "two", "-o", &format!("jsonpath={untouched}")]);
        let before = untouched();
        let id = cri.running("a");
        let mut events = cri.events();
        if remove {
            let request = v1::RemoveContainerRequest { container_id: id.clone() };
            cri.call::<v1::RemoveContainerResponse>("RemoveContainer", &request);
        } else {
            cri.stop(&id);
        }
        let (ended, _) = events.wait(STOPPED, |who| who == id);
        let (started, _) = events.wait(STARTED, |who| who != id);
        let took = Duration::from_nanos(u64::try_from(started - ended).unwrap());
        eprintln!("back after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        cluster.wait("pod/two", &restarts("a"), "1");
        assert_eq!(untouched(), before);
        assert_eq!(cluster.kubectl(&["exec", "two", "-c", "a", "--", "wc", "-l", "/v/starts"]), "2 /v/starts\n");
        // Told as upstream tells a restart, and nothing of a kill: the kubelet killed nobody.
        cluster.until(&["describe", "pod", "two"], "Container started");
        let told = cluster.kubectl(&["events", "--for", "pod/two"]);
        assert!(!told.contains("Killing") && !told.contains("SandboxChanged"), "{told}");
        let starts = "--field-selector=reason=Started,involvedObject.fieldPath=spec.containers{a}";
        let count = || cluster.kubectl(&["get", "events", starts, "-o", "jsonpath={.items[*].count}"]);
        assert_eq!(count(), "2");
        cluster.kubectl(&["delete", "pod", "two"]);
        cluster.kubectl(&["delete", "events", "--all"]);
    }
}

#[test]
fn a_sandbox_ended_by_hand_is_made_anew() {
    let cluster = Cluster::start();
    let cri = Cri::connect(&cluster);
    cluster.apply(TWO);
    cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
    for (round, method) in ["StopPodSandbox", "RemovePodSandbox"].into_iter().enumerate() {
        let ready = v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() };
        let filter = Some(v1::PodSandboxFilter { state: Some(ready), ..v1::PodSandboxFilter::default() });
        let list: v1::ListPodSandboxResponse = cri.call("ListPodSandbox", &v1::ListPodSandboxRequest { filter });
        assert_eq!(list.items.len(), 1);
        let metadata = list.items[0].metadata.clone().unwrap();
        assert_eq!((metadata.name.as_str(), metadata.attempt as usize), ("two", round));
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: list.items[0].id.clone() };
        // Both take an id, and answer nothing.
        cri.call::<v1::StopPodSandboxResponse>(method, &request);
        for name in ["a", "b"] {
            cluster.wait("pod/two", &restarts(name), &(round + 1).to_string());
        }
        cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=90s"]);
        cluster.until(&["events", "--for", "pod/two"], "Pod sandbox changed, it will be killed and re-created.");
        let told = cluster.kubectl(&["events", "--for", "pod/two"]);
        assert!(!told.contains("Failed"), "nobody tries to restart what is ending: {told}");
    }
    assert_eq!(cluster.kubectl(&["exec", "two", "-c", "a", "--", "wc", "-l", "/v/starts"]), "3 /v/starts\n");
}

fn pod_config(cluster: &Cluster) -> v1::PodSandboxConfig {
    let metadata =
        v1::PodSandboxMetadata { name: "hand".into(), uid: "u-1".into(), namespace: "made".into(), attempt: 0 };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: "by-hand".into(),
        log_directory: cluster.path("hand-logs").to_str().unwrap().to_owned(),
        dns_config: Some(v1::DnsConfig { servers: vec!["192.0.2.53".into()], ..v1::DnsConfig::default() }),
        labels: [("made".to_owned(), "by-hand".to_owned())].into(),
        ..v1::PodSandboxConfig::default()
    }
}

fn container_config(script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "busybox:1.37".into(), ..v1::ImageSpec::default() }),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        envs: vec![v1::KeyValue { key: "WHO".into(), value: Bytes::from("me") }],
        log_path: "c.log".into(),
        ..v1::ContainerConfig::default()
    }
}

#[test]
fn a_pod_made_only_at_the_runtime() {
    let cluster = Cluster::start();
    let cri = Cri::connect(&cluster);
    let config = Some(pod_config(&cluster));
    let run: v1::RunPodSandboxResponse =
        cri.call("RunPodSandbox", &v1::RunPodSandboxRequest { config: config.clone(), runtime_handler: String::new() });
    let pod = run.pod_sandbox_id;
    let create = |script: &str| -> String {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod[..13].to_owned(),
            config: Some(container_config(script)),
            sandbox_config: config.clone(),
        };
        cri.call::<v1::CreateContainerResponse>("CreateContainer", &request).container_id
    };
    let id = create("echo $WHO at $(hostname); cat /etc/resolv.conf; exec sleep 1000");
    let status = |id: &str| -> v1::ContainerStatusResponse {
        cri.call("ContainerStatus", &v1::ContainerStatusRequest { container_id: id[..13].to_owned(), verbose: true })
    };
    assert_eq!(status(&id).status.unwrap().state(), v1::ContainerState::ContainerCreated);
    let mut events = cri.events();
    let start = v1::StartContainerRequest { container_id: id.clone() };
    cri.call::<v1::StartContainerResponse>("StartContainer", &start);
    events.wait(STARTED, |who| who == id);
    let found = status(&id);
    let info: serde_json::Value = serde_json::from_str(&found.info["info"]).unwrap();
    assert!(info["pid"].as_i64().unwrap() > 1 && info["sandboxID"] == *pod, "{info}");
    let found = found.status.unwrap();
    assert_eq!(found.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(found.image.unwrap().user_specified_image, "busybox:1.37");
    let exec = |command: &[&str], timeout: i64| -> Result<v1::ExecSyncResponse, (u16, String)> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        cri.try_call("ExecSync", &v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout })
    };
    let answer = exec(&["sh", "-c", "cat /etc/hostname /etc/resolv.conf; echo no >&2; exit 4"], 0).unwrap();
    assert_eq!((answer.exit_code, &answer.stderr[..]), (4, &b"no\n"[..]));
    assert_eq!(&answer.stdout[..], b"by-hand\nnameserver 192.0.2.53\n");
    let (code, text) = exec(&["sleep", "1000"], 1).unwrap_err();
    assert!(code == 4 && text.contains("timeout 1s exceeded"), "{code} {text}");
    let log = std::fs::read_to_string(&found.log_path).unwrap();
    assert!(log.contains("stdout F me at by-hand\n"), "{log}");
    let stats: v1::ContainerStatsResponse =
        cri.call("ContainerStats", &v1::ContainerStatsRequest { container_id: id.clone() });
    assert!(stats.stats.unwrap().memory.unwrap().usage_bytes.unwrap().value > 0);
    let listed: v1::ListPodSandboxStatsResponse =
        cri.call("ListPodSandboxStats", &v1::ListPodSandboxStatsRequest { filter: None });
    assert_eq!(listed.stats.len(), 1);
    // The kubelet leaves alone what it does not know.
    assert_eq!(cluster.kubectl(&["get", "pods", "-A", "-o", "name"]), "");

    let missing = create("true");
    cri.call::<v1::RemoveContainerResponse>(
        "RemoveContainer",
        &v1::RemoveContainerRequest { container_id: missing.clone() },
    );
    let request = v1::ContainerStatusRequest { container_id: missing.clone(), verbose: false };
    let (code, text) = cri.try_call::<v1::ContainerStatusResponse>("ContainerStatus", &request).unwrap_err();
    assert_eq!(code, NOT_FOUND, "{text}");
    assert_eq!(text, format!("an error occurred when try to find container \"{missing}\": not found"));
    // Idempotent.
    cri.stop(&missing);
    cri.stop(&id);
    cri.stop(&id);
    let ended = status(&id).status.unwrap();
    assert_eq!(
        (ended.state(), ended.exit_code, ended.reason.as_str()),
        (v1::ContainerState::ContainerExited, 137, "Error")
    );
    let request = v1::CheckpointContainerRequest { container_id: id.clone(), ..Default::default() };
    let (code, text) = cri.try_call::<v1::CheckpointContainerResponse>("CheckpointContainer", &request).unwrap_err();
    assert_eq!((code, text.as_str()), (UNIMPLEMENTED, "CheckpointContainer is not supported"));
    for _ in 0..2 {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
        cri.call::<v1::RemovePodSandboxResponse>("RemovePodSandbox", &request);
    }
    events.wait(v1::ContainerEventType::ContainerDeletedEvent, |who| who == pod);
    assert_eq!(std::fs::read_dir(cluster.path("runtime/cri")).unwrap().count(), 0, "its files are left");
}

#[test]
fn images_over_the_socket() {
    let cluster = Cluster::start();
    let cri = Cri::connect(&cluster);
    let named = |name: &str| Some(v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() });
    let list: v1::ListImagesResponse = cri.call("ListImages", &v1::ListImagesRequest { filter: None });
    let tags: Vec<_> = list.images.iter().flat_map(|image| image.repo_tags.clone()).collect();
    assert!(tags.iter().any(|tag| tag == "docker.io/library/busybox:1.37"), "{tags:?}");
    let status = |name: &str| -> Option<v1::Image> {
        let request = v1::ImageStatusRequest { image: named(name), verbose: false };
        cri.call::<v1::ImageStatusResponse>("ImageStatus", &request).image
    };
    let busybox = status("busybox:1.37").unwrap();
    assert!(busybox.size > 0 && busybox.id.starts_with("sha256:"), "{busybox:?}");
    assert_eq!(status(&busybox.id).unwrap().repo_tags, busybox.repo_tags);
    assert!(status("nosuch:1").is_none());
    let usage: v1::ImageFsInfoResponse = cri.call("ImageFsInfo", &v1::ImageFsInfoRequest {});
    assert!(usage.image_filesystems[0].used_bytes.unwrap().value > 0);
    for _ in 0..2 {
        let request = v1::RemoveImageRequest { image: named("busybox:1.37") };
        cri.call::<v1::RemoveImageResponse>("RemoveImage", &request);
    }
    assert!(status("busybox:1.37").is_none());
    let request = v1::PullImageRequest { image: named("BAD NAME"), auth: None, sandbox_config: None };
    let (code, text) = cri.try_call::<v1::PullImageResponse>("PullImage", &request).unwrap_err();
    assert!(code == 3 && text.contains("couldn't parse image name"), "{code} {text}");
}

/// Run by `cargo xtask audit`, which builds crictl where Go is installed.
#[test]
#[ignore = "needs crictl"]
fn crictl_at_the_socket() {
    let cluster = Cluster::start();
    let crictl = needed("MINKE_TEST_CRICTL");
    let path = format!("{}:{}", crictl.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let command = |arguments: &[&str]| {
        let mut command = Command::new(crate::cluster::MINKE);
        command.arg("crictl").args(arguments).env("PATH", &path).env("MINKE_DATA_DIR", cluster.directory.path());
        command.stdin(Stdio::null());
        command
    };
    let run = |arguments: &[&str]| {
        let output = command(arguments).output().unwrap();
        assert!(output.status.success(), "crictl {arguments:?}: {}", said(&output));
        // What it answers: it warns of a missing configuration besides.
        String::from_utf8(output.stdout).unwrap()
    };
    cluster.apply(TWO);
    cluster.kubectl(&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"]);
    let id = run(&["ps", "-q", "--name", "^a$"]).trim().to_owned();
    let pod = run(&["pods", "-q", "--name", "two"]).trim().to_owned();
    for (arguments, words) in [
        (&["version"][..], "RuntimeName:  minke"),
        (&["info"], "\"RuntimeReady\""),
        (&["ps"], "Running"),
        (&["ps", "-o", "json"], "\"userSpecifiedImage\": \"busybox:1.37\""),
        (&["pods"], "Ready"),
        (&["images"], "docker.io/library/busybox"),
        (&["inspect", &id], "\"io.kubernetes.pod.name\": \"two\""),
        (&["inspect", "-o", "go-template", "--template", "pid={{.info.pid}}", &id], "pid="),
        (&["inspectp", &pod], "\"state\": \"SANDBOX_READY\""),
        (&["inspecti", "busybox:1.37"], "docker.io/library/busybox:1.37"),
        (&["imagefsinfo"], "usedBytes"),
        (&["stats", &id], "two"),
        (&["statsp", &pod], "two"),
        (&["exec", "-s", &id, "hostname"], "two\n"),
        (&["exec", &id, "hostname"], "two\n"),
        (&["exec", "--transport", "websocket", &id, "hostname"], "two\n"),
        (&["logs", &id], ""),
    ] {
        let text = run(arguments);
        assert!(text.contains(words), "crictl {arguments:?} does not say {words:?}: {text}");
    }
    let line = format!("stty rows 24 cols 80; '{}' exec -it {id} sh -c 'tty; stty size'", crictl.display());
    let endpoint = format!("unix://{}", cluster.path("run/cri.sock").display());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("CONTAINER_RUNTIME_ENDPOINT", endpoint).stdin(Stdio::null());
    let output = terminal.output().unwrap();
    assert!(said(&output).contains("/dev/pts/0"), "{}", said(&output));
    assert_eq!(command(&["exec", "-s", &id, "sh", "-c", "exit 3"]).output().unwrap().status.code(), Some(1));
    run(&["stop", &id]);
    cluster.wait("pod/two", &restarts("a"), "1");
    run(&["rm", "-f", run(&["ps", "-q", "--name", "^b$"]).trim()]);
    cluster.wait("pod/two", &restarts("b"), "1");
    run(&["stopp", &pod]);
    cluster.wait("pod/two", &restarts("b"), "2");
    run(&["rmp", &pod]);
}
