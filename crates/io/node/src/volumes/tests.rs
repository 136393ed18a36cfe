//! On the real kernel, in mount namespaces of their own. Needs root.
#![allow(clippy::unwrap_used)]

use super::objects::TokenKey;
use super::*;
use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Mutex;

/// What the API server would say.
#[derive(Default)]
struct Fake(Mutex<State>);

#[derive(Default)]
struct State {
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
    tokens_asked: Vec<TokenKey>,
    token_error: Option<String>,
}

#[async_trait]
impl Objects for Fake {
    async fn config_map(&self, _: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.0.lock().unwrap().config_maps.get(name).cloned().map(Arc::new).ok_or(ObjectError::NotFound)
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.0.lock().unwrap().secrets.get(name).cloned().map(Arc::new).ok_or(ObjectError::NotFound)
    }

    async fn token(&self, key: &TokenKey) -> Result<Token, ObjectError> {
        let mut state = self.0.lock().unwrap();
        state.tokens_asked.push(key.clone());
        match &state.token_error {
            Some(words) => Err(ObjectError::Failed(words.clone())),
            None => Ok(Token { token: format!("token{}", state.tokens_asked.len()), lifetime_seconds: 1000 }),
        }
    }
}

struct Node {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    volumes: Volumes,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let volumes = Volumes::with_objects(dir.path(), fake.clone())
            .allocatable(BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]));
        Node { dir, fake, volumes }
    }

    fn config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        self.fake.0.lock().unwrap().config_maps.insert(name.to_owned(), map);
    }

    fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        self.fake.0.lock().unwrap().secrets.insert(name.to_owned(), secret);
    }

    fn volume(&self, of: &str, name: &str) -> PathBuf {
        self.dir.path().join("pods/u1/volumes").join(format!("kubernetes.io~{of}")).join(name)
    }

    fn left(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("pods")).map_or(0, Iterator::count)
    }
}

/// A Pod of one container `c` that mounts `mounts`.
fn pod(volumes: Value, mounts: Value, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u1", "labels": {"b": "2", "a": "1\"x"}},
        "spec": {
            "serviceAccountName": "sa",
            "volumes": volumes,
            "containers": [{"name": "c", "volumeMounts": mounts, "resources": {"limits": {"cpu": "1500m"}}}],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn mode(path: &Path) -> String {
    let meta = path.symlink_metadata().unwrap();
    format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| e.to_string())
}

/// Runs a test in a mount namespace of its own, all of whose threads share it.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        #[allow(deprecated)] // the safe form; the threads that see it are made below
        rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

async fn error(node: &Node, volumes: Value) -> String {
    node.volumes
        .prepare(&pod(volumes, json!([]), json!({})))
        .await
        .map_or_else(|e| format!("{} {}", e.reason, e.message), |()| "ok".into())
}

