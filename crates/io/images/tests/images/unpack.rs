//! Layers on the real kernel: what an honest layer must keep, what a hostile one must not reach.

use crate::support::*;
use expect_test::{Expect, expect};
use images::{Image, Images, ImportError, Options};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::EntryType;

async fn import(dir: &Path, layers: &[Vec<u8>]) -> Result<Image, ImportError> {
    let layers: Vec<(&[u8], Pack)> = layers.iter().map(|l| (&l[..], gzip as Pack)).collect();
    let made = Made::new(&layers);
    let options = Options { max_layer_bytes: 1 << 20, max_layer_entries: 100, ..Options::default() };
    let images = Images::open(dir, options).unwrap();
    Ok(images.import(&oci_archive(&[(&made, "x:1")])[..]).await?.remove(0))
}

/// Everything in a layer: type, mode, owner, target, attributes.
fn list(root: &Path) -> String {
    fn walk(root: &Path, at: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let name = path.strip_prefix(root).unwrap().display();
            let what = if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() && meta.rdev() == 0 {
                "whiteout".to_owned()
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("dev {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else if kind.is_dir() {
                "dir".to_owned()
            } else {
                format!("{:?} links={}", std::fs::read_to_string(&path).unwrap(), meta.nlink())
            };
            let mut opaque = [0; 1];
            let opaque = rustix::fs::lgetxattr(&path, "trusted.overlay.opaque", &mut opaque).map_or("", |_| " opaque");
            out.push(format!("{name} {:o} {}:{} {what}{opaque}\n", meta.mode() & 0o7777, meta.uid(), meta.gid()));
            if kind.is_dir() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out.concat()
}

fn without_digests(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    parts.map(|part| if part.len() >= 64 { format!("HEX{}", &part[64..]) } else { part.to_owned() }).collect()
}

async fn check(layers: &[Vec<u8>], expected: Expect) {
    let dir = tempfile::tempdir().unwrap();
    let shown = match import(dir.path(), layers).await {
        Ok(image) => image.layers.iter().map(|layer| list(layer)).collect::<Vec<_>>().join("--\n"),
        Err(error) => without_digests(&error.to_string()),
    };
    expected.assert_eq(&shown);
}

#[tokio::test]
async fn attributes_are_kept() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = "d/".repeat(60) + "f";
    let tar = Tar::new()
        .dir("./", 0o711)
        .dir("bin/", 0o1777)
        .raw("bin/su", EntryType::Regular, 0o6755, "", b"su", (0, 0))
        .link("bin/su2", "bin/su")
        .symlink("abs", "/etc/passwd")
        .link("abs2", "abs")
        .raw("null", EntryType::Char, 0o666, "", b"", (1, 3))
        .raw("loop", EntryType::Block, 0o660, "", b"", (7, 9))
        .raw("pipe", EntryType::Fifo, 0o600, "", b"", (0, 0))
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1500000000.25"),
            ("SCHILY.xattr.user.k", b"v"),
            ("uid", b"3000000"),
        ])
        .file("ping", "p")
        .pax(&[("path", long.as_bytes()), ("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .file("short", "long");
    let dir = tempfile::tempdir().unwrap();
    let image = import(dir.path(), &[tar.finish()]).await.unwrap();
    let root = &image.layers[0];
    let shown: String = list(root)
        .lines()
        .filter(|line| !line.starts_with("d/") || line.contains("/f "))
        .map(|l| format!("{l}\n"))
        .collect();
    expect![[r#"
        abs 777 1234:4321 -> /etc/passwd
        abs2 777 1234:4321 -> /etc/passwd
        bin 1777 1234:4321 dir
        bin/su 6755 1234:4321 "su" links=2
        bin/su2 6755 1234:4321 "su" links=2
        d 755 0:0 dir
        d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/f 644 1234:4321 "long" links=1
        loop 660 1234:4321 dev 7:9
        null 666 1234:4321 dev 1:3
        ping 644 3000000:4321 "p" links=1
        pipe 600 1234:4321 fifo
    "#]].assert_eq(&shown);
    let mut value = [0; 32];
    assert_eq!(rustix::fs::lgetxattr(root.join("ping"), "security.capability", &mut value), Ok(20));
    assert_eq!(rustix::fs::lgetxattr(root.join("ping"), "user.k", &mut value), Ok(1));
    let ping = root.join("ping").metadata().unwrap();
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1_500_000_000, 250_000_000));
    for path in ["bin", "bin/su", "."] {
        assert_eq!(root.join(path).metadata().unwrap().mtime(), 1_000_000_000, "{path}");
    }
    assert_eq!(root.join("abs").symlink_metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o711);
}

#[tokio::test]
async fn whiteouts_become_overlayfs_marks() {
    check(
        &[
            Tar::new().dir("d", 0o700).file("d/a", "a").file("b", "b").dir("e", 0o755).finish(),
            Tar::new()
                .file("d/.wh.a", "")
                .file(".wh.b", "")
                .dir("e", 0o755)
                .file("e/new", "n")
                .file("e/.wh..wh..opq", "")
                .file(".wh..wh.plnk/x", "")
                .finish(),
        ],
        expect![[r#"
            b 644 1234:4321 "b" links=1
            d 700 1234:4321 dir
            d/a 644 1234:4321 "a" links=1
            e 755 1234:4321 dir
            --
            b 0 0:0 whiteout
            d 700 1234:4321 dir
            d/a 0 0:0 whiteout
            e 755 1234:4321 dir opaque
            e/new 644 1234:4321 "n" links=1
        "#]],
    )
    .await;
    // A name deleted and made again in one layer, in both orders.
    check(
        &[Tar::new()
            .file(".wh.a", "")
            .file("a", "1")
            .file("b", "2")
            .file(".wh.b", "")
            .file(".wh.c", "")
            .dir("c", 0o755)
            .dir("d", 0o755)
            .file(".wh.d", "")
            .finish()],
        expect![[r#"
            a 644 1234:4321 "1" links=1
            b 644 1234:4321 "2" links=1
            c 755 1234:4321 dir opaque
            d 755 1234:4321 dir opaque
        "#]],
    )
    .await;
}

#[tokio::test]
async fn what_a_layer_leaves_out_comes_from_below() {
    check(
        &[
            Tar::new()
                .dir("tmp", 0o1777)
                .dir("a", 0o750)
                .dir("a/b", 0o700)
                .file("a/b/target", "t")
                .dir("gone", 0o711)
                .finish(),
            Tar::new().file(".wh.gone", "").finish(),
            Tar::new()
                .file("tmp/x", "x")
                .file("a/b/c/y", "y")
                .link("linked", "a/b/target")
                .file("gone/z", "z")
                .finish(),
        ],
        expect![[r#"
            a 750 1234:4321 dir
            a/b 700 1234:4321 dir
            a/b/target 644 1234:4321 "t" links=1
            gone 711 1234:4321 dir
            tmp 1777 1234:4321 dir
            --
            gone 0 0:0 whiteout
            --
            a 750 1234:4321 dir
            a/b 700 1234:4321 dir
            a/b/c 755 0:0 dir
            a/b/c/y 644 1234:4321 "y" links=1
            a/b/target 644 1234:4321 "t" links=2
            gone 755 0:0 dir
            gone/z 644 1234:4321 "z" links=1
            linked 644 1234:4321 "t" links=2
            tmp 1777 1234:4321 dir
            tmp/x 644 1234:4321 "x" links=1
        "#]],
    )
    .await;
    check(
        &[Tar::new().link("l", "nowhere").finish()],
        expect![[r#"failed to extract layer sha256:HEX: entry "l": link target nowhere not found"#]],
    )
    .await;
}

#[tokio::test]
async fn later_entries_replace_earlier_ones() {
    check(
        &[Tar::new()
            .dir("d", 0o755)
            .file("d/x", "x")
            .file("d", "now a file")
            .symlink("s", "d")
            .file("s", "no link")
            .file("f", "1")
            .file("f", "2")
            .dir("f", 0o700)
            .symlink("l", "/etc")
            .dir("l", 0o755)
            .file("l/x", "inside")
            .finish()],
        expect![[r#"
            d 644 1234:4321 "now a file" links=1
            f 700 1234:4321 dir
            l 755 1234:4321 dir
            l/x 644 1234:4321 "inside" links=1
            s 644 1234:4321 "no link" links=1
        "#]],
    )
    .await;
}

#[tokio::test]
async fn hostile_layers_reach_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "safe").unwrap();
    let out = outside.path().to_str().unwrap();
    let up = format!("{}{}", "../".repeat(20), &out[1..]);
    for (what, tar) in [
        ("dot-dot", Tar::new().file(&format!("{up}/victim"), "evil")),
        ("dot-dot in the middle", Tar::new().dir("a", 0o755).file(&format!("a/../{up}/victim"), "evil")),
        ("absolute name", Tar::new().file(&format!("{out}/victim"), "evil")),
        ("through an absolute link", Tar::new().symlink("l", out).file("l/victim", "evil")),
        ("through a relative link", Tar::new().symlink("l", &up).file("l/victim", "evil")),
        (
            "through a link of links",
            Tar::new().symlink("k", "/").symlink("l", &format!("k{out}")).file("l/victim", "evil"),
        ),
        ("over a link", Tar::new().symlink("l", &format!("{out}/victim")).file("l", "evil")),
        ("into a link to a directory", Tar::new().symlink("l", out).dir("l", 0o777).file("l/victim", "evil")),
        ("hard link outside", Tar::new().link("h", &format!("{up}/victim")).file("h", "evil")),
        ("hard link to an absolute name", Tar::new().link("h", &format!("{out}/victim")).file("h", "evil")),
        ("hard link through a link", Tar::new().symlink("l", out).link("h", "l/victim").file("h", "evil")),
        ("hard link to a link", Tar::new().symlink("l", &format!("{out}/victim")).link("h", "l").file("h", "evil")),
        ("whiteout through a link", Tar::new().symlink("l", out).file("l/.wh.victim", "")),
        ("opaque through a link", Tar::new().symlink("l", out).file("l/.wh..wh..opq", "")),
        ("whiteout of ..", Tar::new().dir("a", 0o755).file("a/.wh...", "")),
        ("proc", Tar::new().symlink("p", "/proc/self/root").file(&format!("p{out}/victim"), "evil")),
        ("replacing the root", Tar::new().file("./", "evil").symlink("/", out).file("victim", "evil")),
        ("loop", Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "evil")),
        ("device over", Tar::new().raw("x", EntryType::Block, 0o666, "", b"", (254, 0)).file("x", "evil")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // Refused or done inside: both are fine.
        let _ = import(dir.path(), &[tar.finish()]).await;
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "safe", "{what}");
        assert_eq!(victim.metadata().unwrap().nlink(), 1, "{what}");
        let names: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["victim"], "{what}");
        let mut value = [0; 4];
        assert!(rustix::fs::lgetxattr(outside.path(), "trusted.overlay.opaque", &mut value).is_err(), "{what}");
    }
}

#[tokio::test]
async fn bounds_hold() {
    check(
        &[Tar::new().bytes("zeros", &vec![0; (1 << 20) + 1]).finish()],
        expect![
            "blobs/sha256/HEX of the archive: failed to extract layer sha256:HEX: it unpacks to more than 1048576 bytes"
        ],
    )
    .await;
    let many = (0..101).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), ""));
    check(
        &[many.finish()],
        expect!["blobs/sha256/HEX of the archive: failed to extract layer sha256:HEX: it holds more than 100 entries"],
    )
    .await;
    check(&[Tar::new().file("../x", "").finish()], expect![[r#"blobs/sha256/HEX of the archive: failed to extract layer sha256:HEX: entry "../x" leads out of its layer"#]]).await;
    check(&[Tar::new().raw("odd", EntryType::new(b'Q'), 0o644, "", b"", (0, 0)).finish()], expect![[r#"blobs/sha256/HEX of the archive: failed to extract layer sha256:HEX: entry "odd" is of type __Nonexhaustive(81), which layers do not have"#]]).await;
    check(&[vec![0xff; 2048]], expect!["blobs/sha256/HEX of the archive: failed to extract layer sha256:HEX: read the archive: numeric field did not have utf-8 text: �������� when getting cksum for ����������������������������������������������������������������������������������������������������"]).await;
}
