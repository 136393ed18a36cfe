//! What a node clears away: images that nobody uses, once their file system is full (upstream `images/image_gc_manager.go`),
//! and old log files of containers (upstream `logs/container_log_manager.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// When images are cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// From this percentage of the file system on images go, until it is down to `low_percent`.
    pub high_percent: u64,
    pub low_percent: u64,
    /// An image younger than this stays.
    pub minimum_age: Duration,
    /// Where so much is free nothing goes, whatever the percentage.
    pub enough_bytes: Option<u64>,
}

impl Default for ImagePolicy {
    fn default() -> Self {
        // Upstream's percentages are meant for disks that are the node's; a laptop's is its owner's, who may well have filled
        // it to nine tenths.
        Self { high_percent: 85, low_percent: 80, minimum_age: Duration::from_secs(120), enough_bytes: Some(2 << 30) }
    }
}

impl ImagePolicy {
    /// How many bytes have to go, and the percentage in use, if that is too much.
    pub fn excess(&self, capacity_bytes: u64, available_bytes: u64) -> Option<(u64, u64)> {
        let available = available_bytes.min(capacity_bytes);
        let used_percent = 100 - (available * 100).checked_div(capacity_bytes)?;
        let enough = self.enough_bytes.unwrap_or(u64::MAX);
        let over = used_percent >= self.high_percent && available < enough;
        let wanted = (capacity_bytes * (100 - self.low_percent) / 100).min(enough);
        over.then(|| (wanted.saturating_sub(available), used_percent))
    }
}

/// What is known of the images on the node. Times are on the monotonic clock.
#[derive(Debug, Default)]
pub struct Images(BTreeMap<String, Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    detected: Duration,
    used: Option<Duration>,
}

impl Images {
    /// The images that are there now, by id, and those of them that some container uses.
    pub fn observe(&mut self, present: &BTreeSet<String>, used: &BTreeSet<String>, now: Duration) {
        self.0.retain(|id, _| present.contains(id));
        for id in present {
            let known = self.0.entry(id.clone()).or_insert(Known { detected: now, used: None });
            if used.contains(id) {
                known.used = Some(now);
            }
        }
    }

    /// Those that may go, in this order: the one first whose last use is the longest ago.
    pub fn candidates(&self, minimum_age: Duration, now: Duration) -> Vec<String> {
        let old = self
            .0
            .iter()
            .filter(|(_, known)| known.used != Some(now) && now.saturating_sub(known.detected) >= minimum_age);
        let mut old: Vec<_> = old.map(|(id, known)| (known.used, known.detected, id.clone())).collect();
        old.sort();
        old.into_iter().map(|(.., id)| id).collect()
    }
}

/// Upstream's words for a file system that stays full.
pub fn insufficient(used_percent: u64, capacity_bytes: u64, freed_bytes: u64) -> String {
    format!(
        "Insufficient free disk space on the node's image filesystem ({used_percent}% of {} used). Failed to free \
         sufficient space by deleting unused images (freed {freed_bytes} bytes). Investigate disk usage, as it could be \
         used by active images, logs, volumes, or other data.",
        size(capacity_bytes)
    )
}

/// Upstream `formatSize`: `1.5 GiB`.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut at = 0;
    while value >= 1024.0 && at + 1 < units.len() {
        value /= 1024.0;
        at += 1;
    }
    if at == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[at]) }
}

/// How long a container's log may get, and how many files of it there are, the one being written included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    pub max_bytes: u64,
    pub max_files: usize,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// What becomes of the rotated files of a log before it is rotated once more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    pub remove: Vec<String>,
    pub compress: Vec<String>,
}

/// `rotated` are the names `LOG.TIME`, `LOG.TIME.gz` and what a crash left of a compression.
pub fn rotation(rotated: &[String], policy: LogPolicy) -> Rotation {
    let is_compressed = |name: &str| name.ends_with(".gz");
    let half_done =
        |name: &str| name.ends_with(".tmp") || (!is_compressed(name) && rotated.contains(&format!("{name}.gz")));
    let (mut remove, mut kept): (Vec<_>, Vec<_>) = rotated.iter().cloned().partition(|name| half_done(name));
    kept.sort();
    // The one being written and the one that is about to be rotated stand beside these.
    let excess = kept.len().saturating_sub(policy.max_files.saturating_sub(2));
    remove.extend(kept.drain(..excess));
    Rotation { remove, compress: kept.into_iter().filter(|name| !is_compressed(name)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn how_much_has_to_go() {
        let policy = ImagePolicy::default();
        for (capacity, available, wanted) in [
            (1000, 500, None),
            (1000, 160, None),
            (1000, 150, Some((50, 85))),
            (1000, 0, Some((200, 100))),
            (1000, 2000, None),
            (0, 0, None),
        ] {
            assert_eq!(policy.excess(capacity, available), wanted, "{available} of {capacity}");
        }
        let disk = 1 << 40;
        assert_eq!(policy.excess(disk, 2 << 30), None, "nine tenths full, and yet enough");
        assert_eq!(policy.excess(disk, 1 << 30), Some((1 << 30, 100)));
        let asked = ImagePolicy { enough_bytes: None, ..policy };
        assert_eq!(asked.excess(disk, 2 << 30), Some((disk / 5 - (2 << 30), 100)));
        let policy = ImagePolicy { high_percent: 10, low_percent: 5, ..policy };
        assert_eq!(policy.excess(1000, 900), Some((50, 10)));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let seconds = Duration::from_secs;
        let mut images = Images::default();
        let all = set(&["a", "b", "c", "d"]);
        images.observe(&all, &set(&["b", "d"]), seconds(0));
        images.observe(&all, &set(&["a", "d"]), seconds(100));
        images.observe(&set(&["a", "b", "c", "d", "new"]), &set(&["d"]), seconds(200));
        assert_eq!(images.candidates(seconds(120), seconds(200)), ["c", "b", "a"]);
        assert_eq!(images.candidates(seconds(0), seconds(200)), ["c", "new", "b", "a"]);
        assert!(images.candidates(seconds(300), seconds(200)).is_empty());
        images.observe(&set(&["c"]), &set(&[]), seconds(400));
        assert_eq!(images.candidates(seconds(120), seconds(400)), ["c"]);
    }

    #[test]
    fn what_is_said_of_a_full_file_system() {
        let said = insufficient(91, 3 << 29, 7);
        assert!(said.starts_with("Insufficient free disk space on the node's image filesystem (91% of 1.5 GiB used)."));
        assert!(said.contains("(freed 7 bytes)"));
        assert_eq!(size(512), "512 B");
    }

    #[test]
    fn old_logs_are_compressed_and_then_go() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let policy = LogPolicy { max_files: 5, ..LogPolicy::default() };
        for (there, remove, compress) in [
            (&[][..], &[][..], &[][..]),
            (&["0.log.1"], &[], &["0.log.1"]),
            (&["0.log.1.gz", "0.log.2"], &[], &["0.log.2"]),
            (&["0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4"], &["0.log.1.gz"], &["0.log.4"]),
            // A crash between the steps of a compression.
            (&["0.log.1.tmp", "0.log.1"], &["0.log.1.tmp"], &["0.log.1"]),
            (&["0.log.1.gz", "0.log.1"], &["0.log.1"], &[]),
        ] {
            let wanted = Rotation { remove: names(remove), compress: names(compress) };
            assert_eq!(rotation(&names(there), policy), wanted, "{there:?}");
        }
        let two = LogPolicy { max_files: 2, ..policy };
        assert_eq!(rotation(&names(&["0.log.1"]), two).remove, ["0.log.1"]);
    }
}
