//! Debian's docker-registry on loopback, with the images that the tests import.

use crate::cluster::{Cluster, image, succeed};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Ends with the value.
pub(crate) struct Registry {
    child: Child,
    _root: tempfile::TempDir,
}

impl Registry {
    /// Stands in for Docker Hub, as far as `cluster` is concerned.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let root = tempfile::tempdir().unwrap();
        // The port is free again when the registry takes it; nobody else here asks for that one.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let authority = format!("127.0.0.1:{port}");
        let data = root.path().join("data").display().to_string();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: \"{authority}\"}}\n"
        );
        let file = root.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says so in its log when it listens; what follows is read so that it never blocks.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on")), "docker-registry did not start");
        std::thread::spawn(move || lines.for_each(drop));
        let registry = Self { child, _root: root };
        for (archive, tags) in [("busybox", ["1.37", "1", "latest"]), ("nginx", ["1.27", "1.28", "latest"])] {
            for tag in tags {
                let mut copy = Command::new("skopeo");
                copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
                copy.arg(format!("docker-archive:{}:{archive}:{tag}", image(archive).display()));
                succeed(copy.arg(format!("docker://{authority}/library/{archive}:{tag}")));
            }
        }
        let mirrors = cluster.path("registries.d/docker.io");
        std::fs::create_dir_all(&mirrors).unwrap();
        std::fs::write(mirrors.join("hosts.toml"), format!("server = \"http://{authority}\"\n")).unwrap();
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
