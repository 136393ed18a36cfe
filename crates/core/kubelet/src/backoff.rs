//! Waiting longer after each failure (client-go `flowcontrol.Backoff`; kubelet's container and image back-off).

use std::time::Duration;

/// The first wait.
const INITIAL: Duration = Duration::from_secs(10);
/// No wait is longer (before it is lengthened by chance).
const MAX: Duration = Duration::from_secs(300);
/// So long without a failure, and it begins anew.
const FORGET: Duration = Duration::from_secs(600);

/// The back-off of one container or one image. Times are on the monotonic clock.
#[derive(Debug, Clone, Default)]
pub struct BackOff {
    entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    period: Duration,
    /// When the thing was last tried.
    tried: Duration,
}

impl BackOff {
    /// The wait in force after a failure at `failed`: `None` if it may be tried at once, which is so the first time and after
    /// ten minutes of health.
    pub fn period(&self, failed: Duration) -> Option<Duration> {
        let entry = self.entry?;
        (failed.saturating_sub(entry.tried) <= FORGET).then_some(entry.period)
    }

    /// Notes that it is tried again, after a failure at `failed`: the next wait is twice as long.
    pub fn tried(&mut self, failed: Duration, now: Duration) {
        let period = self.period(failed).map_or(INITIAL, |period| (period * 2).min(MAX));
        self.entry = Some(Entry { period, tried: now });
    }

    /// Forgets all failures: what failed is no more, for example its image was changed.
    pub fn reset(&mut self) {
        self.entry = None;
    }
}

/// `wait` lengthened by up to a half, as upstream's pod workers do. The same `(seed, nonce)` gives the same result.
pub fn lengthened(wait: Duration, seed: u64, nonce: u64) -> Duration {
    // SplitMix64: enough to keep many Pods from waking together.
    let mut z = seed.wrapping_add(nonce.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let permille = u32::try_from(z % 500).unwrap_or_default();
    wait + wait * permille / 1000
}

/// As Go prints a duration of whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container that ends `healthy_s` after each start: the waits before its restarts.
    fn waits(healthy_s: &[u64]) -> Vec<u64> {
        let (mut backoff, mut now, mut waits) = (BackOff::default(), Duration::ZERO, Vec::new());
        for healthy in healthy_s {
            now += Duration::from_secs(*healthy);
            let wait = backoff.period(now).unwrap_or_default();
            let failed = now;
            now += wait;
            backoff.tried(failed, now);
            waits.push(wait.as_secs());
        }
        waits
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        assert_eq!(waits(&[1; 9]), [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_health_begin_anew() {
        assert_eq!(waits(&[1, 1, 1, 600, 601, 1, 1]), [0, 10, 20, 40, 0, 10, 20]);
    }

    #[test]
    fn is_lengthened_by_less_than_half() {
        for nonce in 0..1000 {
            let wait = lengthened(INITIAL, 7, nonce);
            assert!(wait >= INITIAL && wait < INITIAL * 3 / 2, "{wait:?}");
        }
    }

    #[test]
    fn is_printed_as_go_does() {
        let printed: Vec<_> = [10, 80, 300, 3661].map(|s| go_seconds(Duration::from_secs(s))).into();
        assert_eq!(printed, ["10s", "1m20s", "5m0s", "1h1m1s"]);
    }
}
