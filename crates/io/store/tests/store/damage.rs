//! Logs cut at every byte, torn in every way, and with every byte flipped.

use crate::common::driver::{Content, Driver};
use crate::common::{EPOCH, SMALL, only, op_put};
use store::disk::Disk;
use store::disk::faulty::SimDisk;
use store::embedded::{OpenError, Options};

const LOG: &str = "log-0000000000000001";

/// Batches of very different sizes, among them values of zeros as long as sectors.
fn batches() -> Vec<Vec<(String, Vec<u8>)>> {
    let value = |number: usize| match number % 4 {
        0 => vec![b'a' + (number % 26) as u8; number * 7 % 50],
        1 => vec![0; number * 331 % 2500],
        2 => (0..number * 97 % 1800).map(|at| (at * number) as u8).collect(),
        _ => Vec::new(),
    };
    (0..12usize)
        .map(|batch| (0..=batch % 3).map(|n| (format!("/{batch}/{n}"), value(batch * 5 + n))).collect())
        .collect()
}

/// A log of these batches in one segment; where each ends, and the content after each.
fn written() -> (SimDisk, Vec<usize>, Vec<Content>) {
    let disk = SimDisk::new();
    // With room for more.
    let options = Options { segment_bytes: 32 << 10, ..SMALL };
    let mut driver = Driver::open_with(&disk, options, EPOCH).unwrap();
    driver.put("/first", b"1").unwrap();
    let mut content = driver.content(0).unwrap();
    let (mut ends, mut contents) = (vec![end_of(&disk)], vec![content.clone()]);
    for batch in batches() {
        let txns: Vec<_> = batch.iter().map(|(key, value)| only(op_put(key, value.clone()))).collect();
        assert!(driver.batch(&txns).iter().all(Result::is_ok));
        content.extend(batch);
        ends.push(end_of(&disk));
        contents.push(content.clone());
    }
    drop(driver);
    assert_eq!(disk.list().unwrap(), [LOG, "reserve"]);
    (disk, ends, contents)
}

/// Every frame ends with a mark that is not zero.
fn end_of(disk: &SimDisk) -> usize {
    disk.read(LOG).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn with_log(disk: &SimDisk, bytes: Vec<u8>) -> SimDisk {
    let disk = disk.fork();
    disk.overwrite(LOG, bytes);
    disk
}

#[test]
fn cut_at_every_byte() {
    let (disk, ends, contents) = written();
    let bytes = disk.read(LOG).unwrap();
    for cut in ends[0]..=*ends.last().unwrap() {
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let zeroed: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| if at < cut { *byte } else { 0 }).collect();
        for bytes in [bytes[..cut].to_vec(), zeroed] {
            let disk = with_log(&disk, bytes);
            let mut driver = Driver::open(&disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!(driver.content(0).unwrap(), contents[whole], "cut at {cut}");
            // It goes on from there, and what is written then is found again.
            driver.put("/after", b"the cut").unwrap();
            let content = driver.content(0).unwrap();
            drop(driver);
            let mut driver = Driver::open(&disk).unwrap_or_else(|error| panic!("after a cut at {cut}: {error}"));
            assert_eq!(driver.content(0).unwrap(), content, "cut at {cut}");
        }
    }
}

/// Each subset of the last batch's sectors reaches the disk.
#[test]
fn torn_in_every_way() {
    let (disk, ..) = written();
    let mut driver = Driver::open(&disk).unwrap();
    let before = driver.content(0).unwrap();
    drop(driver);
    // It stands in at most 7 sectors; the names that were not synced are asked for, too.
    for value in [vec![b'v'; 2900], vec![0; 2900], vec![0xA5; 2900]] {
        let mut whole = 0;
        for subset in 0..1u32 << 9 {
            let disk = disk.fork();
            let mut driver = Driver::open(&disk).unwrap();
            disk.set_faults(store::disk::faulty::Faults { fail_sync: 1, ..Default::default() });
            driver.put("/torn", &value).unwrap_err();
            drop(driver);
            let mut sector = 0;
            disk.crash(|| {
                sector += 1;
                subset >> (sector - 1) & 1 == 1
            });
            let mut driver = Driver::open(&disk).unwrap_or_else(|error| panic!("sectors {subset:b}: {error}"));
            let after = driver.content(0).unwrap();
            if after != before {
                whole += 1;
                assert_eq!(after.get("/torn"), Some(&value));
            }
            driver.put("/next", b"1").unwrap();
            drop(driver);
            let mut driver = Driver::open(&disk).unwrap();
            assert_eq!(driver.content(0).unwrap().len(), after.len() + 1);
        }
        assert!(whole > 0, "no subset was the whole");
    }
}

/// No flipped byte goes unnoticed or is taken for a torn write: it is reported with its file and a place at or before it, or it
/// stands where nothing has been written.
#[test]
fn every_byte_flipped() {
    let (disk, ends, contents) = written();
    let bytes = disk.read(LOG).unwrap();
    let end = *ends.last().unwrap();
    for at in 0..end + 40 {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            match Driver::open(&with_log(&disk, bytes)) {
                Err(OpenError::Corrupt { file, offset, .. }) => {
                    assert_eq!(file, LOG);
                    let frame = if at < ends[0] { 0 } else { *ends.iter().rfind(|end| **end <= at).unwrap() };
                    assert!(offset as usize >= frame && offset as usize <= at, "byte {at}, reported at {offset}");
                }
                Err(error) => panic!("byte {at}: {error}"),
                Ok(mut driver) => {
                    assert!(at >= end, "byte {at} flipped by {flip:#x}, and nobody noticed");
                    assert_eq!(driver.content(0).unwrap(), *contents.last().unwrap());
                }
            }
        }
    }
}

