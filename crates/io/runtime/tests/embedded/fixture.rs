//! An instance for one test: its own directory, images and cgroups, and the check that nothing of it is left.

use async_trait::async_trait;
use images::Images;
use runtime::embedded::{Embedded, Options, purge};
use runtime::types::{
    ContainerConfig, Exit, Mount, NamespaceMode, PodNetwork, Propagation, Resources, Runtime, RuntimeEvent,
    SandboxConfig, UserNamespace,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

pub(crate) const IMAGE: &str = "docker.io/library/busybox:test";

pub(crate) struct Node {
    pub(crate) runtime: Embedded,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) instance: String,
}

/// A network that is nothing but the Pod's own loopback.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, _: &SandboxConfig, _: &str, _: OwnedFd) -> Result<Vec<IpAddr>, String> {
        Ok(vec![IpAddr::from([192, 0, 2, 1])])
    }
    async fn detach(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

async fn open(instance: &str, dir: &Path) -> Embedded {
    let images = Images::open(&dir.join("images"), images::Options::default()).unwrap();
    if images.resolve(IMAGE).is_none() {
        let archive = dir.join("image.tar");
        std::fs::write(&archive, archive_of_busybox()).unwrap();
        images.import_file(&archive).await.unwrap();
    }
    let options = Options {
        instance: instance.to_owned(),
        dir: dir.join("runtime"),
        shim_program: PathBuf::from(env!("CARGO_BIN_EXE_minke-shim-for-tests")),
        images,
        network: Arc::new(NoNetwork),
    };
    Embedded::open(options).await.unwrap()
}

/// `docker save` of an image with Debian's static busybox and the files the tests need.
fn archive_of_busybox() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut file = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        layer.append_data(&mut header, path, content).unwrap();
    };
    file("bin/busybox", 0o755, &std::fs::read("/bin/busybox").expect("Debian package busybox-static"));
    file("bin/badscript", 0o755, b"#!/no/interpreter\n");
    file("bin/garbage", 0o755, b"\x01\x02\x03\x04 not a program");
    file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:100::/:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\nwheel:x:10:root\nusers:x:100:\nextra:x:200:user\n");
    for name in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest = sha256(&layer);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["PATH=/bin","IMAGE=yes"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["busybox:test"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in
        [("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "hostname", "nc", "stty", "tty", "true", "false", "head", "tr", "id", "ls", "mount",
    "umount", "grep", "stat", "readlink", "touch", "mkdir", "rm", "mknod", "ulimit", "env", "pwd", "wc", "dd", "kill",
    "ps", "test", "cut", "[", "unshare", "sed", "awk", "chmod", "sort", "find", "sync", "date", "ip",
];

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Node {
    pub(crate) async fn start() -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let instance = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let runtime = open(&instance, dir.path()).await;
        Node { runtime, dir, instance }
    }

    /// The daemon goes, `meanwhile` happens, the daemon comes back.
    pub(crate) async fn restart(&mut self, meanwhile: impl FnOnce(&Node)) {
        let empty = tempfile::tempdir().unwrap();
        let placeholder = open(&format!("{}-none", self.instance), empty.path()).await;
        std::mem::replace(&mut self.runtime, placeholder).close().await;
        meanwhile(self);
        self.runtime = open(&self.instance, self.dir.path()).await;
        purge(&format!("{}-none", self.instance), &empty.path().join("runtime")).unwrap();
    }

    pub(crate) async fn container(&self, pod: &str, mut config: ContainerConfig) -> String {
        if config.image_id.is_empty() {
            config.image_id = self.runtime.image_status(IMAGE).await.unwrap().unwrap().id;
        }
        self.runtime.create_container(pod, config).await.unwrap()
    }

    /// Waits for the exit of one container; the exits of others are dropped.
    pub(crate) async fn exit_of(&self, events: &mut mpsc::UnboundedReceiver<RuntimeEvent>, id: &str) -> Exit {
        let wait = async {
            loop {
                match events.recv().await.unwrap() {
                    RuntimeEvent::ContainerExited { container_id, exit, .. } if container_id == id => return exit,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(120), wait).await.expect("the container ends")
    }

    pub(crate) fn sandbox(&self, name: &str) -> SandboxConfig {
        SandboxConfig { log_directory: self.dir.path().join("logs"), ..sandbox(name) }
    }

    /// The lines of a log without their times.
    pub(crate) fn log(&self, path: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("logs").join(path)).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    pub(crate) async fn wait_log(&self, path: &str, word: &str) {
        let wait = async {
            while !self.log(path).iter().any(|line| line.contains(word)) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(120), wait).await.expect("the line comes");
    }

    pub(crate) fn gate(&self) -> PathBuf {
        let dir = self.dir.path().join("gate");
        std::fs::create_dir_all(&dir).unwrap();
        if !dir.join("pipe").exists() {
            rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o666.into(), 0)
                .unwrap();
        }
        dir
    }

    pub(crate) fn open_gate(&self) {
        std::fs::write(self.dir.path().join("gate/pipe"), "go\n").unwrap();
    }

    /// Process numbers of the shims, and of what they are forked from.
    pub(crate) fn shims(&self) -> Vec<i32> {
        shim::cgroup::Hierarchies::observe().unwrap().processes(&self.shims_group())
    }

    /// Proportional memory of each shim, in KiB.
    pub(crate) fn shims_pss_kib(&self) -> Vec<u64> {
        let pss = |pid: &i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        self.shims().iter().map(pss).collect()
    }

    pub(crate) fn kill_shims(&self) {
        let hierarchies = shim::cgroup::Hierarchies::observe().unwrap();
        hierarchies.kill(&self.shims_group()).unwrap();
    }

    fn shims_group(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("runtime/cgroup")).unwrap() + "/shims"
    }

    /// Stops and removes the sandbox, and checks that nothing is left of the instance.
    pub(crate) async fn end(self, pod: &str) {
        self.runtime.stop_sandbox(pod).await.unwrap();
        self.runtime.stop_sandbox(pod).await.unwrap();
        self.runtime.remove_sandbox(pod).await.unwrap();
        self.runtime.remove_sandbox(pod).await.unwrap();
        assert_eq!(self.runtime.list_sandboxes().await.unwrap(), []);
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("runtime/sandboxes")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let groups = groups_of(&self.instance);
        assert!(
            groups.iter().all(|g| g.ends_with("/shims")
                || g.ends_with(&self.instance)
                // Under systemd: its scope, and what keeps that.
                || g.ends_with(".scope")
                || g.ends_with("/init")
                || g.ends_with("/pods")
                || g.ends_with("/burstable")),
            "{groups:?}"
        );
        self.purge();
    }

    pub(crate) fn purge(&self) {
        purge(&self.instance, &self.dir.path().join("runtime")).unwrap();
        assert_eq!(groups_of(&self.instance), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(dir), "a mount is left");
        let mark = format!("MINKE_INSTANCE={}\0", self.instance);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            assert!(!environ.contains(&mark), "process {:?} is left", entry.file_name());
        }
    }
}

/// A failed test leaves nothing either.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = purge(&self.instance, &self.dir.path().join("runtime"));
    }
}

