//! Results of many runs in one place, and what they are held against.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// How a test ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// ginkgo's word: `passed`, `failed`, `skipped`, `timedout`, `panicked`.
    pub(super) state: String,
    pub(super) seconds: f64,
    /// First line; empty when it passed.
    pub(super) failure: String,
}

impl Outcome {
    pub(super) fn has_failed(&self) -> bool {
        !self.has_passed() && self.state != "skipped"
    }

    fn has_passed(&self) -> bool {
        self.state == "passed"
    }
}

/// By the test's name; written and read as a table, columns separated by tabs, with a line of heads.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Results(BTreeMap<String, Outcome>);

const HEADS: &str = "name\tstate\tseconds\tfailure";

impl Results {
    /// A later outcome of a test stands for the earlier one.
    pub(super) fn merge(&mut self, later: Vec<(String, Outcome)>) {
        self.0.extend(later);
    }

    /// What of `wanted` has no outcome yet.
    pub(super) fn missing(&self, wanted: &[String]) -> Vec<String> {
        wanted.iter().filter(|name| !self.0.contains_key(*name)).cloned().collect()
    }

    /// Without those of earlier runs that nobody asks for now.
    pub(super) fn only(mut self, wanted: &[String]) -> Results {
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        self.0.retain(|name, _| wanted.contains(name));
        self
    }

    /// What keeps `wanted` from being as `gaps` says, a line each.
    pub(super) fn problems(&self, wanted: &[String], gaps: &Gaps) -> Vec<String> {
        let mut problems: Vec<String> =
            self.missing(wanted).into_iter().map(|name| format!("did not run: {name}")).collect();
        for (name, outcome) in &self.0 {
            match gaps.0.get(name) {
                None if outcome.has_failed() => {
                    problems.push(format!("{}: {name}: {}", outcome.state, outcome.failure))
                }
                Some(reason) if outcome.has_passed() && !reason.starts_with("race:") => {
                    problems.push(format!("no longer a gap, take it from {}: {name}", super::KNOWN_GAPS));
                }
                _ => {}
            }
        }
        problems
    }

    /// A line per special interest group.
    pub(super) fn summary(&self, gaps: &Gaps) -> String {
        let mut groups: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for (name, outcome) in &self.0 {
            let column = match outcome {
                outcome if outcome.has_passed() => 0,
                outcome if !outcome.has_failed() => 3,
                _ if gaps.0.contains_key(name) => 1,
                _ => 2,
            };
            for group in [group(name), "all"] {
                groups.entry(group).or_default()[column] += 1;
            }
        }
        let mut text = format!("{:<22}{:>8}{:>12}{:>8}{:>8}\n", "", "passed", "known gaps", "failed", "skipped");
        for (group, [passed, known, failed, skipped]) in groups {
            text += &format!("{group:<22}{passed:>8}{known:>12}{failed:>8}{skipped:>8}\n");
        }
        text
    }
}

/// `sig-node` of `[sig-node] Pods …`.
fn group(name: &str) -> &str {
    name.split(['[', ']']).find(|part| part.starts_with("sig-")).unwrap_or("no group")
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADS}")?;
        for (name, Outcome { state, seconds, failure }) in &self.0 {
            writeln!(f, "{name}\t{state}\t{seconds:.1}\t{failure}")?;
        }
        Ok(())
    }
}

impl FromStr for Results {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Results> {
        let mut results = BTreeMap::new();
        for line in text.lines().filter(|line| *line != HEADS) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [name, state, seconds, failure] = columns[..] else {
                anyhow::bail!("not four columns: {line:?}");
            };
            let seconds = seconds.parse().with_context(|| format!("no number: {line:?}"))?;
            let outcome = Outcome { state: state.to_owned(), seconds, failure: failure.to_owned() };
            results.insert(name.to_owned(), outcome);
        }
        Ok(Results(results))
    }
}

/// Tests that are known to fail, with the reason: `NAME  # REASON` each. A reason that begins with `race:` may pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gaps(BTreeMap<String, String>);

impl FromStr for Gaps {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Gaps> {
        let mut gaps = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, reason) = line.split_once("  # ").with_context(|| format!("a gap without a reason: {line}"))?;
            ensure!(gaps.insert(name.to_owned(), reason.to_owned()).is_none(), "stands twice: {name}");
        }
        Ok(Gaps(gaps))
    }
}

/// A regular expression of Go that this test alone matches, whatever stands before its name.
pub(super) fn exactly(name: &str) -> String {
    let mut expression = String::new();
    for letter in name.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            expression.push('\\');
        }
        expression.push(letter);
    }
    expression + "$"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &[&str]) -> Results {
        lines.join("\n").parse().unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const SOME: &[&str] =
        &["[sig-node] a\tpassed\t1.0\t", "[sig-node] b\tfailed\t2.5\ttimed out", "[sig-cli] c\tskipped\t0.0\tnot here"];

    #[test]
    fn what_is_written_is_read_again() {
        let some = results(SOME);
        assert_eq!(some.to_string().parse::<Results>().unwrap(), some);
        assert!("a\tpassed".parse::<Results>().unwrap_err().to_string().starts_with("not four columns"));
    }

    #[test]
    fn only_the_missing_are_left() {
        assert_eq!(results(SOME).missing(&names(&["[sig-node] b", "[sig-node] d"])), ["[sig-node] d"]);
    }

    #[test]
    fn a_later_run_stands_for_an_earlier() {
        let mut some = results(SOME);
        some.merge(vec![(
            "[sig-node] b".to_owned(),
            Outcome { state: "passed".to_owned(), seconds: 3.0, failure: String::new() },
        )]);
        assert_eq!(some.only(&names(&["[sig-node] b"])), results(&["[sig-node] b\tpassed\t3.0\t"]));
    }

    #[test]
    fn gaps_must_be_true_both_ways() {
        let wanted = names(&["[sig-node] a", "[sig-node] b", "[sig-cli] c", "[sig-node] d"]);
        let problems = |gaps: &str| results(SOME).problems(&wanted, &gaps.parse().unwrap());
        let missing = "did not run: [sig-node] d";
        assert_eq!(problems("# head\n"), [missing, "failed: [sig-node] b: timed out"]);
        assert_eq!(problems("[sig-node] b  # not there yet\n[sig-cli] c  # one node\n"), [missing]);
        let closed = "no longer a gap, take it from conformance/known-gaps.txt: [sig-node] a";
        assert_eq!(problems("[sig-node] b  # x\n[sig-node] a  # y"), [missing, closed]);
        assert_eq!(problems("[sig-node] b  # race: x\n[sig-node] a  # race: y"), [missing]);
    }

    #[test]
    fn gaps_need_a_reason_once() {
        let error = |text: &str| text.parse::<Gaps>().unwrap_err().to_string();
        assert_eq!(error("[sig-node] b"), "a gap without a reason: [sig-node] b");
        assert_eq!(error("b  # x\nb  # y"), "stands twice: b");
    }

    #[test]
    fn the_summary_counts_by_group() {
        let text = results(SOME).summary(&"[sig-node] b  # not there yet".parse().unwrap());
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [["all", "1", "1", "0", "1"], ["sig-cli", "0", "0", "0", "1"], ["sig-node", "1", "1", "0", "0"],]
        );
    }

    #[test]
    fn names_are_matched_letter_by_letter() {
        assert_eq!(exactly("[sig-a] b's (c.d)*"), r"\[sig-a\] b's \(c\.d\)\*$");
    }
}
