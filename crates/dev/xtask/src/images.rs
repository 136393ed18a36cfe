//! Images for tests and demo, made of what Debian packages installed, as docker archives.

use crate::process;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Changing what is made here must change this, so that old archives are made anew.
const VERSION: &str = "1";

/// Makes the archives that are not there yet.
pub(crate) fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let stamp = directory.join("version");
    if std::fs::read_to_string(&stamp).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    println!("making images of Debian packages in {}", directory.display());
    let busybox = busybox_layer()?;
    let config = serde_json::json!({"Cmd": ["sh"], "Env": [PATH]});
    archive(&directory.join("busybox.tar"), &["busybox:1.37", "busybox:1", "busybox:latest"], &busybox, &config)?;
    let nginx = nginx_layer()?;
    let config = serde_json::json!({
        "Cmd": ["nginx", "-g", "daemon off;"], "Env": [PATH], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
    });
    archive(&directory.join("nginx.tar"), &["nginx:1.27", "nginx:1.28", "nginx:latest"], &nginx, &config)?;
    std::fs::write(stamp, VERSION)?;
    Ok(())
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Layer = tar::Builder<Vec<u8>>;

fn layer() -> Result<Layer> {
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "sbin", "etc", "dev", "proc", "sys", "root", "home", "usr", "usr/bin", "usr/sbin", "var"] {
        add_directory(&mut layer, directory, 0o755)?;
    }
    add_directory(&mut layer, "tmp", 0o1777)?;
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    let group = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";
    add_file(&mut layer, "etc/passwd", 0o644, passwd.as_bytes())?;
    add_file(&mut layer, "etc/group", 0o644, group.as_bytes())?;
    Ok(layer)
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

fn add_directory(layer: &mut Layer, path: &str, mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0);
    Ok(layer.append_data(&mut header, format!("{path}/"), std::io::empty())?)
}

fn add_file(layer: &mut Layer, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len());
    Ok(layer.append_data(&mut header, path, content)?)
}

/// Every applet is a hard link: a symbolic one would break masked paths that resolve to it.
fn busybox_layer() -> Result<Vec<u8>> {
    let mut layer = layer()?;
    add_file(&mut layer, "bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)?;
    for applet in process::output("/bin/busybox", ["--list"])?.lines().filter(|applet| *applet != "busybox") {
        let mut header = header(tar::EntryType::Link, 0o755, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "bin/busybox")?;
    }
    Ok(layer.into_inner()?)
}

fn nginx_layer() -> Result<Vec<u8>> {
    let mut layer = layer()?;
    add_file(&mut layer, "usr/sbin/nginx", 0o755, &std::fs::read("/usr/sbin/nginx")?)?;
    add_file(&mut layer, "bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)?;
    for applet in ["sh", "cat", "ls", "sleep", "wget"] {
        let mut header = header(tar::EntryType::Link, 0o755, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "bin/busybox")?;
    }
    let mut made = BTreeSet::new();
    for library in process::output("ldd", ["/usr/sbin/nginx"])?.split_whitespace().filter(|word| word.starts_with('/'))
    {
        let path = library.trim_start_matches('/');
        let mut parents = Vec::new();
        let mut parent = Path::new(path).parent();
        while let Some(directory) = parent.filter(|directory| !directory.as_os_str().is_empty()) {
            parents.push(directory.to_string_lossy().into_owned());
            parent = directory.parent();
        }
        for directory in parents.into_iter().rev() {
            if made.insert(directory.clone()) && directory != "usr" {
                add_directory(&mut layer, &directory, 0o755)?;
            }
        }
        let content = std::fs::read(library).with_context(|| format!("cannot read {library}"))?;
        add_file(&mut layer, path, 0o755, &content)?;
    }
    for directory in [
        "etc/nginx",
        "usr/share",
        "usr/share/nginx",
        "usr/share/nginx/html",
        "var/log",
        "var/log/nginx",
        "var/lib",
        "var/lib/nginx",
        "run",
    ] {
        add_directory(&mut layer, directory, 0o755)?;
    }
    add_file(&mut layer, "etc/nginx/mime.types", 0o644, &std::fs::read("/etc/nginx/mime.types")?)?;
    add_file(&mut layer, "etc/nginx/nginx.conf", 0o644, NGINX_CONF.as_bytes())?;
    add_file(&mut layer, "usr/share/nginx/html/index.html", 0o644, b"<h1>Welcome to nginx!</h1>\n")?;
    Ok(layer.into_inner()?)
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

/// A docker archive (`docker save`) of one layer.
fn archive(path: &Path, tags: &[&str], layer: &[u8], config: &serde_json::Value) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(layer))]},
        "history": [{"created_by": "Debian packages"}],
    });
    let config = serde_json::to_vec(&config)?;
    let (layer_name, config_name) = (format!("{}.tar", digest(layer)), format!("{}.json", digest(&config)));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": tags, "Layers": [layer_name]}]);
    let mut archive = tar::Builder::new(File::create(path)?);
    for (name, content) in
        [(layer_name.as_str(), layer), (&config_name, &config), ("manifest.json", manifest.to_string().as_bytes())]
    {
        let mut header = header(tar::EntryType::Regular, 0o644, content.len());
        archive.append_data(&mut header, name, content)?;
    }
    Ok(archive.into_inner()?.flush()?)
}
