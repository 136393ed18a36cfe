//! Static Pods: from files and from a URL, and their mirrors in the API.

use crate::cluster::Cluster;
use crate::pods::kill_and_wait;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

const UID: &str = ".metadata.annotations.kubernetes\\.io/config\\.hash";

/// A manifest whose container says `word` and goes on.
fn manifest(name: &str, word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: c, image: \"busybox:1.37\", command: [sh, -c, \"echo {word}; exec sleep 1000\"]}}\n"
    )
}

impl Cluster {
    fn manifest(&self, file: &str, text: &str) {
        std::fs::write(self.path("manifests").join(file), text).unwrap();
    }

    fn until_gone(&self, pod: &str) {
        let (code, text) = self.try_kubectl(&["wait", "--for=delete", pod, "--timeout=60s"]);
        assert_eq!(code, 0, "{text}");
    }

    /// Waits until the mirror is there and its Pod runs.
    fn until_ready(&self, pod: &str) {
        self.kubectl(&["wait", "--for=create", pod, "--timeout=60s"]);
        self.kubectl(&["wait", "--for=condition=Ready", pod, "--timeout=60s"]);
    }

    /// Asks until there is such an object and the JSON path has another value: it may be away meanwhile, and no watch of
    /// kubectl's outlives that.
    fn until_other(&self, object: &str, path: &str, old: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let jsonpath = format!("jsonpath={{{path}}}");
        loop {
            let (code, now) = self.try_kubectl(&["get", object, "-o", &jsonpath]);
            if code == 0 && now != old {
                return;
            }
            assert!(std::time::Instant::now() < end, "{object}: {path} is still {old}: {now}");
        }
    }

    fn started(&self, pod: &str) -> String {
        self.get(pod, ".status.containerStatuses[0].containerID")
    }
}

#[test]
fn a_file_is_a_pod_as_long_as_it_is_there() {
    let cluster = Cluster::start();
    cluster.manifest("web.yaml", &manifest("web", "first"));
    cluster.until_ready("pod/web-node-1");
    let owner = cluster.get("pod/web-node-1", ".metadata.ownerReferences[0].kind");
    let source = cluster.get("pod/web-node-1", ".metadata.annotations.kubernetes\\.io/config\\.source");
    let mirror = cluster.get("pod/web-node-1", ".metadata.annotations.kubernetes\\.io/config\\.mirror");
    let uid = cluster.get("pod/web-node-1", UID);
    assert_eq!((owner.as_str(), source.as_str(), &mirror), ("Node", "file", &uid));
    assert_eq!(cluster.kubectl(&["logs", "web-node-1"]), "first\n");
    assert_eq!(cluster.kubectl(&["exec", "web-node-1", "--", "hostname"]), "web-node-1\n");
    let said = cluster.kubectl(&["describe", "pod", "web-node-1"]);
    assert!(said.contains("Controlled By:  Node/node-1") && said.contains("Started"), "{said}");

    // A mirror only shows it: deleted, it comes back, and the container goes on.
    let (container, shown) = (cluster.started("pod/web-node-1"), cluster.get("pod/web-node-1", ".metadata.uid"));
    cluster.kubectl(&["delete", "pod", "web-node-1", "--wait=false"]);
    cluster.until_other("pod/web-node-1", ".metadata.uid", &shown);
    cluster.until_ready("pod/web-node-1");
    assert_eq!(cluster.started("pod/web-node-1"), container);

    // Another content is another Pod, moved into place or written over.
    let new = cluster.path("manifests/.new");
    std::fs::write(&new, manifest("web", "second")).unwrap();
    std::fs::rename(&new, cluster.path("manifests/web.yaml")).unwrap();
    cluster.until_other("pod/web-node-1", UID, &uid);
    cluster.until_ready("pod/web-node-1");
    assert_eq!(cluster.kubectl(&["logs", "web-node-1"]), "second\n");

    std::fs::remove_file(cluster.path("manifests/web.yaml")).unwrap();
    cluster.until_gone("pod/web-node-1");
}