#[test]
fn files_from_objects() {
    isolated(|| async {
        let node = Node::new();
        node.config_map("m", &[("a", "1"), ("b.txt", "2")]);
        node.secret("s", &[("password", "x")]);
        let pod = pod(
            json!([
                {"name": "all", "configMap": {"name": "m", "defaultMode": 0o640}},
                {"name": "some", "configMap": {"name": "m", "defaultMode": 0o644, "items": [{"key": "a", "path": "deep/er/x", "mode": 0o600}]}},
                {"name": "none", "configMap": {"name": "nosuch", "optional": true}},
                {"name": "sec", "secret": {"secretName": "s", "defaultMode": 0o400}},
                {"name": "down", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
                    {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
                ]}},
                {"name": "kube-api-access", "projected": {"defaultMode": 0o644, "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]}},
            ]),
            json!([{"name": "sec", "mountPath": "/s"}, {"name": "kube-api-access", "mountPath": "/var/run/secrets", "subPath": "token"}]),
            json!({}),
        );
        node.volumes.prepare(&pod).await.unwrap();
        node.volumes.prepare(&pod).await.unwrap();
        let all = node.volume("configmap", "all");
        assert_eq!((read(&all.join("a")), read(&all.join("b.txt"))), ("1".into(), "2".into()));
        assert_eq!(std::fs::read_link(all.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(mode(&all.join("..data/a")), "640 0:0");
        let some = node.volume("configmap", "some");
        assert_eq!(std::fs::read_link(some.join("deep")).unwrap(), Path::new("..data/deep"));
        assert_eq!((read(&some.join("deep/er/x")), mode(&some.join("deep/er/x"))), ("1".into(), "600 0:0".into()));
        assert!(!some.join("a").exists());
        assert_eq!(std::fs::read_dir(node.volume("configmap", "none")).unwrap().count(), 2);
        let secret = node.volume("secret", "sec");
        assert!(mounted::is_mount_point(&secret).unwrap() && !mounted::is_mount_point(&all).unwrap());
        assert_eq!(
            (read(&secret.join("password")), mode(&secret.join("..data/password"))),
            ("x".into(), "400 0:0".into())
        );
        let down = node.volume("downward-api", "down");
        assert_eq!(read(&down.join("labels")), "a=\"1\\\"x\"\nb=\"2\"");
        assert_eq!((read(&down.join("cpu")), read(&down.join("memory"))), ("2".into(), "1024".into()));
        let access = node.volume("projected", "kube-api-access");
        assert_eq!(read(&access.join("token")), "token1");
        assert_eq!((read(&access.join("ca.crt")), read(&access.join("namespace"))), ("1".into(), "n".into()));
        let asked = node.fake.0.lock().unwrap().tokens_asked.clone();
        assert_eq!(asked.len(), 1, "asked for once");
        assert_eq!(
            (asked[0].service_account.as_str(), asked[0].expiration_seconds, asked[0].pod_uid.as_str()),
            ("sa", 3607, "u1")
        );

        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = node.volumes.mounts(&pod, container, &[]).await.unwrap();
        assert_eq!((mounts[0].host_path.clone(), mounts[0].readonly), (secret, true));
        assert_eq!(read(&mounts[1].host_path), "token1");
        node.volumes.tear_down("u1").await.unwrap();
        node.volumes.tear_down("u1").await.unwrap();
        assert_eq!(node.left(), 0);
    });
}

#[test]
fn changes_reach_the_files_at_once_and_whole() {
    isolated(|| async {
        let node = Node::new();
        node.config_map("m", &[("a", "1"), ("b", "1")]);
        let pod = pod(
            json!([{"name": "v", "configMap": {"name": "m"}}]),
            json!([]),
            json!({"securityContext": {"fsGroup": 77}}),
        );
        node.volumes.prepare(&pod).await.unwrap();
        let volume = node.volume("configmap", "v");
        let first = std::fs::read_link(volume.join("..data")).unwrap();
        assert!(node.volumes.update(&pod).await.1.is_empty());
        assert_eq!(std::fs::read_link(volume.join("..data")).unwrap(), first, "nothing changed");
        assert_eq!((mode(&volume), mode(&volume.join("..data/a"))), ("2777 0:77".into(), "644 0:77".into()));
        // A reader that holds the old directory sees old files only.
        node.config_map("m", &[("a", "2"), ("c", "2")]);
        assert_eq!(node.volumes.update(&pod).await, (None, Vec::new()));
        assert_ne!(std::fs::read_link(volume.join("..data")).unwrap(), first);
        assert_eq!((read(&volume.join("a")), read(&volume.join("c"))), ("2".into(), "2".into()));
        assert!(volume.join("b").symlink_metadata().is_err() && !volume.join(&first).exists());
        // Gone from the API: the files stay, and the problem is told.
        node.fake.0.lock().unwrap().config_maps.clear();
        let problems = node.volumes.update(&pod).await.1;
        assert_eq!(problems[0].message, "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found");
        assert_eq!(read(&volume.join("a")), "2");
    });
}

#[test]
fn what_fails_is_told_in_upstreams_words() {
    isolated(|| async {
        let node = Node::new();
        node.config_map("m", &[("a", "1")]);
        node.secret("s", &[("a", "1")]);
        node.fake.0.lock().unwrap().token_error = Some("serviceaccounts \"sa\" is forbidden".into());
        let file = node.dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let dir = node.dir.path().display().to_string();
        let host = |path: &str, kind: &str| json!([{"name": "v", "hostPath": {"path": path, "type": kind}}]);
        for (volumes, words) in [
            (json!([{"name": "v", "configMap": {"name": "x"}}]), "configmap \"x\" not found"),
            (
                json!([{"name": "v", "configMap": {"name": "m", "items": [{"key": "zzz", "path": "p"}]}}]),
                "configmap references non-existent config key: zzz",
            ),
            (json!([{"name": "v", "secret": {"secretName": "x"}}]), "secret \"x\" not found"),
            (
                json!([{"name": "v", "secret": {"secretName": "s", "items": [{"key": "zzz", "path": "p"}]}}]),
                "references non-existent secret key: zzz",
            ),
            (json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}]}}]), "secret \"x\" not found"),
            (
                json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "x"}}, {"configMap": {"name": "x"}}]}}]),
                "[failed to fetch token: serviceaccounts \"sa\" is forbidden, configmap \"x\" not found]",
            ),
            (
                host("/no/such/file", "File"),
                "hostPath type check failed, /no/such/file is not a file, unable to determine its type: path \"/no/such/file\" does not exist",
            ),
            (
                host("/etc/passwd", "Directory"),
                "hostPath type check failed: /etc/passwd is not a directory, it's a File",
            ),
            (
                host("/etc/passwd", "DirectoryOrCreate"),
                "hostPath type check failed: /etc/passwd is not a directory, it's a File",
            ),
            (host("/tmp", "File"), "hostPath type check failed: /tmp is not a file, it's a Directory"),
            (host("/tmp", "Socket"), "hostPath type check failed: /tmp is not a socket file, it's a Directory"),
            (
                host("/dev/null", "BlockDevice"),
                "hostPath type check failed: /dev/null is not a block device, it's a CharDevice",
            ),
            (host("/no/such/file", "FileOrCreate"), "open /no/such/file: no such file or directory"),
            (host("/etc", "Odd"), "Odd is an invalid volume type"),
            (
                json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]),
                "volumes of type nfs are not supported by minke yet",
            ),
            (
                json!([{"name": "v", "gitRepo": {"repository": "r"}}]),
                "volumes of type gitRepo were removed from Kubernetes; use an init container that clones into an emptyDir",
            ),
            (json!([{"name": "v", "emptyDir": {"medium": "Odd"}}]), "unknown storage medium \"Odd\""),
            (
                json!([{"name": "v", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]}}]),
                "unsupported fieldPath: status.podIP",
            ),
        ] {
            assert_eq!(
                error(&node, volumes).await,
                format!("FailedMount MountVolume.SetUp failed for volume \"v\" : {words}")
            );
        }
        for (path, kind) in
            [("/dev/null", "CharDevice"), ("/etc", "Directory"), ("/etc/passwd", "FileOrCreate"), ("/no/such", "")]
        {
            assert_eq!(error(&node, host(path, kind)).await, "ok", "{path} {kind}");
        }
        assert_eq!(error(&node, host(&format!("{dir}/new/er"), "DirectoryOrCreate")).await, "ok");
        assert_eq!(error(&node, host(&format!("{dir}/new/file"), "FileOrCreate")).await, "ok");
        assert_eq!(
            (mode(Path::new(&format!("{dir}/new/er"))), mode(Path::new(&format!("{dir}/new/file")))),
            ("755 0:0".into(), "644 0:0".into())
        );
    });
}

