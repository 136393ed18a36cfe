//! Which rules belong to which kind.

use crate::rules::Rules;

/// The rules of a built-in kind; kinds without a file of their own are [`Rules::PLAIN`].
pub fn rules(_group: &str, _kind: &str) -> &'static Rules {
    &Rules::PLAIN
}
