//! port-forward, and exec as older kubectl asks for it, over WebSocket and over plain SPDY.

use crate::cluster::Cluster;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: web, image: "nginx:1.27"}
  - {name: echo, image: "busybox:1.37", command: [nc, -ll, -p, "9000", -e, cat]}
"#;

/// Until both servers listen, which they do a moment after they have started.
fn start_pod(cluster: &Cluster) {
    cluster.apply(POD);
    cluster.kubectl(&["wait", "pod/x", "--for=condition=Ready", "--timeout=60s"]);
    let listening = "until [ $(netstat -ltn | grep -c -e '0.0.0.0:80 ' -e ':9000 ') -ge 2 ]; do sleep 0.1; done";
    cluster.kubectl(&["exec", "x", "-c", "echo", "--", "timeout", "30", "sh", "-c", listening]);
}

/// kubectl forwarding a port of the Pod.
struct Forward {
    kubectl: Child,
    /// Kept open: kubectl goes on writing to it.
    _output: BufReader<ChildStdout>,
    port: u16,
}

impl Forward {
    fn start(cluster: &Cluster, port: u16, websockets: bool) -> Self {
        let kubectl = std::env::var_os("MINKE_TEST_KUBECTL").unwrap();
        let mut command = Command::new(kubectl);
        command.args(["port-forward", "--address=127.0.0.1", "pod/x", &format!(":{port}")]);
        command.env("KUBECONFIG", cluster.path("admin.kubeconfig")).env("HOME", cluster.directory.path());
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
        let mut kubectl = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(kubectl.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        // "Forwarding from 127.0.0.1:41234 -> 80"
        let local = line.split_whitespace().nth(2).and_then(|address| address.rsplit(':').next());
        let port = local.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("kubectl said {line:?}"));
        Self { kubectl, _output: output, port }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// What kubectl says before it gives up.
    fn complaint(mut self) -> String {
        let mut text = String::new();
        self.kubectl.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.kubectl.kill().ok();
        self.kubectl.wait().unwrap();
    }
}

/// What comes back for `data` once both ends have said all.
fn exchange(mut stream: TcpStream, data: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(data).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut answer).unwrap();
    });
    answer
}

#[test]
fn ports_are_forwarded_over_websocket_and_spdy() {
    let cluster = Cluster::start();
    start_pod(&cluster);
    let content: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    for websockets in [true, false] {
        let web = Forward::start(&cluster, 80, websockets);
        let page = exchange(web.connect(), b"GET / HTTP/1.0\r\n\r\n");
        assert!(String::from_utf8_lossy(&page).contains("Welcome to nginx!"));

        let echo = Forward::start(&cluster, 9000, websockets);
        let (first, second) = (echo.connect(), echo.connect());
        assert!(exchange(first, &content) == content, "what comes back differs");
        assert_eq!(exchange(second, b"beside it"), b"beside it");

        let nobody = Forward::start(&cluster, 81, websockets);
        assert_eq!(exchange(nobody.connect(), b""), b"");
        let text = nobody.complaint();
        assert!(
            text.contains("error forwarding port 81 to pod ") && text.contains(", uid : failed to connect"),
            "{text}"
        );
        assert!(text.contains("dial tcp4 127.0.0.1:81: connect: connection refused"), "{text}");
        assert!(text.contains("lost connection to pod"), "{text}");
    }
}

#[test]
fn exec_works_over_spdy() {
    let cluster = Cluster::start();
    start_pod(&cluster);
    let exec = |script: &str, input: &[u8]| {
        let mut command = Command::new(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
        command.args(["exec", "-i", "x", "-c", "echo", "--", "sh", "-c", script]);
        command.env("KUBECONFIG", cluster.path("admin.kubeconfig")).env("HOME", cluster.directory.path());
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        })
    };
    let output = exec("cat; echo err >&2; exit 42", b"through standard input");
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through standard input");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\ncommand terminated with exit code 42\n");
    let content: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    assert!(exec("cat", &content).stdout == content, "what comes back differs");
}