#[test]
fn empty_directories() {
    isolated(|| async {
        let node = Node::new();
        let pod = pod(
            json!([
                {"name": "disk", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ]),
            json!([{"name": "disk", "mountPath": "/d", "mountPropagation": "HostToContainer"}, {"name": "memory", "mountPath": "/m", "readOnly": true, "recursiveReadOnly": "Enabled"}]),
            json!({"securityContext": {"fsGroup": 77}}),
        );
        node.volumes.prepare(&pod).await.unwrap();
        let (disk, memory) = (node.volume("empty-dir", "disk"), node.volume("empty-dir", "memory"));
        assert_eq!((mode(&disk), mode(&memory)), ("2777 0:77".into(), "3777 0:77".into()));
        let size = rustix::fs::statvfs(&memory).unwrap();
        assert_eq!(size.f_blocks * size.f_frsize, 1 << 20);
        assert!(std::fs::write(memory.join("big"), vec![0; 2 << 20]).is_err());
        // What containers did stays when the node looks again.
        std::fs::write(disk.join("mine"), "x").unwrap();
        std::fs::set_permissions(&disk, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        node.volumes.prepare(&pod).await.unwrap();
        assert_eq!((read(&disk.join("mine")), mode(&disk)), ("x".into(), "700 0:77".into()));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = node.volumes.mounts(&pod, container, &[]).await.unwrap();
        assert_eq!((mounts[0].propagation, mounts[0].readonly), (Propagation::HostToContainer, false));
        assert_eq!((mounts[1].readonly, mounts[1].recursive_readonly), (true, true));
        node.volumes.tear_down("u1").await.unwrap();
        assert_eq!(node.left(), 0);
    });
}

#[test]
fn sub_paths_stay_in_their_volume() {
    isolated(|| async {
        let node = Node::new();
        let outside = node.dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let mount = |sub_path: &str| json!([{"name": "v", "mountPath": "/x", "subPath": sub_path}]);
        let volumes = json!([{"name": "v", "emptyDir": {}}]);
        let at = |mounts: Value| pod(volumes.clone(), mounts, json!({}));
        let probe = |pod: Pod, env: Vec<(String, String)>| {
            let volumes = &node.volumes;
            async move {
                volumes.prepare(&pod).await.unwrap();
                volumes
                    .mounts(&pod, &pod.spec.as_ref().unwrap().containers[0], &env)
                    .await
                    .map(|mut mounts| mounts.remove(0).host_path)
            }
        };
        let made = probe(at(mount("a/b")), vec![]).await.unwrap();
        let volume = node.volume("empty-dir", "v");
        assert_eq!(mode(&volume.join("a/b")), "777 0:0");
        std::fs::write(volume.join("a/b/file"), "x").unwrap();
        assert_eq!(read(&made.join("file")), "x");
        // A file, and again: the earlier bind is replaced.
        let file = probe(at(mount("a/b/file")), vec![]).await.unwrap();
        assert_eq!((file.clone(), read(&file)), (made, "x".into()));
        symlink("a/b", volume.join("inside")).unwrap();
        assert_eq!(read(&probe(at(mount("inside")), vec![]).await.unwrap().join("file")), "x");
        let expression = json!([{"name": "v", "mountPath": "/x", "subPathExpr": "$(POD)/log"}]);
        let env = vec![("POD".to_owned(), "p1".to_owned())];
        probe(at(expression.clone()), env).await.unwrap();
        assert!(volume.join("p1/log").is_dir());
        assert_eq!(probe(at(expression), vec![]).await, Err("missing value for POD".into()));
        // Out of it: by name, by link, by a link on the way, by a link to be made through.
        assert_eq!(
            probe(at(mount("/etc")), vec![]).await,
            Err("error SubPath `/etc` must not be an absolute path".into())
        );
        assert_eq!(
            probe(at(mount("a/../../x")), vec![]).await,
            Err("unable to provision SubPath `a/../../x`: must not contain '..'".into())
        );
        symlink(&outside, volume.join("absolute")).unwrap();
        symlink("../../../../../outside", volume.join("relative")).unwrap();
        symlink(outside.join("new"), volume.join("dangling")).unwrap();
        for sub_path in ["absolute", "relative", "absolute/x", "relative/new", "dangling", "dangling/x"] {
            let words = "failed to prepare subPath for volumeMount \"v\" of container \"c\"";
            assert_eq!(probe(at(mount(sub_path)), vec![]).await, Err(words.to_owned()), "{sub_path}");
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let unknown = json!([{"name": "w", "mountPath": "/x"}]);
        assert_eq!(
            probe(at(unknown), vec![]).await,
            Err("cannot find volume \"w\" to mount into container \"c\"".into())
        );
        // Nothing outside goes with the Pod.
        std::fs::write(outside.join("kept"), "x").unwrap();
        node.volumes.tear_down("u1").await.unwrap();
        assert_eq!((node.left(), read(&outside.join("kept"))), (0, "x".into()));
    });
}
