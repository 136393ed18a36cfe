//! Stand-ins for the images that the tests name: upstream's programs on a userland of busybox and Debian packages.

use super::build::{self, Programs};
use crate::images::{self, Blob, Image, Layer};
use crate::process;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

/// Changing what is made here must change this, so that an old archive is made anew.
const VERSION: &str = "2";
/// What upstream's image of agnhost has from Alpine, and what tests call in it.
const PACKAGES: [&str; 13] = [
    "bash",
    "bind9-dnsutils",
    "bind9-host",
    "conntrack",
    "coreutils",
    "curl",
    "iperf",
    "iproute2",
    "libc-bin",
    "mount",
    "netcat-openbsd",
    "socat",
    "util-linux",
];
/// What nobody runs.
const LEFT_OUT: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n";

/// One archive of all images; made if it is not there.
pub(super) fn make(programs: &Programs) -> Result<PathBuf> {
    let archive = programs.path(&format!("images-{VERSION}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    println!("making the test images");
    crate::setup::packages(&[("/usr/sbin/nginx", "nginx-light")])?;
    let layers = Layers::make(programs)?;
    let made = programs.path("images.new");
    images::archive(&made, &layers.images(programs)?)?;
    std::fs::rename(made, &archive)?;
    Ok(archive)
}

/// The layers that several images have.
struct Layers {
    busybox: Rc<Blob>,
    nginx: Rc<Blob>,
    /// Debian's programs, for use over busybox.
    debian: Rc<Blob>,
    agnhost: Rc<Blob>,
}

impl Layers {
    fn make(programs: &Programs) -> Result<Layers> {
        Ok(Layers {
            busybox: images::busybox_layer(&programs.path("busybox").to_string_lossy())?,
            nginx: images::nginx_layer()?,
            debian: Blob::new(debian(&programs.path("debian"))?),
            agnhost: agnhost(programs)?,
        })
    }

    fn images(&self, programs: &Programs) -> Result<Vec<Image>> {
        let Layers { busybox, nginx, debian, agnhost } = self;
        let userland = [busybox, debian];
        let agnhost = [busybox, debian, agnhost];
        let program = |name: &str, place: &str, mode| {
            let content = std::fs::read(programs.path(name)).with_context(|| format!("cannot read {name}"))?;
            one(place, mode, &content)
        };
        let started = |command: &str| serde_json::json!({"Entrypoint": [command]});
        let ports = ["80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"]
            .map(|port| (port.to_owned(), serde_json::json!({})));
        let mut pausing = serde_json::json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]});
        pausing["ExposedPorts"] = serde_json::Value::Object(ports.into_iter().collect());
        let mut serving = pausing.clone();
        serving["Cmd"] = serde_json::json!(["test-webserver"]);
        let shell = serde_json::json!({"Cmd": ["bash"]});
        let mut as_user = shell.clone();
        as_user["User"] = "1234".into();
        let newer = one("release", 0o644, b"the newer one\n")?;
        let nnp = program("nonewprivs", "usr/local/bin/nnp", 0o6755)?;
        let mut all = vec![
            test(&["busybox:1.37.0-2", "busybox:1.36.1-1"], &[busybox], images::busybox_config()),
            test(&["agnhost:2.66.1", "agnhost:2.55"], &agnhost, pausing),
            test(&["glibc-dns-testing:2.1.1"], &userland, shell.clone()),
            test(&["ipc-utils:1.4"], &userland, shell),
            test(&["nonroot:1.5"], &userland, as_user),
            test(&["nginx:1.27.0-2"], &[nginx], images::nginx_config()),
            test(&["nginx:1.28.0-2"], &[nginx, &newer], images::nginx_config()),
            test(&["nonewprivs:1.4"], &[busybox, &nnp], serde_json::json!({"Cmd": ["nnp"]})),
        ];
        for name in ["nautilus", "kitten"] {
            // The page that tells one from the other.
            let page = one("data.json", 0o644, format!("{{\"image\": \"{name}.jpg\"}}\n").as_bytes())?;
            let [busybox, debian, agnhost] = agnhost;
            all.push(test(&[&format!("{name}:1.8")], &[busybox, debian, agnhost, &page], serving.clone()));
        }
        let apiserver = program("sample-apiserver", "sample-apiserver", 0o755)?;
        all.push(test(&["sample-apiserver:1.29.2"], &[busybox, &apiserver], started("/sample-apiserver")));
        let pause = program("pause", "pause", 0o755)?;
        all.push(image("registry.k8s.io/pause:3.10.2", &[&pause], started("/pause")));
        let etcd = program("etcd", "usr/local/bin/etcd", 0o755)?;
        all.push(image("registry.k8s.io/etcd:3.7.0-0", &[busybox, &etcd], started("/usr/local/bin/etcd")));
        Ok(all)
    }
}

