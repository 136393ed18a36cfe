//! What the pipeline may know of time and chance; `dev/sim` brings its own.

use jiff::Timestamp;

/// The wall clock and a source of random numbers.
pub trait World: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    fn random(&self) -> u64;
}

/// The machine's clock and random numbers.
#[derive(Debug, Default)]
pub struct System;

impl World for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn random(&self) -> u64 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // The version and variant bits lie in different places of the two halves.
        high ^ low.rotate_left(29)
    }
}

/// A version 4 UUID from two random numbers.
pub(crate) fn uid(world: &dyn World) -> String {
    let bytes = (u128::from(world.random()) << 64) | u128::from(world.random());
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// Five characters as upstream draws them for generated names: no vowels, nothing that reads like another.
pub(crate) fn name_suffix(random: u64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = random;
    (0..5)
        .map(|_| {
            let letter = LETTERS[usize::try_from(rest % LETTERS.len() as u64).unwrap_or(0)];
            rest /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
