//! Durable puts per second beside their floor, which is a write and an fdatasync of the same size by one thread.
//!
//! `put DIRECTORY [WRITERS [SECONDS]]`: values of 2 KB, each under a key of its own; then the time to open it all again.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people at a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::clock::SystemClock;
use store::disk::file::FileDisk;
use store::disk::{Disk, DiskFile};
use store::embedded::Embedded;
use store::kv::{Kv, Op, Txn};

const VALUE_BYTES: usize = 2048;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("the directory");
    let writers: usize = arguments.next().map_or(64, |text| text.parse().unwrap());
    let seconds: u64 = arguments.next().map_or(3, |text| text.parse().unwrap());
    let directory = Path::new(&directory);
    println!("floor: {:.0} writes and fdatasyncs per second", floor(directory));

    let clock = SystemClock::new();
    let (store, writer) = Embedded::open(FileDisk::open(&directory.join("db")).unwrap(), clock.now()).unwrap();
    let thread = std::thread::spawn(move || writer.run(move || clock.now()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (count, latencies) = runtime.block_on(load(&store, writers, Duration::from_secs(seconds)));
    println!(
        "{writers} writers: {:.0} puts per second, p50 {:?}, p99 {:?}",
        count as f64 / seconds as f64,
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
    );
    drop(store);
    thread.join().unwrap();

    let begin = Instant::now();
    let opened = Embedded::open(FileDisk::open(&directory.join("db")).unwrap(), clock.now()).unwrap();
    println!("opened {count} keys in {:?}", begin.elapsed());
    drop(opened);
}

/// Writes to preallocated space, each followed by a sync.
fn floor(directory: &Path) -> f64 {
    let disk = FileDisk::open(&directory.join("floor")).unwrap();
    let mut file = disk.create("floor", 8 << 20).unwrap();
    let value = vec![b'x'; VALUE_BYTES];
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(1) {
        file.write_all_at(count % 4096 * VALUE_BYTES as u64, &value).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    disk.remove("floor").unwrap();
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn load(store: &Embedded, writers: usize, duration: Duration) -> (u64, Vec<Duration>) {
    let number = Arc::new(AtomicU64::new(0));
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let end = Instant::now() + duration;
    let tasks = (0..writers).map(|_| {
        let (store, number, value) = (store.clone(), Arc::clone(&number), value.clone());
        async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let key = format!("/registry/pods/default/pod-{:08}", number.fetch_add(1, Ordering::Relaxed));
                let op = Op::Put { key: key.into(), value: value.clone(), ttl_s: None };
                let begin = Instant::now();
                store.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
                latencies.push(begin.elapsed());
            }
            latencies
        }
    });
    let mut latencies: Vec<Duration> = futures::future::join_all(tasks).await.concat();
    latencies.sort();
    (number.load(Ordering::Relaxed), latencies)
}
