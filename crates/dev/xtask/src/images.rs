//! Images for tests and demo, made of what Debian packages installed, as docker archives.

use crate::process;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

/// Changing what is made here must change this, so that old archives are made anew.
const VERSION: &str = "2";

/// Makes the archives that are not there yet.
pub(crate) fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let stamp = directory.join("version");
    if std::fs::read_to_string(&stamp).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    println!("making images of Debian packages in {}", directory.display());
    let tags = |tags: [&str; 3]| tags.map(str::to_owned).to_vec();
    let busybox = Image {
        tags: tags(["busybox:1.37", "busybox:1", "busybox:latest"]),
        layers: vec![busybox_layer("/bin/busybox")?],
        config: busybox_config(),
    };
    archive(&directory.join("busybox.tar"), &[busybox])?;
    let nginx = Image {
        tags: tags(["nginx:1.27", "nginx:1.28", "nginx:latest"]),
        layers: vec![nginx_layer()?],
        config: nginx_config(),
    };
    archive(&directory.join("nginx.tar"), &[nginx])?;
    std::fs::write(stamp, VERSION)?;
    Ok(())
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn busybox_config() -> serde_json::Value {
    serde_json::json!({"Cmd": ["sh"]})
}

pub(crate) fn nginx_config() -> serde_json::Value {
    serde_json::json!({
        "Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
    })
}

/// A layer being written; everything in it belongs to root. The directories above a file are made with it.
pub(crate) struct Layer {
    tar: tar::Builder<Vec<u8>>,
    made: BTreeSet<String>,
}

/// A layer's bytes.
pub(crate) struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    /// `bytes`: a tar archive.
    pub(crate) fn new(bytes: Vec<u8>) -> Rc<Blob> {
        Rc::new(Blob { digest: digest(&bytes), bytes })
    }
}

impl Layer {
    pub(crate) fn new() -> Layer {
        Layer { tar: tar::Builder::new(Vec::new()), made: BTreeSet::new() }
    }

    /// With the directories and users that programs expect.
    fn userland() -> Result<Layer> {
        let mut layer = Layer::new();
        for directory in ["bin", "sbin", "dev", "proc", "sys", "root", "home", "usr/bin", "usr/sbin", "var"] {
            layer.directory(directory, 0o755)?;
        }
        layer.directory("tmp", 0o1777)?;
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
        let group = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";
        layer.file("etc/passwd", 0o644, passwd.as_bytes())?;
        layer.file("etc/group", 0o644, group.as_bytes())?;
        Ok(layer)
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        if !self.made.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        let mut header = header(tar::EntryType::Directory, mode, 0);
        Ok(self.tar.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent, 0o755),
            None => Ok(()),
        }
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        let mut header = header(tar::EntryType::Regular, mode, content.len());
        Ok(self.tar.append_data(&mut header, path, content)?)
    }

    pub(crate) fn link(&mut self, of: tar::EntryType, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        let mut header = header(of, 0o755, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    pub(crate) fn done(self) -> Result<Rc<Blob>> {
        Ok(Blob::new(self.tar.into_inner()?))
    }
}

fn header(of: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(of);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Every applet is a hard link: a symbolic one would break masked paths that resolve to it.
pub(crate) fn busybox_layer(program: &str) -> Result<Rc<Blob>> {
    let mut layer = Layer::userland()?;
    layer.file("bin/busybox", 0o755, &std::fs::read(program)?)?;
    for applet in process::output(program, ["--list"])?.lines().filter(|applet| *applet != "busybox") {
        layer.link(tar::EntryType::Link, &format!("bin/{applet}"), "bin/busybox")?;
    }
    layer.done()
}

pub(crate) fn nginx_layer() -> Result<Rc<Blob>> {
    let mut layer = Layer::userland()?;
    layer.file("usr/sbin/nginx", 0o755, &std::fs::read("/usr/sbin/nginx")?)?;
    layer.file("bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)?;
    for applet in ["sh", "cat", "ls", "sleep", "wget"] {
        layer.link(tar::EntryType::Link, &format!("bin/{applet}"), "bin/busybox")?;
    }
    for library in process::output("ldd", ["/usr/sbin/nginx"])?.split_whitespace().filter(|word| word.starts_with('/'))
    {
        let content = std::fs::read(library).with_context(|| format!("cannot read {library}"))?;
        layer.file(library.trim_start_matches('/'), 0o755, &content)?;
    }
    for directory in ["var/log/nginx", "var/lib/nginx", "run"] {
        layer.directory(directory, 0o755)?;
    }
    layer.file("etc/nginx/mime.types", 0o644, &std::fs::read("/etc/nginx/mime.types")?)?;
    layer.file("etc/nginx/nginx.conf", 0o644, NGINX_CONF.as_bytes())?;
    layer.file("usr/share/nginx/html/index.html", 0o644, b"<h1>Welcome to nginx!</h1>\n")?;
    layer.done()
}

const NGINX_CONF: &str = "\
user root;
worker_processes 1;
error_log stderr notice;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include mime.types;
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
    }
}
";

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What an archive holds under its tags; the lowest layer first.
pub(crate) struct Image {
    pub(crate) tags: Vec<String>,
    pub(crate) layers: Vec<Rc<Blob>>,
    /// `Cmd`, `User` and so on, as OCI names them; the usual PATH is set.
    pub(crate) config: serde_json::Value,
}

/// A docker archive (`docker save`); a layer that several images share is in it once.
pub(crate) fn archive(path: &Path, images: &[Image]) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (mut files, mut manifest) = (BTreeMap::new(), Vec::new());
    for Image { tags, layers, config } in images {
        let mut config = config.clone();
        config["Env"] = serde_json::json!([PATH]);
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let history = vec![serde_json::json!({"created_by": "Debian packages"}); layers.len()];
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        }))?;
        let config_name = format!("{}.json", digest(&config));
        let layer_names: Vec<String> = layers.iter().map(|layer| format!("{}.tar", layer.digest)).collect();
        manifest.push(serde_json::json!({"Config": config_name, "RepoTags": tags, "Layers": layer_names}));
        files.insert(config_name, Blob::new(config));
        files.extend(layer_names.into_iter().zip(layers.iter().cloned()));
    }
    files.insert("manifest.json".to_owned(), Blob::new(serde_json::to_vec(&manifest)?));
    let mut archive = tar::Builder::new(File::create(path)?);
    for (name, blob) in files {
        let mut header = header(tar::EntryType::Regular, 0o644, blob.bytes.len());
        archive.append_data(&mut header, name, blob.bytes.as_slice())?;
    }
    Ok(archive.into_inner()?.flush()?)
}
