//! Which of two minkes is the older.

use std::cmp::Ordering;

pub(crate) const OWN: &str = env!("CARGO_PKG_VERSION");

/// By the numbers between the dots; what is no number is older than any.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<Option<u64>> { text.split('.').map(|part| part.parse().ok()).collect() };
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_numbers() {
        for (one, other, expected) in [
            ("0.1.0", "0.1.0", Ordering::Equal),
            ("0.9.0", "0.10.0", Ordering::Less),
            ("1.0.0", "0.99.99", Ordering::Greater),
            ("", "0.1.0", Ordering::Less),
        ] {
            assert_eq!(compare(one, other), expected, "{one} {other}");
        }
    }
}
