//! What a real node did with Pods over time, recorded from upstream 1.37.1 and played on minke (see `golden/README.md`).

use crate::cluster::{Cluster, said};
use crate::registry::Registry;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Scenarios that take longer are played by hand: `golden/behave.py check`.
const LONGEST_S: f64 = 60.0;

fn took_s(recording: &Path) -> f64 {
    let text = std::fs::read_to_string(recording).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["may"]["took"].as_f64().unwrap()
}

/// The names after `word` at the beginning of a line.
fn named(text: &str, word: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.split_whitespace().next());
    lines.map(str::to_owned).collect()
}

#[test]
fn pods_behave_as_upstreams() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../golden");
    let cases = PathBuf::from(std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`"));
    let recordings = std::fs::read_dir(cases.join("behaviour/pods")).unwrap().map(|entry| entry.unwrap().path());
    let mut recordings: Vec<_> = recordings.filter(|path| took_s(path) <= LONGEST_S).collect();
    recordings.sort();
    let cluster = Cluster::start();
    // Some scenarios pull, whatever was imported.
    let _registry = Registry::start(&cluster);
    let mut play = Command::new("python3");
    play.arg(golden.join("behave.py")).arg("check").arg("--kubeconfig").arg(cluster.path("admin.kubeconfig"));
    play.arg("--kubectl").arg(std::env::var_os("MINKE_TEST_KUBECTL").unwrap());
    let text = said(&play.args(["-j", "12", "--retries", "2"]).args(&recordings).output().unwrap());
    // What fails is played again, with fewer beside it: once as upstream is enough.
    let passed = named(&text, "pass ");
    let failed: BTreeSet<_> = named(&text, "FAIL ").difference(&passed).cloned().collect();
    assert_eq!(passed.len() + failed.len(), recordings.len(), "{text}");
    let gaps = std::fs::read_to_string(golden.join("behaviour-gaps.txt")).unwrap();
    let gaps: BTreeSet<_> = named(&gaps, "").into_iter().filter(|name| name != "#").collect();
    let unknown: Vec<_> = failed.difference(&gaps).collect();
    assert!(unknown.is_empty(), "not as upstream: {unknown:?}\n{text}");
    let closed: Vec<_> = gaps.intersection(&passed).collect();
    assert!(closed.is_empty(), "take these from golden/behaviour-gaps.txt: {closed:?}");
}
