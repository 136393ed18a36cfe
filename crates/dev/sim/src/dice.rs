//! All chance of a run.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// xorshift64*; the same seed gives the same numbers.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
        // Seeds that are neighbours begin alike.
        for _ in 0..8 {
            dice.number();
        }
        dice
    }

    pub(crate) fn number(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        (self.number() >> 16) % limit
    }

    pub(crate) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        &all[index]
    }

    /// At most `limit_ms`.
    pub(crate) fn millis(&self, limit_ms: u64) -> Duration {
        Duration::from_millis(self.below(limit_ms + 1))
    }
}