#[test]
fn a_wrong_file_harms_no_other_and_is_told() {
    let cluster = Cluster::start();
    cluster.manifest("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [");
    cluster.manifest(
        "asks.json",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asks"}, "spec": {
        "serviceAccountName": "robot", "containers": [{"name": "c", "image": "busybox:1.37"}]}}"#,
    );
    cluster.manifest(".hidden.yaml", &manifest("hidden", "no"));
    std::fs::create_dir(cluster.path("manifests/directory")).unwrap();
    // What a symlink leads to is another's file, which may be replaced.
    let elsewhere = cluster.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("pod.yaml"), manifest("linked", "one")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("pod.yaml"), cluster.path("manifests/linked.yaml")).unwrap();
    cluster.until_ready("pod/linked-node-1");
    cluster.manifest("good.yaml", &manifest("good", "good"));
    cluster.until_ready("pod/good-node-1");
    let pods = cluster.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(pods, "pod/good-node-1\npod/linked-node-1\n");
    let status = cluster.status();
    let problems: Vec<_> = status["manifests"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(
        problems.iter().any(|line| line.ends_with("asks.json: static pods may not reference serviceaccounts")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|line| line.contains("broken.yaml: ")), "{problems:?}");
    assert!(problems.iter().any(|line| line.contains("directory: ")), "{problems:?}");

    let first = cluster.get("pod/linked-node-1", UID);
    std::fs::write(elsewhere.join("new"), manifest("linked", "two")).unwrap();
    std::fs::rename(elsewhere.join("new"), elsewhere.join("pod.yaml")).unwrap();
    cluster.until_other("pod/linked-node-1", UID, &first);
    cluster.until_ready("pod/linked-node-1");
    assert_eq!(cluster.kubectl(&["logs", "linked-node-1"]), "two\n");
    // What was wrong is mended in place.
    cluster.manifest("broken.yaml", &manifest("mended", "mended"));
    cluster.until_ready("pod/mended-node-1");
}

#[test]
fn static_pods_outlive_a_killed_minke() {
    let cluster = Cluster::start();
    cluster.manifest("web.yaml", &manifest("web", "first"));
    cluster.manifest("gone.yaml", &manifest("gone", "first"));
    cluster.until_ready("pod/web-node-1");
    cluster.until_ready("pod/gone-node-1");
    let container = cluster.started("pod/web-node-1");
    let shown = cluster.get("pod/web-node-1", ".metadata.uid");
    kill_and_wait(cluster.pid());
    std::fs::remove_file(cluster.path("manifests/gone.yaml")).unwrap();
    cluster.up();
    cluster.until_gone("pod/gone-node-1");
    cluster.until_ready("pod/web-node-1");
    assert_eq!(cluster.started("pod/web-node-1"), container);
    assert_eq!(cluster.get("pod/web-node-1", ".metadata.uid"), shown);
    assert_eq!(cluster.get("pod/web-node-1", ".status.containerStatuses[0].restartCount"), "0");
}

/// Answers each request with what it holds; nothing: it hangs up. Tells the headers of the last request.
struct Server {
    address: String,
    answer: Arc<Mutex<Option<String>>>,
    headers: Arc<Mutex<String>>,
}

impl Server {
    fn start(first: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/pods", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Some(first.to_owned())));
        let headers = Arc::new(Mutex::new(String::new()));
        let (given, seen) = (answer.clone(), headers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                *seen.lock().unwrap() = lines.collect::<Vec<_>>().join("\n");
                let Some(body) = given.lock().unwrap().clone() else { continue };
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).ok();
            }
        });
        Self { address, answer, headers }
    }

    fn set(&self, answer: Option<&str>) {
        *self.answer.lock().unwrap() = answer.map(str::to_owned);
    }
}

#[test]
fn a_url_is_asked_and_its_silence_removes_nothing() {
    let item = |name: &str| {
        serde_json::json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": "busybox:1.37", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000"]}]}})
    };
    let list = |names: &[&str]| {
        let items: Vec<_> = names.iter().map(|name| item(name)).collect();
        serde_json::json!({"apiVersion": "v1", "kind": "PodList", "items": items}).to_string()
    };
    let server = Server::start(&list(&["a", "b"]));
    let cluster = Cluster::start_with(&["--manifest-url", &server.address, "--manifest-url-header", "X-Who: minke"]);
    cluster.until_ready("pod/a-node-1");
    cluster.until_ready("pod/b-node-1");
    assert!(server.headers.lock().unwrap().to_lowercase().contains("x-who: minke"));
    server.set(None);
    let container = cluster.started("pod/a-node-1");
    kill_and_wait(cluster.pid());
    cluster.up();
    cluster.until_ready("pod/a-node-1");
    assert_eq!(cluster.started("pod/a-node-1"), container);
    let told = cluster.status()["manifests"].to_string();
    assert!(told.contains(&server.address), "{told}");
    server.set(Some(&list(&["b"])));
    cluster.until_gone("pod/a-node-1");
    cluster.until_ready("pod/b-node-1");
    server.set(Some(""));
    cluster.until_gone("pod/b-node-1");
}
