//! The process is killed under load a hundred times; everything it had acknowledged is there. The test runs itself again as
//! the process to be killed.

use crate::common::{SMALL, committed, get, list, only, op_delete, op_put, start};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use store::disk::file::FileDisk;
use store::embedded::Options;
use store::kv::Kv;

const DIRECTORY: &str = "STORE_TEST_KILL_DIRECTORY";
const WRITERS: u64 = 16;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Small segments and snapshots often, so that kills hit their making as well.
fn options() -> Options {
    Options { segment_bytes: 256 << 10, garbage_bytes: 512 << 10, ..SMALL }
}

/// Not a test of its own: writes without end, and prints what has been acknowledged as `WRITER NUMBER`.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (store, _thread) = start(FileDisk::open(Path::new(&directory)).unwrap(), options()).unwrap();
    let store = &store;
    block_on(futures::future::join_all((0..WRITERS).map(|writer| async move {
        let key = format!("/{writer}/count");
        let mut number: u64 = match get(store, &key).await {
            Some(entry) => std::str::from_utf8(&entry.value).unwrap().trim_end().parse().unwrap(),
            None => 0,
        };
        loop {
            number += 1;
            let value = format!("{number}{}", " ".repeat((number * 97 % 3000) as usize));
            let mut txn = only(op_put(&key, value));
            // One more key per transaction, taken away by a later one: both or none of them must be there.
            txn.ops.push(op_put(&format!("/{writer}/{number}"), "x"));
            txn.ops.push(op_delete(&format!("/{writer}/{}", number - 1)));
            let revision = committed(store.txn(txn).await);
            writeln!(std::io::stdout(), "{writer} {number}").unwrap();
            if writer == 0 && number.is_multiple_of(50) {
                // Somebody else's compaction is no error here.
                let _ = store.compact(revision - 10).await;
            }
        }
    })));
}

/// Runs the child until it has acknowledged `count` more, kills it, and returns the highest number of each writer.
fn run_and_kill(directory: &Path, count: usize) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut take = |line: &str| {
        let mut words = line.split(' ').map(str::parse);
        let (Some(Ok(writer)), Some(Ok(number))) = (words.next(), words.next()) else { return false };
        acknowledged.insert(writer, number);
        true
    };
    let mut taken = 0;
    while taken < count {
        let line = lines.next().expect("the child ended by itself").unwrap();
        taken += usize::from(take(&line));
    }
    // SIGKILL.
    child.kill().unwrap();
    // What it had still written counts, except for a line cut short.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    for line in &rest[..rest.len().saturating_sub(1)] {
        take(line);
    }
    child.wait().unwrap();
    acknowledged
}

#[test]
fn killed_a_hundred_times() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("db");
    let mut before = BTreeMap::new();
    for round in 0..100 {
        let acknowledged = run_and_kill(&directory, 50 + round * 37 % 700);
        let (store, thread) = start(FileDisk::open(&directory).unwrap(), options()).unwrap();
        for writer in 0..WRITERS {
            let entries = block_on(list(&store, &format!("/{writer}/"), 0));
            let expected = acknowledged.get(&writer).or(before.get(&writer)).copied().unwrap_or(0);
            let Some(count) = entries.iter().find(|entry| entry.key.ends_with("count")) else {
                assert_eq!(expected, 0, "round {round}: writer {writer} lost everything");
                continue;
            };
            let number: u64 = std::str::from_utf8(&count.value).unwrap().trim_end().parse().unwrap();
            assert!(number >= expected, "round {round}: writer {writer} was told {expected}, found {number}");
            let keys: Vec<_> = entries.iter().map(|entry| entry.key.to_string()).collect();
            assert_eq!(keys, [format!("/{writer}/{number}"), format!("/{writer}/count")], "round {round}");
            before.insert(writer, number);
        }
        drop(store);
        thread.join().unwrap();
    }
    assert!(before.values().sum::<u64>() > 10_000, "there was no load: {before:?}");
}
