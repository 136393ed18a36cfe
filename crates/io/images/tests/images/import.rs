//! Archives: kinds, names, digests, several in one; what stays and what goes.

use crate::support::*;
use expect_test::expect;
use images::{Images, ImportError, Options};

#[tokio::test]
async fn every_kind_of_archive_is_read() {
    let layer = Tar::new().file("hello", "hi").finish();
    let made = Made::new(&[(&layer, gzip)]);
    let oci = oci_archive(&[(&made, "docker.io/library/a:1")]);
    let docker = docker_archive(&["a:1"], &made.config, &[&layer]);
    for (kind, bytes) in [
        ("oci", oci.clone()),
        ("oci gzip", gzip(&oci)),
        ("oci zstd", zstd(&oci)),
        ("docker", docker.clone()),
        ("docker gzip", gzip(&docker)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let imported = images.import(&bytes[..]).await.unwrap();
        assert_eq!(imported.len(), 1, "{kind}");
        let image = images.resolve("a:1").unwrap();
        assert_eq!(image, imported[0], "{kind}");
        assert_eq!(image.id, made.id(), "{kind}");
        assert_eq!(image.repo_tags, ["docker.io/library/a:1"], "{kind}");
        assert_eq!(std::fs::read(image.layers[0].join("hello")).unwrap(), b"hi", "{kind}");
        let config = &image.config;
        assert_eq!(config.entrypoint, ["/bin/sh", "-c"]);
        assert_eq!(config.env, [("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())]);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str(), config.stop_signal.as_str()),
            ("7:8", "/w", "SIGQUIT")
        );
        assert_eq!((&config.volumes[..], config.labels["k"].as_str()), (&["/data".to_owned()][..], "v"));
        // The same from a file, and it is still one image.
        let path = dir.path().join("archive");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(images.import_file(&path).await.unwrap(), imported, "{kind}");
        assert_eq!(images.list().len(), 1, "{kind}");
        assert!(!files(dir.path()).iter().any(|file| file.starts_with("tmp")), "{kind}");
    }
}

#[tokio::test]
async fn several_images_share_layers_and_names_move() {
    let base = Tar::new().file("base", "b").finish();
    let (one, two) = (Tar::new().file("one", "1").finish(), Tar::new().file("two", "2").finish());
    let (first, second) = (Made::new(&[(&base, gzip), (&one, zstd)]), Made::new(&[(&base, gzip), (&two, plain)]));
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let archive = oci_archive(&[(&first, "x.example/first:1"), (&second, "second:1"), (&second, "second:2")]);
    assert_eq!(images.import(&archive[..]).await.unwrap().len(), 2);
    let (a, b) = (images.resolve("x.example/first:1").unwrap(), images.resolve("second:2").unwrap());
    assert_eq!(a.layers[0], b.layers[0]);
    assert_ne!(a.layers[1], b.layers[1]);
    assert_eq!(b.repo_tags, ["docker.io/library/second:1", "docker.io/library/second:2"]);
    // Every way to name it.
    let by_digest = format!("second@{}", digest(&second.manifest));
    for name in ["second:1", "docker.io/library/second:2", &by_digest, &b.id, &b.id[7..], &b.id[7..19]] {
        assert_eq!(images.resolve(name).as_ref(), Some(&b), "{name}");
    }
    for name in ["second", "second:3", "zz", "Busy Box", "sha256:00", ""] {
        assert_eq!(images.resolve(name), None, "{name}");
    }
    // The name goes to another image; the old one stays without it.
    images.import(&oci_archive(&[(&first, "second:1")])[..]).await.unwrap();
    assert_eq!(images.resolve("second:1").unwrap().id, first.id());
    assert_eq!(images.resolve(&second.id()).unwrap().repo_tags, ["docker.io/library/second:2"]);
    // Removing one keeps what the other needs, and nothing else.
    images.remove("second:2").unwrap();
    assert!(images.resolve(&second.id()).is_none());
    assert!(a.layers.iter().all(|layer| layer.is_dir()));
    images.remove("second:1").unwrap();
    drop(images);
    drop(reopen(dir.path()));
    assert_eq!(files(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = Made::hello("used");
    let image = images.import(&oci_archive(&[(&made, "a:1")])[..]).await.unwrap().remove(0);
    let lease = images.lease(&image.id).unwrap();
    assert_eq!(images.prune(|_| false).unwrap(), []);
    images.remove("a:1").unwrap();
    assert_eq!(images.list(), []);
    assert!(images.resolve(&image.id).is_none() && image.layers[0].is_dir());
    assert!(matches!(images.remove("a:1"), Err(images::RemoveError::NotFound(_))));
    // As a crash would leave it now: the lease is taken again before the rest is collected, or nobody wants it.
    let crashed = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for copy in &crashed {
        let status = std::process::Command::new("cp").arg("-aT").args([dir.path(), copy.path()]).status().unwrap();
        assert!(status.success());
    }
    drop(lease);
    drop(images);
    assert_eq!(reopen(dir.path()).list(), []);
    assert_eq!(files(dir.path()), Vec::<String>::new());

    let images = open(crashed[0].path());
    let lease = images.lease(&image.id).unwrap();
    images.collect().unwrap();
    let layer = crashed[0].path().join("layers").join(image.layers[0].file_name().unwrap());
    assert!(layer.join("hello").is_file());
    drop((lease, images));
    drop(reopen(crashed[0].path()));
    assert_eq!(files(crashed[0].path()), Vec::<String>::new());

    let images = open(crashed[1].path());
    images.collect().unwrap();
    assert_eq!(images.lease(&image.id).map(|_| ()), None);
    drop(images);
    drop(reopen(crashed[1].path()));
    assert_eq!(files(crashed[1].path()), Vec::<String>::new());
}

#[tokio::test]
async fn bad_archives_say_what_is_wrong_and_leave_nothing() {
    let layer = Tar::new().file("hello", "hi").finish();
    let made = Made::new(&[(&layer, gzip)]);
    let mut wrong_layer = made.blobs();
    wrong_layer.insert(digest(&made.layers[0]), gzip(&Tar::new().file("hello", "evil").finish()));
    let mut wrong_config = made.blobs();
    wrong_config.insert(made.id(), b"{}".to_vec());
    let mut no_layer = made.blobs();
    no_layer.remove(&digest(&made.layers[0]));
    let index =
        serde_json::json!({"manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &made.manifest)]});
    let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"x");
    other["platform"] = serde_json::json!({"os": "plan9", "architecture": "vax"});
    let platforms = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [other]})).unwrap();
    let top = serde_json::json!({"manifests": [descriptor("application/vnd.oci.image.index.v1+json", &platforms)]});
    let mut lying = Tar::new().bytes(&format!("{}.json", hex(b"other")), &made.config);
    lying =
        lying.file("manifest.json", &format!(r#"[{{"Config":"{}.json","RepoTags":null,"Layers":[]}}]"#, hex(b"other")));
    let wrong_diff = docker_archive(&["a:1"], &made.config, &[&Tar::new().file("hello", "evil").finish()]);
    let bad_name = docker_archive(&["Bad Name"], &made.config, &[&layer]);
    let mut words = String::new();
    for bytes in [
        oci_layout(&index, wrong_layer),
        oci_layout(&index, wrong_config),
        oci_layout(&index, no_layer),
        oci_layout(&top, [(digest(&platforms), platforms.clone())].into()),
        lying.finish(),
        wrong_diff,
        bad_name,
        Tar::new().file("a", "b").finish(),
        b"BZh91AY&SY".to_vec(),
        b"hello".to_vec(),
        Vec::new(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let error = images.import(&bytes[..]).await.unwrap_err();
        words += &format!("{error}\n");
        assert_eq!(images.list(), []);
        drop(images);
        drop(open(dir.path()));
        assert_eq!(files(dir.path()), Vec::<String>::new(), "{error}");
    }
    expect![[r#"
        blobs/sha256/3c62a2bda5fdaffabd77524e945d74803d9025a5b5e0d22fc837e942804c00f7 of the archive: failed commit on ref "layer-sha256:3c62a2bda5fdaffabd77524e945d74803d9025a5b5e0d22fc837e942804c00f7": unexpected commit digest sha256:af194426322b957bd60ea9eb7bd1c3a7adb8b6d1fe8ec62b6371bb9b3e3cf9e9, expected sha256:3c62a2bda5fdaffabd77524e945d74803d9025a5b5e0d22fc837e942804c00f7: failed precondition
        blobs/sha256/cb2e870e4ddb7d1f7f2aa10df1244953e9fbbc7dce6d7d58c660925a3d474e0e of the archive has digest sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, expected sha256:cb2e870e4ddb7d1f7f2aa10df1244953e9fbbc7dce6d7d58c660925a3d474e0e
        blobs/sha256/3c62a2bda5fdaffabd77524e945d74803d9025a5b5e0d22fc837e942804c00f7 is not in the archive
        index.json of the archive: no match for platform in manifest: not found
        d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa.json of the archive has digest sha256:cb2e870e4ddb7d1f7f2aa10df1244953e9fbbc7dce6d7d58c660925a3d474e0e, expected sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa
        aff0714f824fc0a477041779a562c66051efcf9d1e1fc999d339d151bd8d24c1/layer.tar of the archive: failed to extract layer sha256:0f21a03a204cf98a33bf8dab56000847fccffa0e2e183539ff708bcc8b2d790c: wrong diff id calculated on extraction sha256:aff0714f824fc0a477041779a562c66051efcf9d1e1fc999d339d151bd8d24c1
        manifest.json of the archive: couldn't parse image name "Bad Name": invalid reference format: repository name (library/Bad Name) must be lowercase
        not an image archive: neither index.json nor manifest.json in it
        not an image archive: compression bzip2 is not supported
        not an image archive: failed to read entire block
        not an image archive: it is empty
    "#]].assert_eq(&words);
    let images = open(tempfile::tempdir().unwrap().path());
    assert!(matches!(images.import_file("/no/such".as_ref()).await, Err(ImportError::Open { .. })));
}

#[tokio::test]
async fn a_store_survives_and_forgets_what_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, broken) = (Made::hello("kept"), Made::hello("broken"));
    let images = open(dir.path());
    images.import(&oci_archive(&[(&kept, "kept:1"), (&broken, "broken:1")])[..]).await.unwrap();
    let image = images.resolve("kept:1").unwrap();
    let gone = images.resolve("broken:1").unwrap().layers[0].clone();
    assert!(matches!(Images::open(dir.path(), Options::default()), Err(images::OpenError::Busy(_))));
    drop(images);
    std::fs::remove_dir_all(gone).unwrap();
    std::fs::create_dir_all(dir.path().join("tmp/7/half")).unwrap();
    std::fs::create_dir_all(dir.path().join("layers").join("ab".repeat(32)).join("x")).unwrap();
    std::fs::write(dir.path().join("blobs/sha256").join("cd".repeat(32)), "x").unwrap();
    let images = open(dir.path());
    assert_eq!(images.list(), [image]);
    drop(images);
    drop(reopen(dir.path()));
    let left = files(dir.path());
    assert_eq!(left.len(), 3, "config, manifest, layer: {left:?}");
    std::fs::write(dir.path().join("index.json"), "{").unwrap();
    assert!(matches!(Images::open(dir.path(), Options::default()), Err(images::OpenError::Damaged { .. })));
    std::fs::write(dir.path().join("index.json"), r#"{"version":99}"#).unwrap();
    assert!(matches!(Images::open(dir.path(), Options::default()), Err(images::OpenError::Newer { version: 99, .. })));
}
