//! Pulling from docker-registry, and from a server that behaves badly on purpose.

use crate::support::*;
use expect_test::{Expect, expect};
use images::{Auth, Images, Options};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

fn store(dir: &Path) -> Images {
    Images::open(&dir.join("images"), Options { registries_dir: Some(dir.join("registries.d")), ..Options::default() })
        .unwrap()
}

fn hosts(dir: &Path, host: &str, text: &str) {
    let path = dir.join("registries.d").join(host);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("hosts.toml"), text).unwrap();
}

async fn pull(images: &Images, name: &str, auths: &[Auth]) -> Result<images::Image, String> {
    images.pull(name, auths, |_| ()).await.map_err(|e| e.to_string())
}

/// Ports and temporary names differ from run to run.
fn check(words: &str, authority: &str, expected: Expect) {
    expected.assert_eq(&words.replace(authority, "HOST"));
}

/// Debian's docker-registry; ends with the value.
struct Registry {
    child: Child,
    root: TempDir,
    authority: String,
}

impl Registry {
    fn start(auth: bool) -> Registry {
        let root = tempfile::tempdir().unwrap();
        // The port is free again when the registry takes it; nobody else here asks for that one.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let authority = format!("127.0.0.1:{port}");
        let data = root.path().join("data");
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{authority}\"}}\n",
            data.display()
        );
        if auth {
            let path = root.path().join("htpasswd");
            std::fs::write(&path, "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").unwrap();
            config += &format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", path.display());
        }
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
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("listening on")), "docker-registry did not start");
        std::thread::spawn(move || lines.for_each(drop));
        Registry { child, root, authority }
    }

    fn push(&self, made: &Made, name: &str, login: &str) {
        let archive = self.root.path().join("archive.tar");
        std::fs::write(&archive, oci_archive(&[(made, "x:1")])).unwrap();
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        if !login.is_empty() {
            command.args(["--dest-creds", login]);
        }
        command.arg(format!("oci-archive:{}", archive.display())).arg(format!("docker://{}/{name}", self.authority));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hex = &digest["sha256:".len()..];
        self.root.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn images_come_from_a_registry() {
    let registry = Registry::start(false);
    let base = Tar::new().file("base", "b").finish();
    let top = Tar::new().file("top", "t").finish();
    let made = Made::new(&[(&base, gzip), (&top, zstd)]);
    registry.push(&made, "some/app:1", "");
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let name = format!("{}/some/app:1", registry.authority);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let image = images.pull(&name, &[], move |p| heard.lock().unwrap().push(p.clone())).await.unwrap();
    assert_eq!(image.id, made.id());
    assert_eq!(image.repo_tags, [name.as_str()]);
    assert_eq!(image.repo_digests, [format!("{}/some/app@{}", registry.authority, digest(&made.manifest))]);
    assert_eq!(std::fs::read(image.layers[1].join("top")).unwrap(), b"t");
    let done: Vec<_> = told.lock().unwrap().iter().filter(|p| p.done).map(|p| p.layer.clone()).collect();
    assert_eq!(done, [digest(&made.layers[0]), digest(&made.layers[1])]);
    // By digest, and again.
    assert_eq!(pull(&images, &image.repo_digests[0], &[]).await.unwrap().id, image.id);
    assert_eq!(pull(&images, &name, &[]).await.unwrap(), image);
    // Another image on the same base fetches the rest only.
    let other = Made::new(&[(&base, gzip), (&Tar::new().file("other", "o").finish(), gzip)]);
    registry.push(&other, "some/other:1", "");
    std::fs::remove_file(registry.blob(&digest(&made.layers[0]))).unwrap();
    let other = pull(&images, &format!("{}/some/other:1", registry.authority), &[]).await.unwrap();
    assert_eq!(other.layers[0], image.layers[0]);
    // Not there: tag, repository, blob.
    let missing = pull(&images, &format!("{}/some/app:nosuch", registry.authority), &[]).await.unwrap_err();
    check(
        &missing,
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/some/app:nosuch": failed to resolve reference "HOST/some/app:nosuch": HOST/some/app:nosuch: not found"#
        ]],
    );
    let missing = pull(&images, &format!("{}/nosuch", registry.authority), &[]).await.unwrap_err();
    check(
        &missing,
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/nosuch:latest": failed to resolve reference "HOST/nosuch:latest": HOST/nosuch:latest: not found"#
        ]],
    );
    let fresh = tempfile::tempdir().unwrap();
    let error = pull(&store(fresh.path()), &name, &[]).await.unwrap_err();
    check(
        &error,
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/some/app:1": failed to copy: httpReadSeeker: failed open: HOST/some/app:1: not found"#
        ]],
    );
    // A damaged blob is found.
    let evil = gzip(&Tar::new().file("base", "evil").finish());
    std::fs::write(registry.blob(&digest(&made.layers[0])), evil).unwrap();
    let error = pull(&store(fresh.path()), &name, &[]).await.unwrap_err();
    check(
        &error,
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/some/app:1": failed to copy: httpReadSeeker: failed open: blob sha256:154364377c72335c7a2d861f82d9599365ffeb3fb4f30532db9ca7da66c5c36e is larger than the 113 bytes its manifest tells"#
        ]],
    );
    // Nothing is left of the other layer either, which was fine.
    assert_eq!(files(&fresh.path().join("images")), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_pull_waits_for_its_other_layers() {
    let tars = [Tar::new().bytes("small", &[7; 1000]), Tar::new().bytes("big", &vec![7; 300_000])].map(Tar::finish);
    let made = Arc::new(Made::new(&[(&tars[0], plain), (&tars[1], plain)]));
    // The second layer has begun and never ends.
    let (begun, hears) = tokio::sync::watch::channel(false);
    let served = made.clone();
    let registry = serve(move |request| {
        let mut answer = registry_answer(&served, request);
        if request.path.contains(&digest(&served.layers[1])) {
            begun.send_replace(true);
            (answer.cut, answer.stalls) = (Some(100_000), true);
        } else if request.path.contains(&digest(&served.layers[0])) {
            answer.body[600] ^= 1;
            answer.after = Some(hears.clone());
        }
        answer
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let error = pull(&store(dir.path()), &format!("{registry}/a:1"), &[]).await.unwrap_err();
    assert!(error.contains("unexpected commit digest"), "{error}");
    assert_eq!(files(&dir.path().join("images")), Vec::<String>::new());
}

#[tokio::test]
async fn basic_authentication() {
    let registry = Registry::start(true);
    let made = Made::hello("secret");
    registry.push(&made, "private:1", "user:secret");
    let name = format!("{}/private:1", registry.authority);
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let auth = |password: &str| Auth { username: "user".into(), password: password.into(), ..Auth::default() };
    check(
        &pull(&images, &name, &[]).await.unwrap_err(),
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/private:1": failed to resolve reference "HOST/private:1": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"#
        ]],
    );
    check(
        &pull(&images, &name, &[auth("wrong")]).await.unwrap_err(),
        &registry.authority,
        expect![[
            r#"failed to pull and unpack image "HOST/private:1": failed to resolve reference "HOST/private:1": unexpected status from GET request to http://HOST/v2/private/manifests/1: 401 Unauthorized - Server message: unauthorized: authentication required"#
        ]],
    );
    assert_eq!(pull(&images, &name, &[auth("wrong"), auth("secret")]).await.unwrap().id, made.id());
}

#[tokio::test]
async fn token_authentication() {
    let made = Arc::new(Made::hello("token"));
    let token_server = serve(|request| {
        let user = request.header("authorization");
        let good =
            user == "Basic dXNlcjpzZWNyZXQ=" && request.path == "/token?service=reg&scope=repository%3Aa%2Fb%3Apull";
        if good {
            Answer::new(200, r#"{"token":"t0k"}"#)
        } else if user.is_empty() {
            Answer::new(200, r#"{"access_token":"weak"}"#)
        } else {
            Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#)
        }
    })
    .await;
    let (served, realm) = (made.clone(), token_server.clone());
    let registry = serve(move |request| match request.header("authorization") {
        "Bearer t0k" => registry_answer(&served, request),
        other => {
            let error = if other.is_empty() { "" } else { r#",error="insufficient_scope""# };
            let challenge =
                format!(r#"Bearer realm="http://{realm}/token",service="reg",scope="repository:a/b:pull"{error}"#);
            Answer::new(401, "{}").header("www-authenticate", &challenge)
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let name = format!("{registry}/a/b:1");
    let auth = |password: &str| Auth { username: "user".into(), password: password.into(), ..Auth::default() };
    check(
        &pull(&images, &name, &[]).await.unwrap_err(),
        &registry,
        expect![[
            r#"failed to pull and unpack image "HOST/a/b:1": failed to resolve reference "HOST/a/b:1": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#
        ]],
    );
    let words = pull(&images, &name, &[auth("wrong")]).await.unwrap_err().replace(&token_server, "TOKENS");
    check(
        &words,
        &registry,
        expect![[
            r#"failed to pull and unpack image "HOST/a/b:1": failed to resolve reference "HOST/a/b:1": failed to authorize: failed to fetch oauth token: unexpected status from GET request to http://TOKENS/token?service=reg&scope=repository%3Aa%2Fb%3Apull: 401 Unauthorized - Server message: unauthorized: incorrect username or password"#
        ]],
    );
    assert_eq!(pull(&images, &name, &[auth("secret")]).await.unwrap().id, made.id());
}

#[tokio::test]
async fn mirrors_are_asked_first_and_in_order() {
    let made = Arc::new(Made::hello("mirrored"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (served, paths) = (made.clone(), seen.clone());
    let mirror = serve(move |request| {
        paths.lock().unwrap().push(format!("{} {} {}", request.method, request.path, request.header("x-key")));
        registry_answer(&served, request)
    })
    .await;
    let broken = serve(|_| Answer::new(500, r#"{"errors":[{"code":"UNKNOWN","message":"out of order"}]}"#)).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{broken}\"]\n[host.\"http://{mirror}/prefix\"]\noverride_path = true\nheader = {{x-key = \"k\"}}\n"
    );
    hosts(dir.path(), "docker.io", &text);
    let images = store(dir.path());
    // Credentials are not for mirrors: this one would be refused otherwise.
    let auth = Auth { username: "u".into(), password: "p".into(), ..Auth::default() };
    let image = pull(&images, "hello:1", &[auth]).await.unwrap();
    assert_eq!(image.repo_tags, ["docker.io/library/hello:1"]);
    let first = seen.lock().unwrap()[0].clone();
    assert_eq!(first, "HEAD /prefix/library/hello/manifests/1?ns=docker.io k");
    // The file is read at each pull.
    hosts(
        dir.path(),
        "docker.io",
        &format!("[host.\"http://{broken}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{mirror}\"]\n"),
    );
    pull(&images, "hello:2", &[]).await.unwrap();
    hosts(dir.path(), "docker.io", "server = \"http://127.0.0.1:1\"\n");
    let error = images.pull("hello:3", &[], |_| ()).await.unwrap_err();
    assert!(error.is_unreachable());
    check(
        &error.to_string(),
        &mirror,
        expect![[
            r#"failed to pull and unpack image "docker.io/library/hello:3": failed to resolve reference "docker.io/library/hello:3": failed to do request: Head "http://127.0.0.1:1/v2/library/hello/manifests/3?ns=docker.io": dial tcp 127.0.0.1:1: connect: connection refused"#
        ]],
    );
    hosts(dir.path(), "docker.io", &format!("server = \"http://{broken}\"\n"));
    let error = images.pull("hello:3", &[], |_| ()).await.unwrap_err();
    assert!(!error.is_unreachable());
    check(
        &error.to_string(),
        &broken,
        expect![[
            r#"failed to pull and unpack image "docker.io/library/hello:3": failed to resolve reference "docker.io/library/hello:3": unexpected status from GET request to http://HOST/v2/library/hello/manifests/3?ns=docker.io: 500 Internal Server Error - Server message: unknown: out of order"#
        ]],
    );
    hosts(dir.path(), "docker.io", "sevrer = \"x\"\n");
    let error = pull(&images, "hello:3", &[]).await.unwrap_err().replace(dir.path().to_str().unwrap(), "DIR");
    check(
        &error,
        &broken,
        expect![[r#"
        failed to pull and unpack image "docker.io/library/hello:3": DIR/registries.d/docker.io/hosts.toml: TOML parse error at line 1, column 1
          |
        1 | sevrer = "x"
          | ^^^^^^
        unknown field `sevrer`, expected one of `server`, `capabilities`, `ca`, `client`, `skip_verify`, `header`, `override_path`, `dial_timeout`, `host`
    "#]],
    );
    hosts(dir.path(), "gone.invalid", "");
    let error = images.pull("gone.invalid/x", &[], |_| ()).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    let error = pull(&images, "Busy Box:1", &[]).await.unwrap_err();
    check(
        &error,
        "-",
        expect![[
            r#"couldn't parse image name "Busy Box:1": invalid reference format: repository name (library/Busy Box) must be lowercase"#
        ]],
    );
}

#[tokio::test]
async fn an_index_offers_platforms() {
    let made = Made::hello("index");
    let arm = |architecture: &str| serde_json::json!({"os": "linux", "architecture": architecture});
    let mut ours = descriptor("application/vnd.oci.image.manifest.v1+json", &made.manifest);
    ours["platform"] = arm(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"other");
    other["platform"] = arm("s390x");
    let index = |list: &[&serde_json::Value]| {
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": list})).unwrap()
    };
    let (good, bad) = (index(&[&other, &ours]), index(&[&other]));
    let both = serde_json::to_vec(
        &serde_json::json!({"schemaVersion": 2, "manifests": [other], "config": ours, "layers": []}),
    )
    .unwrap();
    let chart = serde_json::json!({"schemaVersion": 2, "layers": [], "config": descriptor("application/vnd.cncf.helm.config.v1+json", b"{}")});
    let chart = serde_json::to_vec(&chart).unwrap();
    let documents =
        [("good", good.clone()), ("bad", bad), ("both", both), ("chart", chart), ("no", b"<html>".to_vec())];
    let registry = serve(move |request| {
        let name = request.path.rsplit('/').next().unwrap();
        match documents.iter().find(|(tag, bytes)| *tag == name || digest(bytes) == name) {
            Some((_, bytes)) => Answer::new(200, bytes.clone()).header("docker-content-digest", &digest(bytes)),
            None => registry_answer(&made, request),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let image = pull(&images, &format!("{registry}/a:good"), &[]).await.unwrap();
    assert_eq!(image.repo_digests, [format!("{registry}/a@{}", digest(&good))]);
    let mut words = String::new();
    for tag in ["bad", "both", "chart", "no"] {
        words += &(pull(&images, &format!("{registry}/a:{tag}"), &[]).await.unwrap_err() + "\n");
    }
    check(
        &words,
        &registry,
        expect![[r#"
        failed to pull and unpack image "HOST/a:bad": no match for platform in manifest: not found
        failed to pull and unpack image "HOST/a:both": unsupported manifest: it is both an index and a manifest
        failed to pull and unpack image "HOST/a:chart": unsupported manifest: media type application/vnd.cncf.helm.config.v1+json
        failed to pull and unpack image "HOST/a:no": malformed manifest: expected value at line 1 column 1
    "#]],
    );
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_again() {
    let made = Arc::new(Made::new(&[(&Tar::new().bytes("big", &vec![7; 300_000]).finish(), plain)]));
    let (asked, served) = (Arc::new(AtomicUsize::new(0)), made.clone());
    let count = asked.clone();
    let registry = serve(move |request| {
        let mut answer = registry_answer(&served, request);
        if request.path.contains(&digest(&served.layers[0])) {
            // Each connection brings a part, and two bring nothing.
            answer.cut = Some(match count.fetch_add(1, Ordering::SeqCst) {
                1 | 2 => 0,
                _ => answer.body.len().min(100_000),
            });
        }
        answer
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let image = pull(&store(dir.path()), &format!("{registry}/a:1"), &[]).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), vec![7; 300_000]);
    assert!(asked.load(Ordering::SeqCst) >= 5);
    // One that never brings anything is given up.
    let served = made.clone();
    let registry = serve(move |request| {
        let mut answer = registry_answer(&served, request);
        if request.path.contains(&digest(&served.layers[0])) {
            answer.cut = Some(10);
        }
        answer.headers.retain(|(name, _)| name != "content-range");
        if request.path.contains("/blobs/") && !request.header("range").is_empty() {
            answer.cut = Some(0);
        }
        answer
    })
    .await;
    let fresh = tempfile::tempdir().unwrap();
    let error = pull(&store(fresh.path()), &format!("{registry}/a:1"), &[]).await.unwrap_err();
    check(
        &error.replace(&digest(&made.layers[0]), "LAYER"),
        &registry,
        expect![[
            r#"failed to pull and unpack image "HOST/a:1": failed to copy: httpReadSeeker: failed open: http://HOST/v2/a/blobs/LAYER: end of file before message length reached"#
        ]],
    );
    assert_eq!(files(&fresh.path().join("images")), Vec::<String>::new());
}

#[tokio::test]
async fn two_who_ask_share_one_pull() {
    let made = Arc::new(Made::hello("shared"));
    let (asked, served) = (Arc::new(AtomicUsize::new(0)), made.clone());
    let count = asked.clone();
    let registry = serve(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        registry_answer(&served, request)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let name = format!("{registry}/a:1");
    let (a, b, c) = futures::join!(pull(&images, &name, &[]), pull(&images, &name, &[]), pull(&images, &name, &[]));
    assert!(a == b && b == c && a.is_ok());
    // HEAD and GET of the manifest, config, layer.
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    // Two names at once, one layer: it is fetched once.
    images.remove(&name).unwrap();
    asked.store(0, Ordering::SeqCst);
    let other = format!("{registry}/b:1");
    let (a, b) = futures::join!(pull(&images, &name, &[]), pull(&images, &other, &[]));
    assert_eq!(a.unwrap().id, b.unwrap().id);
    assert!(asked.load(Ordering::SeqCst) <= 7, "{asked:?}");
    assert_eq!(images.list()[0].repo_tags.len(), 2);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends() {
    let made = Arc::new(Made::new(&[(&Tar::new().bytes("big", &vec![7; 300_000]).finish(), plain)]));
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (stop, served) = (Mutex::new(Some(stop)), made.clone());
    let registry = serve(move |request| {
        if request.path.contains(&digest(&served.layers[0])) {
            // The layer never comes; the one who waits loses patience now.
            if let Some(stop) = stop.lock().unwrap().take() {
                let _ = stop.send(());
            }
            let mut answer = registry_answer(&served, request);
            answer.cut = Some(0);
            return answer;
        }
        registry_answer(&served, request)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path());
    let name = format!("{registry}/a:1");
    let ended = tokio::select! {
        result = pull(&images, &name, &[]) => Some(result),
        _ = stopped => None,
    };
    assert!(ended.is_none_or(|result| result.is_err()));
    drop(images);
    assert_eq!(reopen(&dir.path().join("images")).list(), []);
    assert_eq!(files(&dir.path().join("images")), Vec::<String>::new());
}

#[tokio::test]
async fn a_rate_limit_is_told_in_the_registrys_words() {
    let registry = serve(|_| {
        Answer::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
        )
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let error = pull(&store(dir.path()), &format!("{registry}/a:1"), &[]).await.unwrap_err();
    check(
        &error,
        &registry,
        expect![[
            r#"failed to pull and unpack image "HOST/a:1": failed to resolve reference "HOST/a:1": unexpected status from GET request to http://HOST/v2/a/manifests/1: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit."#
        ]],
    );
}
