//! The control plane as an ordinary user, and the node as an agent in another process.

use crate::cluster::{Cluster, MINKE, image, needed, said, succeed};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server or an agent in the foreground, as systemd or a container would run it.
struct Foreground(Child);

impl Foreground {
    /// Returns when it says that it is ready.
    fn start(mut command: Command, log: &Path) -> Self {
        let log_file = std::fs::File::create(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{command:?}: {}", std::fs::read_to_string(log).unwrap());
        Self(child)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // `down` has ended it; a failed test has not.
        if std::thread::panicking() {
            self.0.kill().ok();
        }
        self.0.wait().unwrap();
    }
}

fn minke(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(MINKE);
    command.args(arguments).env("MINKE_DATA_DIR", directory);
    command
}

/// The same, as `nobody`.
fn as_nobody(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", MINKE]).args(arguments);
    command.env("MINKE_DATA_DIR", directory);
    command
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("minke-test-").tempdir().unwrap()
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "busybox:1.37", command: [sh, -c, "echo hello from the agent; exec sleep 1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: "busybox:1.37"
    stdin: true
    command: [sh, -c, "nc -ll -p 9000 -e cat & exec cat"]
    readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
"#;

#[test]
fn an_agent_joins_an_unprivileged_server() {
    let (of_server, of_agent, logs) = (directory(), directory(), directory());
    std::os::unix::fs::chown(of_server.path(), Some(65534), Some(65534)).unwrap();
    let command = as_nobody(&["server", "--no-node"], of_server.path());
    let server_process = Foreground::start(command, &logs.path().join("server"));
    let server = Cluster::adopt(of_server);
    let url = server.record["apiPort"].as_u64().map(|port| format!("https://127.0.0.1:{port}")).unwrap();
    let token = succeed(&mut as_nobody(&["token"], server.directory.path()));

    let wrong = token.trim().rsplit_once(':').unwrap().0.to_owned() + ":" + &"0".repeat(64);
    let mut command = minke(&["agent", "--node-name", "far-1", "--server", &url, "--token", &wrong], of_agent.path());
    let refused = command.output().unwrap();
    assert!(!refused.status.success() && said(&refused).contains("its authority is another"), "{}", said(&refused));

    let command = minke(&["agent", "--node-name", "far-1", "--server", &url, "--token", token.trim()], of_agent.path());
    let agent_process = Foreground::start(command, &logs.path().join("agent"));
    let agent = Cluster::adopt(of_agent);
    agent.minke(&["image", "import", image("busybox").to_str().unwrap()]);

    server.apply(POD);
    server.kubectl(&["wait", "pod/far", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(server.get("pod/far", ".spec.nodeName"), "far-1");
    assert_eq!(server.kubectl(&["logs", "far"]), "hello from the agent\n");
    assert_eq!(server.kubectl(&["exec", "far", "--", "hostname"]), "far\n");
    assert_eq!(server.get("node/far-1", ".metadata.name"), "far-1");
    server.kubectl(&["wait", "pod/echo", "--for=condition=Ready", "--timeout=60s"]);
    for variable in ["MINKE_TEST_KUBECTL", "MINKE_TEST_KUBECTL_1_28"] {
        streams_reach_through(&server, &needed(variable));
    }
    // It is bound to its identity: a node of its own name, and nothing of an administrator's.
    let node = NodeUser { agent: &agent, url: &url };
    assert!(node.kubectl(&["get", "node", "far-1"]).0);
    for forbidden in [
        &["label", "node", "far-2", "a=b"][..],
        &["get", "secrets", "-A"],
        &["create", "namespace", "mine"],
        &["label", "node", "far-1", "node-restriction.kubernetes.io/a=b"],
    ] {
        let (fine, text) = node.kubectl(forbidden);
        assert!(!fine && (text.contains("forbidden") || text.contains("NotFound")), "{forbidden:?}: {text}");
    }

    // The agent comes back without a token, and its Pod never noticed.
    let started = server.get("pod/far", ".status.containerStatuses[0].state.running.startedAt");
    let terminated = Command::new("kill").args(["-TERM", &agent.pid().to_string()]).status().unwrap();
    assert!(terminated.success());
    drop(agent_process);
    let command = minke(&["agent", "--node-name", "far-1", "--server", &url], agent.directory.path());
    let agent_process = Foreground::start(command, &logs.path().join("agent"));
    assert_eq!(server.kubectl(&["exec", "far", "--", "echo", "still"]), "still\n");
    assert_eq!(server.get("pod/far", ".status.containerStatuses[0].state.running.startedAt"), started);

    agent.minke(&["down"]);
    drop(agent_process);
    succeed(&mut as_nobody(&["down"], server.directory.path()));
    drop(server_process);
}

/// exec with input, attach, cp and port-forward to the Pod `echo` on another node.
fn streams_reach_through(server: &Cluster, kubectl: &Path) {
    let command = |arguments: &[&str]| {
        let mut command = Command::new(kubectl);
        command.args(arguments).env("KUBECONFIG", server.path("admin.kubeconfig"));
        command.env("HOME", server.directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    // What goes in comes back; kubectl itself goes on.
    let echoed = |mut child: Child, bytes: &[u8]| {
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().ok();
        child.wait().unwrap();
        line
    };
    let exec = command(&["exec", "-i", "echo", "--", "cat"]).spawn().unwrap();
    assert_eq!(echoed(exec, b"through exec\n"), "through exec\n");
    let attach = command(&["attach", "-i", "echo", "-q"]).spawn().unwrap();
    assert_eq!(echoed(attach, b"through attach\n"), "through attach\n");
    let copied = server.path("copied");
    succeed(&mut command(&["cp", "echo:/etc/hostname", copied.to_str().unwrap()]));
    assert_eq!(std::fs::read_to_string(copied).unwrap(), "echo\n");
    let mut forward = command(&["port-forward", "--address=127.0.0.1", "pod/echo", ":9000"]).spawn().unwrap();
    let mut output = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port: u16 = line.split_whitespace().nth(2).and_then(|at| at.rsplit(':').next()?.parse().ok()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"through a port\n").unwrap();
    line.clear();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line, "through a port\n");
    forward.kill().unwrap();
    forward.wait().unwrap();
}

/// Asks with the agent's own certificate.
struct NodeUser<'a> {
    agent: &'a Cluster,
    url: &'a str,
}

impl NodeUser<'_> {
    fn kubectl(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
        command.args(["--server", self.url]).args(arguments).env("HOME", self.agent.directory.path());
        for (flag, file) in
            [("--certificate-authority", "ca.crt"), ("--client-certificate", "node.crt"), ("--client-key", "node.key")]
        {
            command.arg(flag).arg(self.agent.path("pki").join(file));
        }
        let output = command.output().unwrap();
        (output.status.success(), said(&output))
    }
}
