//! A real full disk: a small tmpfs, mounted in a mount namespace of the test's own.

use crate::common::{delete, list, only, op_put, put, start};
use std::path::Path;
use std::process::Command;
use store::disk::file::FileDisk;
use store::embedded::{Embedded, Options};
use store::kv::{Kv, StoreError};

const DIRECTORY: &str = "STORE_TEST_FULL_DIRECTORY";

/// Runs `inside_namespace` as another process with a tmpfs of 3 MB.
#[test]
fn full_tmpfs() {
    let directory = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=3m,mode=700 tmpfs \"$1\" && exec \"$0\" --exact full::inside_namespace --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["sh", "-ec", script])
        .arg(std::env::current_exe().unwrap())
        .arg(directory.path())
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// Not a test of its own.
#[test]
fn inside_namespace() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(fill_and_go_on(Path::new(&directory)));
}

fn open(directory: &Path) -> (Embedded, std::thread::JoinHandle<()>) {
    let options =
        Options { segment_bytes: 256 << 10, reserve_bytes: 256 << 10, garbage_bytes: 1 << 20, recent_bytes: 0 };
    start(FileDisk::open(&directory.join("db")).unwrap(), options).unwrap()
}

async fn fill(store: &Embedded, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    loop {
        let key = format!("/{prefix}/{:04}", keys.len());
        match store.txn(only(op_put(&key, vec![b'x'; 2000]))).await {
            Ok(_) => keys.push(key),
            Err(StoreError::NoSpace) => return keys,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn fill_and_go_on(directory: &Path) {
    // Filled by somebody else.
    let (store, thread) = open(directory);
    put(&store, "/a", "1").await;
    std::fs::write(directory.join("ballast"), vec![0; 2 << 20]).unwrap();
    let keys = fill(&store, "first").await;
    assert!(!keys.is_empty());
    for key in &keys {
        delete(&store, key).await;
    }
    drop(store);
    thread.join().unwrap();
    let (store, thread) = open(directory);
    assert_eq!(list(&store, "/", 0).await.len(), 1);
    std::fs::remove_file(directory.join("ballast")).unwrap();
    put(&store, "/b", &"x".repeat(10_000)).await;

    // Filled by the store; deletes and compactions make the room, time and again.
    for round in 0..3 {
        let keys = fill(&store, &format!("round{round}")).await;
        assert!(keys.len() > 100, "round {round}: {}", keys.len());
        let mut revision = 0;
        for key in &keys {
            revision = delete(&store, key).await;
        }
        store.compact(revision).await.unwrap();
    }
    put(&store, "/c", "1").await;
    drop(store);
    thread.join().unwrap();
    let (store, thread) = open(directory);
    assert_eq!(list(&store, "/", 0).await.len(), 3);
    drop(store);
    thread.join().unwrap();
}