/// Every cgroup with the instance's name in its path.
fn groups_of(instance: &str) -> Vec<String> {
    fn walk(dir: &Path, wanted: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let path = entry.path();
                let scope = format!("{wanted}.scope");
                if path.components().any(|c| c.as_os_str() == wanted || c.as_os_str() == scope.as_str()) {
                    found.push(path.display().to_string());
                }
                walk(&path, wanted, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &format!("minke-{instance}"), &mut found);
    found
}

pub(crate) async fn run(node: &Node, pod: &str, config: ContainerConfig) -> String {
    let id = node.container(pod, config).await;
    node.runtime.start_container(&id).await.unwrap();
    id
}

fn sandbox(name: &str) -> SandboxConfig {
    SandboxConfig {
        name: name.into(),
        namespace: "default".into(),
        uid: format!("uid-{name}"),
        attempt: 0,
        hostname: name.into(),
        log_directory: PathBuf::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        network: NamespaceMode::Pod,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        users: UserNamespace::Node,
        sysctls: BTreeMap::new(),
        cgroup_parent: format!("burstable/pod{name}"),
        resources: Resources::default(),
        port_mappings: Vec::new(),
        runtime_handler: String::new(),
    }
}

/// A container that runs a script.
pub(crate) fn config(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        user_image: IMAGE.into(),
        command: ["sh", "-c", script].map(Into::into).to_vec(),
        log_path: PathBuf::from(format!("{name}/0.log")),
        ..ContainerConfig::default()
    }
}

pub(crate) trait WithGate {
    fn with_gate(self, node: &Node) -> Self;
}

impl WithGate for ContainerConfig {
    fn with_gate(mut self, node: &Node) -> Self {
        self.mounts.push(Mount {
            container_path: "/gate".into(),
            host_path: node.gate(),
            readonly: false,
            recursive_readonly: false,
            propagation: Propagation::Private,
            image: None,
            image_sub_path: String::new(),
        });
        self
    }
}
