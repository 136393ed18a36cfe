//! Crashes, failing calls and full disks at every point of a run: nothing acknowledged is lost, nothing half done is seen.

use crate::common::driver::{Content, Driver, Numbers};
use crate::common::{EPOCH, SMALL, only, op_delete, op_put};
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use store::clock::Now;
use store::disk::Disk;
use store::disk::faulty::{Faults, SimDisk};
use store::embedded::{Options, Wait};
use store::kv::{Kv, Op, StoreError, Txn, TxnResult, WatchItem};

/// What may be in the store: exactly this, or with some of the transactions whose outcome is unknown, in order.
struct Expected {
    acknowledged: Content,
    unknown: Vec<Txn>,
}

fn apply(content: &mut Content, txn: &Txn) {
    for op in &txn.ops {
        match op {
            Op::Put { key, value, .. } => drop(content.insert(key.to_string(), value.to_vec())),
            Op::Delete { key } => drop(content.remove(key.as_ref())),
        }
    }
}

impl Expected {
    fn note(&mut self, txn: &Txn, result: &Result<TxnResult, StoreError>) {
        match result {
            Ok(_) => {
                assert!(self.unknown.is_empty(), "a store that failed went on");
                apply(&mut self.acknowledged, txn);
            }
            Err(StoreError::Failed(_)) => self.unknown.push(txn.clone()),
            Err(StoreError::NoSpace) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Settles on what a reopened store holds.
    fn check(&mut self, found: &Content) {
        let mut content = self.acknowledged.clone();
        let mut unknown = std::mem::take(&mut self.unknown).into_iter();
        while content != *found {
            let Some(txn) = unknown.next() else { panic!("expected {:?}\nfound {found:?}", self.acknowledged) };
            apply(&mut content, &txn);
        }
        self.acknowledged = content;
    }
}

fn random_txn(numbers: &mut Numbers) -> Txn {
    let count = 1 + numbers.below(3);
    let mut ops: Vec<Op> = Vec::new();
    for index in 0..count {
        let key = format!("/{index}{}", numbers.below(5));
        let len = numbers.below(900) as usize;
        let byte = if numbers.below(3) == 0 { 0 } else { b'a' + numbers.below(26) as u8 };
        ops.push(if numbers.below(4) == 0 { op_delete(&key) } else { op_put(&key, vec![byte; len]) });
    }
    Txn { compares: vec![], ops }
}

/// Random transactions with a compaction now and then, so that segments and snapshots come and go.
fn run(driver: &mut Driver, numbers: &mut Numbers, expected: &mut Expected, rounds: u64) {
    for _ in 0..rounds {
        if numbers.below(25) == 0 {
            let revision = driver.revision();
            match driver.compact(revision.saturating_sub(numbers.below(4))) {
                Ok(()) | Err(StoreError::Compacted { .. } | StoreError::NoSpace | StoreError::Failed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let txns: Vec<Txn> = (0..1 + numbers.below(3)).map(|_| random_txn(numbers)).collect();
        for (txn, result) in txns.iter().zip(driver.batch(&txns)) {
            expected.note(txn, &result);
        }
    }
}

/// Fails the n-th write or sync of a run for every n, then takes the power away.
#[test]
fn every_call_fails_once() {
    let rounds = 150;
    let mut failed = 0;
    for nth in 1..500 {
        for faults in
            [Faults { fail_write: nth, ..Default::default() }, Faults { fail_sync: nth, ..Default::default() }]
        {
            let (disk, mut numbers) = (SimDisk::new(), Numbers::new(nth));
            let mut expected = Expected { acknowledged: Content::new(), unknown: vec![] };
            let mut driver = Driver::open(&disk).unwrap();
            disk.set_faults(faults);
            run(&mut driver, &mut numbers, &mut expected, rounds);
            failed += u64::from(!expected.unknown.is_empty());
            drop(driver);
            disk.crash(|| numbers.below(2) == 0);
            let mut driver = Driver::open(&disk).unwrap_or_else(|error| panic!("{faults:?}: {error}"));
            expected.check(&driver.content(0).unwrap());
            run(&mut driver, &mut numbers, &mut expected, 3);
            drop(driver);
            expected.check(&Driver::open(&disk).unwrap().content(0).unwrap());
        }
    }
    assert!(failed > 200, "the faults hit only {failed} times");
}

/// One store through many crashes.
#[test]
fn a_hundred_crashes_in_a_row() {
    for seed in 0..20 {
        let (disk, mut numbers) = (SimDisk::new(), Numbers::new(seed));
        let mut expected = Expected { acknowledged: Content::new(), unknown: vec![] };
        // Some disks are often full.
        disk.set_capacity((seed % 2 == 1).then_some(64 << 10));
        for _ in 0..100 {
            let mut driver = Driver::open(&disk).unwrap();
            expected.check(&driver.content(0).unwrap());
            let countdown = 1 + numbers.below(60);
            let (fail_write, fail_sync) = if numbers.below(2) == 0 { (countdown, 0) } else { (0, countdown) };
            disk.set_faults(Faults { fail_write, fail_sync, fail_read: 0 });
            run(&mut driver, &mut numbers, &mut expected, 1 + countdown / 2);
            drop(driver);
            disk.crash(|| numbers.below(2) == 0);
        }
    }
}

/// For every size of disk: what does not fit is refused, deletes are accepted, and once there is room writes go on.
#[test]
fn full_disk_of_every_size() {
    for capacity in (4096 + 16384..60 << 10).step_by(512) {
        let disk = SimDisk::new();
        disk.set_capacity(Some(capacity));
        let mut driver = Driver::open(&disk).unwrap();
        let mut written = Vec::new();
        let error = loop {
            let key = format!("/{}", written.len());
            match driver.put(&key, &[b'x'; 300]) {
                Ok(_) => written.push(key),
                Err(error) => break error,
            }
        };
        assert_eq!(error, StoreError::NoSpace);
        assert_eq!(error.to_string(), "no space left in the database directory");
        assert!(!written.is_empty(), "capacity {capacity}");
        // A transaction that also deletes is refused as a whole.
        let mixed = Txn { compares: vec![], ops: vec![op_delete(&written[0]), op_put("/mixed", vec![0; 300])] };
        assert_eq!(driver.txn(&mixed), Err(StoreError::NoSpace));
        for key in &written[..written.len() / 2] {
            driver.delete(key).unwrap_or_else(|error| panic!("capacity {capacity}: {error}"));
        }
        assert_eq!(driver.put("/again", &[b'x'; 300]), Err(StoreError::NoSpace), "capacity {capacity}");
        // Also after a restart with the disk still full.
        let content = driver.content(0).unwrap();
        drop(driver);
        disk.crash(|| false);
        let mut driver = Driver::open(&disk).unwrap();
        assert_eq!(driver.content(0).unwrap(), content);
        driver.delete(written.last().unwrap()).unwrap();
        disk.set_capacity(Some(capacity + (32 << 10)));
        driver.put("/again", &[b'x'; 300]).unwrap();
        drop(driver);
        disk.crash(|| false);
        let content = Driver::open(&disk).unwrap().content(0).unwrap();
        assert_eq!(content.len(), written.len() - written.len() / 2);
    }
}

/// A disk that the store itself has filled: deleting and compacting makes the room.
#[test]
fn full_of_its_own() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(100 << 10));
    let mut driver = Driver::open(&disk).unwrap();
    // Stands in the oldest file.
    driver.put("/kept", b"1").unwrap();
    for round in 0..5 {
        let mut written = Vec::new();
        loop {
            let key = format!("/{round}/{}", written.len());
            match driver.put(&key, &[b'x'; 500]) {
                Ok(_) => written.push(key),
                Err(StoreError::NoSpace) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written.len() > 50, "round {round}: only {}", written.len());
        let txns: Vec<_> = written.iter().map(|key| only(op_delete(key))).collect();
        assert!(driver.batch(&txns).iter().all(Result::is_ok));
        let revision = driver.revision();
        driver.compact(revision).unwrap();
        drop(driver);
        disk.crash(|| round % 2 == 0);
        driver = Driver::open(&disk).unwrap();
        assert_eq!((driver.revision(), driver.content(0).unwrap().len()), (revision, 1));
    }
}

/// A store that cannot write any more says so by ending: its writer, its watches.
#[test]
fn failure_ends_the_writer() {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk).unwrap();
    let mut watch = driver.store.watch("/", 1).now_or_never().unwrap().unwrap();
    driver.put("/a", b"1").unwrap();
    disk.set_faults(Faults { fail_sync: 1, ..Default::default() });
    assert!(matches!(driver.put("/b", b"1"), Err(StoreError::Failed(_))));
    assert_eq!(driver.writer.flush_once(driver.now), Wait::Closed);
    let mut seen = 0;
    let end = loop {
        match watch.next().now_or_never().unwrap().unwrap() {
            Ok(WatchItem::Events(events)) => seen += events.len(),
            Ok(WatchItem::Progress(_)) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((seen, end), (1, StoreError::Closed));
}

#[test]
fn lease_goes_on_after_restart() {
    let at = |ms: u64| Now { monotonic_ms: ms, wall_ms: EPOCH.wall_ms + ms };
    let disk = SimDisk::new();
    let mut driver = Driver::open_with(&disk, SMALL, at(0)).unwrap();
    let ops = vec![Op::Put { key: "/lease".into(), value: b"1"[..].into(), ttl_s: Some(100) }];
    driver.txn(&Txn { compares: vec![], ops }).unwrap();
    drop(driver);
    let reopened = |now: Now, later_ms: u64| {
        let mut driver = Driver::open_with(&disk.fork(), SMALL, now).unwrap();
        driver.now = Now { monotonic_ms: now.monotonic_ms + later_ms, wall_ms: now.wall_ms + later_ms };
        driver.settle();
        driver.content(0).unwrap().len()
    };
    let boot = |ms: u64| Now { monotonic_ms: 7, wall_ms: EPOCH.wall_ms + ms };
    // (reopened so long after the put, and so long after that looked at) -> still there
    assert_eq!(reopened(boot(40_000), 59_999), 1);
    assert_eq!(reopened(boot(40_000), 60_000), 0);
    assert_eq!(reopened(boot(200_000), 0), 0);
    // A wall clock that was set back keeps it for no longer than its whole time.
    let back = Now { monotonic_ms: 7, wall_ms: EPOCH.wall_ms - 1_000_000 };
    assert_eq!(reopened(back, 99_999), 1);
    assert_eq!(reopened(back, 100_000), 0);
}

/// While it runs, a lease counts on the monotonic clock only.
#[test]
fn lease_ignores_wall_clock_steps() {
    let mut driver = Driver::open(&SimDisk::new()).unwrap();
    let ops = vec![Op::Put { key: "/lease".into(), value: b"1"[..].into(), ttl_s: Some(100) }];
    driver.txn(&Txn { compares: vec![], ops }).unwrap();
    driver.now = Now { monotonic_ms: 99_999, wall_ms: EPOCH.wall_ms + (8 << 40) };
    driver.settle();
    assert_eq!(driver.content(0).unwrap().len(), 1);
    driver.now = Now { monotonic_ms: 100_000, wall_ms: 0 };
    driver.settle();
    assert_eq!(driver.content(0).unwrap().len(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<(u8, Option<u16>)>),
    CompareAndPut { key: u8, is_right: bool },
    Compact(u8),
    Crash(u64),
    FailSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..12u8, prop::option::weighted(0.8, 0..700u16)), 1..6).prop_map(Step::Batch),
        2 => (0..12u8, any::<bool>()).prop_map(|(key, is_right)| Step::CompareAndPut { key, is_right }),
        1 => (0..30u8).prop_map(Step::Compact),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::FailSync),
    ]
}

/// The model: all content of each revision since the last compaction.
struct Model {
    history: std::collections::BTreeMap<u64, Content>,
    mod_revisions: std::collections::BTreeMap<String, u64>,
    oldest: u64,
}

impl Model {
    fn present(&self) -> (u64, &Content) {
        let (revision, content) = self.history.last_key_value().unwrap();
        (*revision, content)
    }

    fn commit(&mut self, txn: &Txn, revision: u64) {
        let (present, content) = self.present();
        let mut next = content.clone();
        apply(&mut next, txn);
        let changes = txn.ops.iter().any(|op| match op {
            Op::Put { .. } => true,
            Op::Delete { key } => content.contains_key(key.as_ref()),
        });
        assert_eq!(revision, present + u64::from(changes));
        for op in &txn.ops {
            match op {
                Op::Put { key, .. } => drop(self.mod_revisions.insert(key.to_string(), revision)),
                Op::Delete { key } => drop(self.mod_revisions.remove(key.as_ref())),
            }
        }
        self.history.insert(revision, next);
    }
}

fn check_against(model: &Model, driver: &mut Driver) {
    assert_eq!(driver.revision(), model.present().0);
    for (revision, content) in &model.history {
        match driver.content(*revision) {
            Ok(found) => assert_eq!(found, *content, "at revision {revision}"),
            Err(error) => {
                assert!(*revision < model.oldest, "revision {revision}: {error}");
                assert_eq!(error, StoreError::Compacted { oldest: model.oldest });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn engine_equals_model(steps in prop::collection::vec(step(), 1..60)) {
        let options = Options { segment_bytes: 3000, garbage_bytes: 2000, ..SMALL };
        let disk = SimDisk::new();
        let mut driver = Driver::open_with(&disk, options, EPOCH).unwrap();
        let history = [(1, Content::new())].into();
        let mut model = Model { history, mod_revisions: Default::default(), oldest: 0 };
        for step in steps {
            match step {
                Step::Batch(changes) => {
                    let txns: Vec<Txn> = changes.into_iter().map(|(key, value)| {
                        let key = format!("/{key}");
                        only(match value {
                            Some(len) => op_put(&key, vec![len as u8; usize::from(len)]),
                            None => op_delete(&key),
                        })
                    }).collect();
                    for (txn, result) in txns.iter().zip(driver.batch(&txns)) {
                        let TxnResult::Committed { revision } = result.unwrap() else { panic!() };
                        model.commit(txn, revision);
                    }
                }
                Step::CompareAndPut { key, is_right } => {
                    let key = format!("/{key}");
                    let right = model.mod_revisions.get(&key).copied().unwrap_or(0);
                    let revision = if is_right { right } else { right + 1 };
                    let compares = vec![store::kv::Compare::ModRevision { key: key.as_str().into(), revision }];
                    let txn = Txn { compares, ops: vec![op_put(&key, "compared")] };
                    match driver.txn(&txn).unwrap() {
                        TxnResult::Committed { revision } => {
                            prop_assert!(is_right);
                            model.commit(&txn, revision);
                        }
                        TxnResult::Conflict { current, .. } => {
                            prop_assert!(!is_right);
                            prop_assert_eq!(current[0].as_ref().map_or(0, |entry| entry.mod_revision), right);
                        }
                    }
                }
                Step::Compact(back) => {
                    let revision = model.present().0.saturating_sub(u64::from(back));
                    match driver.compact(revision) {
                        Ok(()) => model.oldest = revision,
                        Err(error) => prop_assert_eq!(error, StoreError::Compacted { oldest: model.oldest }),
                    }
                }
                Step::Crash(seed) => {
                    drop(driver);
                    let mut numbers = Numbers::new(seed);
                    disk.crash(|| numbers.below(2) == 0);
                    driver = Driver::open_with(&disk, options, EPOCH).unwrap();
                    check_against(&model, &mut driver);
                }
                Step::FailSync => {
                    disk.set_faults(Faults { fail_sync: 1, ..Default::default() });
                    let txn = only(op_put("/fails", "1"));
                    let error = driver.txn(&txn).unwrap_err();
                    prop_assert!(matches!(error, StoreError::Failed(_)));
                    // Never shown before it is durable.
                    prop_assert_eq!(driver.content(0).unwrap(), model.present().1.clone());
                    drop(driver);
                    disk.crash(|| true);
                    driver = Driver::open_with(&disk, options, EPOCH).unwrap();
                    if driver.revision() > model.present().0 {
                        model.commit(&txn, model.present().0 + 1);
                    }
                }
            }
        }
        check_against(&model, &mut driver);
        prop_assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".tmp")));
    }
}
