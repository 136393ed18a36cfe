//! Why an object is not what its owner wants: from the objects to a cause, its evidence and a fix. Pure; `minke why` shows it.

pub mod pod;

/// One root cause, in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What is wrong, naming the part: ``container `web` …``.
    pub what: String,
    /// Where that was seen, as the API has it.
    pub evidence: Vec<String>,
    /// What to do about it.
    pub fix: String,
}
