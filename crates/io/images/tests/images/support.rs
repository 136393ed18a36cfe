//! Layers, archives and servers made in the test.

use images::{Images, Options};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tar::{Builder, EntryType, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `sha256:HEX`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    digest(bytes)["sha256:".len()..].to_owned()
}

/// A tar in the making; names are written as they are, however hostile.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    pub(crate) fn raw(
        mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        link: &str,
        data: &[u8],
        device: (u32, u32),
    ) -> Tar {
        let mut header = Header::new_gnu();
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if device != (0, 0) {
            header.set_device_major(device.0).unwrap();
            header.set_device_minor(device.1).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Tar {
        self.raw(name, EntryType::Regular, 0o644, "", data.as_bytes(), (0, 0))
    }

    pub(crate) fn bytes(self, name: &str, data: &[u8]) -> Tar {
        self.raw(name, EntryType::Regular, 0o644, "", data, (0, 0))
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Tar {
        self.raw(name, EntryType::Directory, mode, "", b"", (0, 0))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Tar {
        self.raw(name, EntryType::Symlink, 0o777, target, b"", (0, 0))
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Tar {
        self.raw(name, EntryType::Link, 0o644, target, b"", (0, 0))
    }

    pub(crate) fn pax(mut self, pairs: &[(&str, &[u8])]) -> Tar {
        self.0.append_pax_extensions(pairs.iter().copied()).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// How a layer is packed.
pub(crate) type Pack = fn(&[u8]) -> Vec<u8>;

/// An image as blobs.
pub(crate) struct Made {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// As transferred.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Made {
    /// `layers`: uncompressed tars, and how each is packed.
    pub(crate) fn new(layers: &[(&[u8], Pack)]) -> Made {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "Entrypoint": ["/bin/sh", "-c"], "Cmd": null, "Env": ["PATH=/bin", "A=b=c"], "User": "7:8",
                "WorkingDir": "/w", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}, "Labels": {"k": "v"},
                "ExposedPorts": {"80/tcp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let layers: Vec<Vec<u8>> = layers.iter().map(|(tar, pack)| pack(tar)).collect();
        let descriptors: Vec<_> =
            layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": descriptors,
        });
        Made { manifest: serde_json::to_vec(&manifest).unwrap(), config, layers }
    }

    /// One file, `/hello`, in one gzipped layer.
    pub(crate) fn hello(text: &str) -> Made {
        Made::new(&[(&Tar::new().file("hello", text).finish(), gzip)])
    }

    pub(crate) fn id(&self) -> String {
        digest(&self.config)
    }

    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let all = self.layers.iter().chain([&self.config, &self.manifest]);
        all.map(|blob| (digest(blob), blob.clone())).collect()
    }
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// An OCI layout as a tar; each image with the name of its annotation.
pub(crate) fn oci_archive(images: &[(&Made, &str)]) -> Vec<u8> {
    let manifests: Vec<_> = images
        .iter()
        .map(|(made, name)| {
            let mut descriptor = descriptor("application/vnd.oci.image.manifest.v1+json", &made.manifest);
            if !name.is_empty() {
                descriptor["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
            }
            descriptor
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    oci_layout(&index, images.iter().flat_map(|(made, _)| made.blobs()).collect())
}

pub(crate) fn oci_layout(index: &serde_json::Value, blobs: BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    for (digest, blob) in blobs {
        tar = tar.bytes(&digest.replace("sha256:", "blobs/sha256/"), &blob);
    }
    tar.file("index.json", &index.to_string()).finish()
}

/// As `docker save` wrote it until version 24: layers first, `manifest.json` last.
pub(crate) fn docker_archive(tags: &[&str], config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut names = Vec::new();
    for layer in layers {
        let name = format!("{}/layer.tar", hex(layer));
        tar = tar.bytes(&name, layer);
        names.push(name);
    }
    let config_name = format!("{}.json", hex(config));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    // The name is longer than an old header takes together with nothing else: it fits.
    tar.bytes(&config_name, config).file("manifest.json", &manifest.to_string()).finish()
}

pub(crate) fn open(dir: &Path) -> Images {
    Images::open(dir, Options::default()).unwrap()
}

/// Opens a store that may still be at work in the background: its lock goes when it is done.
pub(crate) fn reopen(dir: &Path) -> Images {
    let lock = std::fs::File::open(dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(lock);
    open(dir)
}

pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// What is below `dir`, without what is always there.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for sub in ["blobs/sha256", "layers", "tmp"] {
        for entry in std::fs::read_dir(dir.join(sub)).unwrap() {
            all.push(format!("{sub}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    all.sort();
    all
}

/// A request as the little server sees it.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// `name: value`, names in lower case.
    pub(crate) headers: Vec<String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
    }
}

/// Status, headers, body; `cut`: so many bytes of the body are sent, then the connection is closed.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) cut: Option<usize>,
    /// After a cut the connection stays open until the client closes it.
    pub(crate) stalls: bool,
    /// The answer is sent once this is true.
    pub(crate) after: Option<tokio::sync::watch::Receiver<bool>>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), cut: None, stalls: false, after: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A server on loopback that answers with `respond`; ends with the test's runtime. Returns its authority.
pub(crate) async fn serve(respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let respond = std::sync::Arc::new(respond);
    tokio::task::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let respond = respond.clone();
            tokio::task::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let mut lines = head.lines();
                let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
                let (method, path) = (first.next().unwrap(), first.next().unwrap());
                let headers = lines
                    .filter_map(|line| line.split_once(": ").map(|(k, v)| format!("{}: {v}", k.to_lowercase())))
                    .collect();
                let request = Request { method, path, headers };
                let mut answer = respond(&request);
                if let Some(after) = &mut answer.after {
                    after.wait_for(|now| *now).await.unwrap();
                }
                let mut out = format!(
                    "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
                    answer.status,
                    answer.body.len()
                );
                for (name, value) in &answer.headers {
                    out += &format!("{name}: {value}\r\n");
                }
                let mut out = (out + "\r\n").into_bytes();
                if request.method != "HEAD" {
                    out.extend_from_slice(&answer.body[..answer.cut.unwrap_or(answer.body.len())]);
                }
                let _ = stream.write_all(&out).await;
                if answer.stalls {
                    let _ = stream.read_u8().await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    authority
}

/// A registry's answers for `made` under any repository and tag.
pub(crate) fn registry_answer(made: &Made, request: &Request) -> Answer {
    let name = request.path.split('?').next().unwrap().rsplit('/').next().unwrap();
    if request.path.contains("/manifests/") {
        if name == "nosuch" {
            return Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
        }
        return Answer::new(200, made.manifest.clone()).header("docker-content-digest", &digest(&made.manifest));
    }
    match made.blobs().remove(name) {
        None => Answer::new(404, ""),
        Some(blob) => match request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')) {
            Some(from) => {
                let from: usize = from.parse().unwrap();
                Answer::new(206, blob[from..].to_vec())
            }
            None => Answer::new(200, blob),
        },
    }
}
