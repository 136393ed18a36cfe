//! What ginkgo reports as JSON.

use super::results::Outcome;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    run_time: f64,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: Option<String>,
}

/// The selected tests of a report: those that ran, those that skipped themselves, and in a dry run those that would run.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Outcome)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<(String, Outcome)>> {
    let suites: Vec<Suite> = serde_json::from_str(text)?;
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default());
    Ok(specs.filter_map(outcome).collect())
}

fn outcome(spec: Spec) -> Option<(String, Outcome)> {
    let message = spec.failure.and_then(|failure| failure.message).unwrap_or_default();
    // Without a word of the test's own, it was not selected.
    let is_selected = !matches!(spec.state.as_str(), "skipped" | "pending") || !message.is_empty();
    // One that somebody interrupted has to run again.
    let has_ended = !matches!(spec.state.as_str(), "interrupted" | "aborted");
    if spec.leaf_node_type != "It" || !is_selected || !has_ended {
        return None;
    }
    let mut name = spec.container_hierarchy_texts.unwrap_or_default();
    name.push(spec.leaf_node_text);
    let failure = message.split('\n').map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let outcome = Outcome {
        state: spec.state,
        seconds: (spec.run_time / 1e8).round() / 10.0,
        failure: failure.replace('\t', " "),
    };
    Some((name.join(" "), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_who_ran() {
        let report = r#"[{"SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-node] Pods", "when deleted"], "LeafNodeType": "It", "LeafNodeText": "should go [Conformance]",
             "State": "passed", "RunTime": 1234000000},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "alone", "State": "failed", "RunTime": 40000000,
             "Failure": {"Message": "\n  timed out:\n\tmore"}},
            {"ContainerHierarchyTexts": ["a"], "LeafNodeType": "It", "LeafNodeText": "not selected", "State": "skipped", "RunTime": 0},
            {"ContainerHierarchyTexts": ["a"], "LeafNodeType": "It", "LeafNodeText": "skips itself", "State": "skipped", "RunTime": 0,
             "Failure": {"Message": "needs two nodes"}},
            {"ContainerHierarchyTexts": ["a"], "LeafNodeType": "It", "LeafNodeText": "stopped", "State": "interrupted", "RunTime": 5},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed", "RunTime": 5}
        ]}, {"SpecReports": null}]"#;
        let outcome = |state: &str, seconds, failure: &str| Outcome {
            state: state.to_owned(),
            seconds,
            failure: failure.to_owned(),
        };
        let expected = [
            ("[sig-node] Pods when deleted should go [Conformance]".to_owned(), outcome("passed", 1.2, "")),
            ("alone".to_owned(), outcome("failed", 0.0, "timed out:")),
            ("a skips itself".to_owned(), outcome("skipped", 0.0, "needs two nodes")),
        ];
        assert_eq!(parse(report).unwrap(), expected);
    }
}
