//! minke's own commands.

use crate::cluster::{Cluster, MINKE, Trace, image, said, succeed};
use crate::pods::kill_and_wait;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn run_ends_with_the_exit_code_of_the_pod_and_leaves_nothing() {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  restartPolicy: Never
  containers:
  - {name: says, image: "busybox:1.37", command: [sh, -c, "echo hello from $HOSTNAME"]}
  - {name: fails, image: "busybox:1.37", command: [sh, -c, "exit 5"]}
"#;
    let mut command = Command::new(MINKE);
    command.args(["run", "-f", "-", "--timeout", "90s", "--image-archive"]).arg(image("busybox"));
    let scratch = tempfile::tempdir().unwrap();
    command.env("TMPDIR", scratch.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "job/says hello from job\n");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something is left");
}

#[test]
fn a_second_up_says_so_and_other_flags_are_refused() {
    let cluster = Cluster::start();
    let up = |more: &[&str]| {
        Command::new(MINKE).args(["up", "--data-dir"]).arg(cluster.directory.path()).args(more).output().unwrap()
    };
    let again = up(&[]);
    assert!(again.status.success() && said(&again).contains("already running"), "{}", said(&again));
    let other = up(&["--node-name", "another"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("--node-name (is node-1)"), "{}", said(&other));
}

#[test]
fn two_instances_side_by_side_and_images() {
    let (one, two) = (Cluster::start(), Cluster::start());
    assert!(one.minke(&["image", "ls"]).contains("docker.io/library/nginx:1.27"));
    one.kubectl(&["create", "namespace", "only-here"]);
    assert_eq!(two.try_kubectl(&["get", "namespace", "only-here"]).0, 1);
    two.minke(&["image", "rm", "nginx:1.27"]);
    assert!(!two.minke(&["image", "ls"]).contains("nginx:1.27"));
}

/// Whatever appears in a directory from now on.
struct Appearing(std::os::fd::OwnedFd);

impl Appearing {
    fn watch(directory: &Path) -> Self {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let inotify = init(CreateFlags::empty()).unwrap();
        add_watch(&inotify, directory, WatchFlags::CREATE).unwrap();
        Self(inotify)
    }

    fn wait_for(&self, name: &str) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = rustix::fs::inotify::Reader::new(&self.0, &mut buffer);
        while events.next().unwrap().file_name().is_none_or(|found| found.to_bytes() != name.as_bytes()) {}
    }
}

#[test]
fn a_crashed_server_is_started_again_and_says_why() {
    let cluster = Cluster::start();
    let (pid, appearing) = (cluster.pid(), Appearing::watch(&cluster.path("run")));
    kill_and_wait(pid);
    appearing.wait_for("admin.sock");
    assert_ne!(cluster.pid(), pid);
    let report = std::fs::read_to_string(cluster.path("crash.txt")).unwrap();
    assert!(report.contains("signal: 9"), "{report}");
    cluster.minke(&["down"]);
    let status = Command::new(MINKE).args(["status", "--data-dir"]).arg(cluster.directory.path()).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(said(&status).contains("its last crash is told in"), "{}", said(&status));
}

#[test]
fn status_tells_what_runs() {
    let cluster = Cluster::start();
    let text = cluster.minke(&["status"]);
    for expected in ["Kubernetes      v1.37.1", "node            node-1", "memory (PSS)", "healthy         yes"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_context_comes_and_goes_in_the_callers_kubeconfig() {
    let home = tempfile::tempdir().unwrap();
    let (file, data) = (home.path().join("config"), home.path().join("data"));
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters: []\nusers: []\ncontexts:\n- name: work\n  context:\n    cluster: work\n    user: me\n";
    let minke = |arguments: &[&str]| {
        let mut command = Command::new(MINKE);
        command.args(arguments).env("MINKE_DATA_DIR", &data);
        command
    };
    let up = || {
        let mut command = minke(&["up", "--no-node", "--kubeconfig"]);
        command.arg(&file);
        command
    };
    std::fs::write(&file, "{{{").unwrap();
    let refused = up().output().unwrap();
    assert!(said(&refused).contains("is no kubeconfig and was left alone"), "{}", said(&refused));
    assert!(!data.exists(), "something was begun");

    std::fs::write(&file, theirs).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
    succeed(&mut up());
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
        succeed(command.args(arguments).env("KUBECONFIG", &file).env("HOME", home.path()))
    };
    assert_eq!(kubectl(&["config", "current-context"]), "minke\n");
    assert_eq!(kubectl(&["get", "namespace", "default", "-o", "name"]), "namespace/default\n");
    succeed(&mut minke(&["down", "--purge"]));
    assert_eq!(kubectl(&["config", "get-contexts", "-o", "name"]), "work\n");
    assert_eq!(kubectl(&["config", "current-context"]), "work\n");
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 65534);
}

const LONG: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: long}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'busybox:1.37', command: [sh, -c, 'echo up; exec sleep 1000']}]}\n";

fn run(scratch: &Path, arguments: &[&str]) -> Command {
    std::fs::write(scratch.join("pod.yaml"), LONG).unwrap();
    std::fs::create_dir_all(scratch.join("tmp")).unwrap();
    let mut command = Command::new(MINKE);
    command.args(["run", "-f"]).arg(scratch.join("pod.yaml")).arg("--image-archive").arg(image("busybox"));
    command.args(arguments).env("TMPDIR", scratch.join("tmp"));
    command
}

#[test]
fn run_until_ready_with_a_command() {
    let scratch = tempfile::tempdir().unwrap();
    let kubectl = std::env::var("MINKE_TEST_KUBECTL").unwrap();
    let script = format!("{kubectl} get pod long --no-headers && exit 9");
    let output = run(scratch.path(), &["--", "sh", "-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("1/1") && text.contains("Running"), "{text}");
    let output = run(scratch.path(), &["--until", "ready"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = run(scratch.path(), &["--timeout", "3s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    assert_eq!(std::fs::read_dir(scratch.path().join("tmp")).unwrap().count(), 0, "something is left");
}

#[test]
fn run_leaves_nothing_after_an_interrupt_and_after_a_kill() {
    for signal in ["-INT", "-KILL"] {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = run(scratch.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "long/c up\n");
        let directory = std::fs::read_dir(scratch.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
        let trace = Trace::of(&directory);
        succeed(Command::new("kill").args([signal, &child.id().to_string()]));
        let code = child.wait().unwrap().code();
        if signal == "-INT" {
            assert_eq!(code, Some(130));
            assert!(!directory.exists());
        } else {
            succeed(Command::new(MINKE).args(["down", "--purge", "--data-dir"]).arg(&directory));
        }
        assert_eq!(trace.left(), Vec::<String>::new(), "left behind");
    }
}
