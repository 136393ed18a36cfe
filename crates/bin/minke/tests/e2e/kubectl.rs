//! What a user of kubectl does all day, with the newest client and with an old one.

use crate::cluster::{Cluster, needed, said};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "busybox:1.37", command: [sh, -c, "echo one; echo two; cat; exec sleep 1000"], stdin: true, stdinOnce: true}
  - {name: web, image: "nginx:1.27"}
"#;

struct Client<'a> {
    program: &'a Path,
    cluster: &'a Cluster,
}

impl Client<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(arguments).env("KUBECONFIG", self.cluster.path("admin.kubeconfig"));
        command.env("HOME", self.cluster.directory.path()).env("KUBE_EDITOR", "sed -i s/blue/green/");
        command.stdin(Stdio::null());
        command
    }

    /// Runs each command; it must end with the code and say the text.
    fn walk(&self, steps: &[(&[&str], i32, &str)]) {
        for (arguments, code, text) in steps {
            let output = self.command(arguments).output().unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(*code), "kubectl {arguments:?}: {said}");
            assert!(said.contains(text), "kubectl {arguments:?} does not say {text:?}: {said}");
        }
    }

    /// The first lines of a command that has no end of its own.
    fn first_lines(&self, arguments: &[&str], count: usize) -> Vec<String> {
        use std::io::{BufRead, BufReader};
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(count).map(Result::unwrap).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        lines
    }

    /// The first line that comes back over `attach`; the container goes on, and so would kubectl.
    fn attached(&self, input: &str) -> String {
        use std::io::{BufRead, BufReader};
        let mut command = self.command(&["attach", "-i", "two", "-c", "a"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        line
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", said(&output));
        said(&output)
    }

    /// As a person at a terminal of 24 lines and 80 columns sees it.
    fn at_a_terminal(&self, arguments: &[&str]) -> String {
        let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        let line = format!("stty rows 24 cols 80; {} {}", self.program.display(), words.join(" "));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("KUBECONFIG", self.cluster.path("admin.kubeconfig"));
        let output = command.env("HOME", self.cluster.directory.path()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", said(&output));
        said(&output)
    }
}

fn read_and_ask(client: &Client<'_>) {
    client.walk(&[
        (&["wait", "pod/two", "--for=condition=Ready", "--timeout=60s"], 0, "pod/two condition met"),
        (&["get", "pod", "two", "-o", "wide"], 0, "NOMINATED NODE"),
        (&["get", "pod", "two", "-o", "yaml"], 0, "kind: Pod"),
        (&["get", "pod", "two", "-o", "json"], 0, "\"kind\": \"Pod\""),
        (&["get", "pod", "two", "-o", "jsonpath={.status.phase}"], 0, "Running"),
        (&["get", "pods", "-o", "name"], 0, "pod/two"),
        (&["get", "all"], 0, "service/kubernetes"),
        (&["get", "pods", "-l", "app=none"], 0, "No resources found in default namespace."),
        (&["get", "pod", "none"], 1, "Error from server (NotFound): pods \"none\" not found"),
        (&["describe", "pod", "two"], 0, "Container started"),
        (&["describe", "node", "node-1"], 0, "Non-terminated Pods:"),
        (&["logs", "two", "-c", "a", "--tail=1"], 0, "two\n"),
        (&["logs", "two", "--all-containers", "--prefix"], 0, "[pod/two/a] one"),
        (&["logs", "-l", "app=two", "-c", "a"], 0, "one\ntwo\n"),
        (&["logs", "two", "-c", "none"], 1, "container none is not valid for pod two"),
        (&["exec", "two", "-c", "a", "--", "sh", "-c", "exit 3"], 3, "command terminated with exit code 3"),
        (&["api-resources"], 0, "certificatesigningrequests"),
        (&["api-versions"], 0, "apps/v1"),
        (&["explain", "pod.spec.containers.image"], 0, "FIELD: image <string>"),
        (&["auth", "can-i", "create", "pods"], 0, "yes"),
        (&["auth", "can-i", "create", "pods", "--as=nobody"], 1, "no"),
        (&["auth", "whoami"], 0, "kubernetes-admin"),
        (&["cluster-info"], 0, "Kubernetes control plane"),
        (&["version"], 0, "Server Version: v1.37.1"),
        (&["events", "--for", "pod/two"], 0, "Successfully assigned default/two to node-1"),
    ]);
    assert_eq!(client.first_lines(&["get", "pods", "-w", "--no-headers"], 1).len(), 1);
    assert_eq!(client.first_lines(&["logs", "-f", "two", "-c", "a"], 2), ["one", "two"]);
}

fn reach_in(client: &Client<'_>) {
    assert_eq!(client.attached("through attach\n"), "through attach\n");
    // kubectl tells the size once the command runs; until then there is none.
    let size = "tty; until stty size 2>/dev/null; do :; done";
    let text = client.at_a_terminal(&["exec", "-it", "two", "-c", "a", "--", "sh", "-c", size]);
    assert!(text.contains("/dev/pts/0\r\n") && text.contains("24 80\r\n"), "{text:?}");
    let copied = client.cluster.path("hostname");
    client.walk(&[
        (&["cp", "two:/etc/hostname", copied.to_str().unwrap(), "-c", "a"], 0, ""),
        (&["debug", "two", "--image=busybox:1.37", "-c", "dbg", "--profile=general", "--", "sleep", "1"], 0, ""),
        (&["get", "pod", "two", "-o", "jsonpath={.spec.ephemeralContainers[*].name}"], 0, "dbg"),
    ]);
    assert_eq!(std::fs::read_to_string(copied).unwrap(), "two\n");
    let forwarding = client.first_lines(&["port-forward", "pod/two", ":80"], 1);
    assert!(forwarding[0].starts_with("Forwarding from 127.0.0.1:"), "{forwarding:?}");
}

fn change(client: &Client<'_>) {
    let manifest = client.cluster.path("two.yaml");
    std::fs::write(&manifest, POD.replace("app: two", "app: other")).unwrap();
    let manifest = manifest.to_str().unwrap();
    client.walk(&[
        (&["create", "ns", "walk"], 0, "namespace/walk created"),
        (&["create", "ns", "walk"], 1, "Error from server (AlreadyExists): namespaces \"walk\" already exists"),
        (&["create", "cm", "c1", "--from-literal=colour=blue"], 0, "configmap/c1 created"),
        (&["create", "secret", "generic", "s1", "--from-literal=a=b"], 0, "secret/s1 created"),
        (&["create", "sa", "robot"], 0, "serviceaccount/robot created"),
        (&["create", "token", "robot"], 0, "eyJ"),
        (&["label", "pod", "two", "x=y"], 0, "pod/two labeled"),
        (&["annotate", "pod", "two", "a=b"], 0, "pod/two annotated"),
        (&["edit", "cm", "c1"], 0, "configmap/c1 edited"),
        (&["get", "cm", "c1", "-o", "jsonpath={.data.colour}"], 0, "green"),
        (&["patch", "cm", "c1", "-p", r#"{"data":{"x":"y"}}"#], 0, "configmap/c1 patched"),
        (
            &["patch", "cm", "c1", "--type=json", "-p", r#"[{"op":"replace","path":"/data/x","value":"z"}]"#],
            0,
            "configmap/c1 patched",
        ),
        (&["diff", "-f", manifest], 1, "+    app: other"),
        (&["apply", "-f", manifest, "--dry-run=server"], 0, "pod/two configured (server dry run)"),
        (&["apply", "-f", manifest], 0, "pod/two configured"),
        (&["replace", "-f", manifest], 1, "Forbidden: pod updates may not change fields other than"),
        (&["replace", "--force", "--grace-period=0", "-f", manifest], 0, "pod/two replaced"),
        (&["run", "plain", "--image=busybox:1.37", "--command", "--", "sleep", "1000"], 0, "pod/plain created"),
        (&["wait", "pod/plain", "pod/two", "--for=condition=Ready", "--timeout=60s"], 0, "pod/plain condition met"),
        (&["cordon", "node-1"], 0, "node/node-1 cordoned"),
        (&["uncordon", "node-1"], 0, "node/node-1 uncordoned"),
        (&["delete", "pod", "two"], 0, "pod \"two\" deleted"),
        (&["delete", "pod", "plain", "--grace-period=0", "--force"], 0, "Immediate deletion does not wait"),
        (&["delete", "ns", "walk"], 0, "namespace \"walk\" deleted"),
        (&["get", "pods"], 0, "No resources found in default namespace."),
    ]);
}

fn a_day(program: &Path) {
    let cluster = Cluster::start();
    let client = Client { program, cluster: &cluster };
    client.with_input(&["apply", "-f", "-"], POD);
    read_and_ask(&client);
    reach_in(&client);
    change(&client);
}

#[test]
fn a_day_with_kubectl_1_37() {
    a_day(&needed("MINKE_TEST_KUBECTL"));
}

/// Streams over SPDY, OpenAPI as v2 in protobuf.
#[test]
fn a_day_with_kubectl_1_28() {
    a_day(&needed("MINKE_TEST_KUBECTL_1_28"));
}

#[test]
fn a_day_with_kubectl_1_32() {
    a_day(&needed("MINKE_TEST_KUBECTL_1_32"));
}