fn test(names: &[&str], layers: &[&Rc<Blob>], config: serde_json::Value) -> Image {
    let tags = names.iter().map(|name| format!("registry.k8s.io/e2e-test-images/{name}")).collect();
    Image { tags, ..image("", layers, config) }
}

fn image(tag: &str, layers: &[&Rc<Blob>], config: serde_json::Value) -> Image {
    Image { tags: vec![tag.to_owned()], layers: layers.iter().map(|layer| Rc::clone(layer)).collect(), config }
}

fn one(place: &str, mode: u32, content: &[u8]) -> Result<Rc<Blob>> {
    let mut layer = Layer::new();
    layer.file(place, mode, content)?;
    layer.done()
}

fn agnhost(programs: &Programs) -> Result<Rc<Blob>> {
    let mut layer = Layer::new();
    layer.file("agnhost", 0o755, &std::fs::read(programs.path("agnhost"))?)?;
    layer.link(tar::EntryType::Symlink, "agnhost-2", "agnhost")?;
    layer.directory("uploads", 0o755)?;
    let porter = build::kubernetes()?.join("test/images/agnhost/porter");
    for name in ["localhost.crt", "localhost.key"] {
        layer.file(name, 0o644, &std::fs::read(porter.join(name))?)?;
    }
    layer.done()
}

/// The packages with all they depend on, unpacked without being installed.
fn debian(directory: &Path) -> Result<Vec<u8>> {
    let (archives, root) = (directory.join("archives"), directory.join("root"));
    std::fs::create_dir_all(archives.join("partial"))?;
    std::fs::create_dir_all(&root)?;
    // As if nothing were installed, so that everything is named.
    let status = directory.join("status");
    std::fs::write(&status, "")?;
    let set = |name: &str, value: &Path| format!("{name}={}", value.display());
    process::run("apt-get", ["update", "-qq"])?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-qq", "-y", "--no-install-recommends", "--download-only", "-o", "Debug::NoLocking=1"]);
    apt.args(["-o", &set("Dir::State::status", &status), "-o", &set("Dir::Cache::archives", &archives)]).args(PACKAGES);
    process::check(apt.stdout(Stdio::null()))?;
    for entry in std::fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            process::run("dpkg-deb", ["-x".as_ref(), archive.as_os_str(), root.as_os_str()])?;
        }
    }
    for path in LEFT_OUT {
        std::fs::remove_dir_all(root.join(path)).or_else(absent)?;
    }
    std::fs::write(root.join("etc/passwd"), PASSWD)?;
    std::fs::write(root.join("etc/group"), GROUP)?;
    // A test reads the name of the distribution in here.
    std::fs::write(root.join("etc/os-release"), "NAME=\"stand-in for Alpine Linux\"\nID=standin\n")?;
    let layer = directory.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C"]);
    process::check(tar.arg(&root).arg("-cf").arg(&layer).arg("."))?;
    let bytes = std::fs::read(&layer)?;
    std::fs::remove_dir_all(directory)?;
    Ok(bytes)
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