/// A store with a snapshot, several segments and history.
fn with_snapshot() -> (SimDisk, Content) {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk).unwrap();
    for round in 0..60u64 {
        for key in 0..6 {
            driver.put(&format!("/{key}"), &[b'x'; 150]).unwrap();
        }
        if round == 40 {
            let revision = driver.revision();
            driver.compact(revision - 3).unwrap();
        }
    }
    let content = driver.content(0).unwrap();
    drop(driver);
    let names = disk.list().unwrap();
    assert!(names.iter().any(|name| name.starts_with("snapshot-")), "{names:?}");
    assert!(names.iter().filter(|name| name.starts_with("log-")).count() > 1, "{names:?}");
    (disk, content)
}

#[test]
fn every_byte_of_snapshot_and_segments_flipped() {
    let (disk, content) = with_snapshot();
    for name in disk.list().unwrap() {
        let bytes = disk.read(&name).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_reserve = name == "reserve";
        for at in (0..bytes.len()).filter(|at| *at < written || is_reserve).step_by(if is_reserve { 100 } else { 3 }) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let disk = disk.fork();
            disk.overwrite(&name, bytes);
            match Driver::open(&disk) {
                Err(OpenError::Corrupt { file, .. }) => assert_eq!(file, name, "byte {at}"),
                Err(error) => panic!("byte {at} of {name}: {error}"),
                Ok(mut driver) => {
                    assert!(is_reserve, "byte {at} of {name}: nobody noticed");
                    assert_eq!(driver.content(0).unwrap(), content);
                }
            }
        }
    }
}

#[test]
fn missing_files_reported() {
    let (disk, _) = with_snapshot();
    for name in disk.list().unwrap() {
        let disk = disk.fork();
        disk.remove(&name).unwrap();
        match Driver::open(&disk).map(|mut driver| driver.revision()) {
            Err(OpenError::Corrupt { file, offset: 0, what }) => {
                // Without its snapshot, the first file missing is the log's first.
                let expected = if name.starts_with("snapshot-") { LOG } else { &name };
                assert_eq!((file.as_str(), what), (expected, "the file is missing"));
            }
            Err(error) => panic!("{name}: {error}"),
            // Nothing can tell that there was one more segment behind the last.
            Ok(_) => assert!(name == "reserve" || Some(&name) == last_log(&disk, &name).as_ref(), "{name}"),
        }
    }
}

/// `name` if it sorts behind all logs that are left.
fn last_log(disk: &SimDisk, name: &str) -> Option<String> {
    let names = disk.list().unwrap();
    names.iter().filter(|other| other.starts_with("log-")).all(|other| other.as_str() < name).then(|| name.to_owned())
}

/// A damaged old value is an error to whoever asks for it, not a wrong answer.
#[test]
fn history_damaged_after_opening() {
    let disk = SimDisk::new();
    let mut driver = Driver::open(&disk).unwrap();
    let old = driver.put("/a", b"old-value").unwrap();
    driver.put("/a", b"new").unwrap();
    assert_eq!(driver.content(old).unwrap()["/a"], b"old-value");
    let mut bytes = disk.read(LOG).unwrap();
    let at = bytes.windows(9).position(|window| window == b"old-value").unwrap();
    bytes[at] ^= 1;
    disk.overwrite(LOG, bytes);
    let error = driver.content(old).unwrap_err();
    assert!(error.to_string().contains("does not match its checksum"), "{error}");
    assert_eq!(driver.content(0).unwrap()["/a"], b"new");
}

#[test]
fn another_format_version_refused() {
    let (disk, ..) = written();
    let mut bytes = disk.read(LOG).unwrap();
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    let error = Driver::open(&with_log(&disk, bytes)).err().unwrap();
    assert_eq!(error.to_string(), format!("the database file {LOG} has format version 2; this program knows 1"));
}
