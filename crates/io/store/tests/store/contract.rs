//! The contract suite on each engine.

use crate::common::contract::CASES;
use crate::common::{SMALL, start};
use store::disk::faulty::SimDisk;
use store::disk::file::{FileDisk, FileDiskError};
use store::embedded::Options;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, future).await.expect("the case hangs")
    })
}

#[test]
fn embedded_in_memory_with_small_files() {
    let (store, thread) = start(SimDisk::new(), SMALL).unwrap();
    for (name, case) in CASES {
        eprintln_case(name);
        block_on(case(&store));
    }
    drop(store);
    thread.join().unwrap();
}

/// Each case in a store of its own, and again in the store that all share, opened anew in between.
#[test]
fn embedded_on_files() {
    let directory = tempfile::tempdir().unwrap();
    for (name, case) in CASES {
        eprintln_case(name);
        let own = directory.path().join(name);
        for path in [own, directory.path().join("shared")] {
            let (store, thread) = start(FileDisk::open(&path).unwrap(), Options::default()).unwrap();
            block_on(case(&store));
            drop(store);
            thread.join().unwrap();
        }
    }
}

#[test]
fn directory_opened_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let (store, thread) = start(FileDisk::open(&path).unwrap(), Options::default()).unwrap();
    let error = FileDisk::open(&path).unwrap_err();
    assert!(matches!(error, FileDiskError::InUse { .. }), "{error}");
    assert_eq!(error.to_string(), format!("{} is in use by another process", path.display()));
    drop(store);
    thread.join().unwrap();
    FileDisk::open(&path).unwrap();
}

#[allow(clippy::print_stderr, reason = "names the case that failed")]
fn eprintln_case(name: &str) {
    eprintln!("case {name}");
}
