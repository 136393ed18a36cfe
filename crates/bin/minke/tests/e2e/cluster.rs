//! One instance of minke for one test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const MINKE: &str = env!("CARGO_BIN_EXE_minke");

pub(crate) fn needed(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run these tests by `cargo xtask test`")))
}

pub(crate) fn image(name: &str) -> PathBuf {
    needed("MINKE_TEST_IMAGES").join(format!("{name}.tar"))
}

/// What a command said, if it succeeded.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn up(directory: &Path, flags: &[&str]) {
    let mut command = Command::new(MINKE);
    succeed(command.args(["up", "--node-name", "node-1"]).args(flags).arg("--data-dir").arg(directory));
}

pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    /// `instance.json`
    pub(crate) record: serde_json::Value,
    trace: Trace,
}

impl Cluster {
    /// Boots, with the images of busybox and nginx.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Boots with more flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), flags, &["busybox", "nginx"])
    }

    /// Boots with its data directory in `parent`, with these images.
    pub(crate) fn start_in(parent: &Path, flags: &[&str], images: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("minke-test-").tempdir_in(parent).unwrap();
        up(directory.path(), flags);
        let cluster = Self::adopt(directory);
        for name in images {
            cluster.minke(&["image", "import", image(name).to_str().unwrap()]);
        }
        cluster
    }

    /// An instance that was started otherwise.
    pub(crate) fn adopt(directory: tempfile::TempDir) -> Self {
        let record = std::fs::read_to_string(directory.path().join("instance.json")).unwrap();
        let trace = Trace::of(directory.path());
        Self { directory, record: serde_json::from_str(&record).unwrap(), trace }
    }

    pub(crate) fn up(&self) {
        up(self.directory.path(), &[]);
    }

    pub(crate) fn id(&self) -> &str {
        self.record["id"].as_str().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of minke that takes `--data-dir`.
    pub(crate) fn minke(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(MINKE);
        succeed(command.args(arguments).env("MINKE_DATA_DIR", self.directory.path()))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(needed("MINKE_TEST_KUBECTL"));
        command.args(arguments).env("KUBECONFIG", self.path("admin.kubeconfig")).env("HOME", self.directory.path());
        command
    }

    /// kubectl's output; it must succeed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    /// kubectl's output and exit code, whatever it is.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> (i32, String) {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// A shell's command in a terminal of its own, where `$KUBECTL` is kubectl: exit code and what the terminal shows.
    pub(crate) fn in_terminal(&self, shell: &str) -> (i32, String) {
        let mut command = Command::new("script");
        command.args(["-qec", shell, "/dev/null"]).env("KUBECTL", needed("MINKE_TEST_KUBECTL"));
        command.env("KUBECONFIG", self.path("admin.kubeconfig")).env("HOME", self.directory.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// Asks kubectl until its output has the words: for what no watch tells of.
    pub(crate) fn until(&self, arguments: &[&str], words: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.kubectl(arguments).contains(words) {
            assert!(std::time::Instant::now() < end, "kubectl {arguments:?} never said {words:?}");
        }
    }

    pub(crate) fn apply(&self, manifest: &str) -> String {
        let (code, text) = self.kubectl_with(&["apply", "-f", "-"], manifest);
        assert_eq!(code, 0, "{text}");
        text
    }

    /// Waits (kubectl watches) until the JSON path has the value.
    pub(crate) fn wait(&self, object: &str, path: &str, value: &str) {
        let condition = format!("--for=jsonpath={{{path}}}={value}");
        let (code, text) = self.try_kubectl(&["wait", object, &condition, "--timeout=90s"]);
        assert_eq!(code, 0, "{text}\n{}", self.describe(object));
    }

    pub(crate) fn get(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    fn describe(&self, object: &str) -> String {
        let log = std::fs::read_to_string(self.path("minke.log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(30).collect();
        self.try_kubectl(&["describe", object]).1 + &tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.minke(&["status", "-o", "json"])).unwrap()
    }

    pub(crate) fn pid(&self) -> i32 {
        let status = self.status();
        status["pid"].as_i64().unwrap().try_into().unwrap()
    }
}

/// What an instance is known by, to see afterwards that nothing of it is left.
pub(crate) struct Trace {
    id: String,
    directory: String,
}

impl Trace {
    pub(crate) fn of(directory: &Path) -> Self {
        let record = std::fs::read_to_string(directory.join("instance.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        Self { id: record["id"].as_str().unwrap().to_owned(), directory: directory.to_str().unwrap().to_owned() }
    }

    /// Everything on this machine that carries the instance's id or lies in its directory.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let directory = self.directory.as_str();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(directory)).map(|line| format!("mount {line}")));
        for entry in std::fs::read_dir("/sys/class/net").unwrap().flatten() {
            let alias = std::fs::read_to_string(entry.path().join("ifalias")).unwrap_or_default();
            if alias.contains(&self.id) {
                left.push(format!("link {}", entry.file_name().display()));
            }
        }
        let tables = succeed(Command::new("nft").args(["list", "tables"]));
        left.extend(tables.lines().filter(|line| line.contains(&self.id)).map(str::to_owned));
        for root in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
            left.extend(entries_with(&root, &self.id).map(|path| format!("cgroup {}", path.display())));
        }
        left.extend(
            entries_with(Path::new("/sys/fs/cgroup"), &self.id).map(|path| format!("cgroup {}", path.display())),
        );
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            if arguments.contains(directory) || arguments.contains(&self.id) {
                left.push(format!("process {}: {arguments}", entry.file_name().display()));
            }
        }
        left
    }
}

fn entries_with<'a>(directory: &Path, id: &'a str) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(move |path| path.to_string_lossy().contains(id))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let log = std::fs::read_to_string(self.path("minke.log")).unwrap_or_default();
        let output =
            Command::new(MINKE).args(["down", "--purge", "--data-dir"]).arg(self.directory.path()).output().unwrap();
        if std::thread::panicking() {
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("minke's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            return;
        }
        assert!(output.status.success(), "down --purge: {}", said(&output));
        assert!(!self.directory.path().exists(), "the data directory is left");
        assert_eq!(self.trace.left(), Vec::<String>::new(), "left behind");
    }
}
