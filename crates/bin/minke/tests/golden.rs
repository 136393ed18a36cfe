//! Requests to a real kube-apiserver 1.37.1 and its answers, played on minke (see `golden/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MINKE: &str = env!("CARGO_BIN_EXE_minke");

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../golden")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A control plane alone, stopped and removed at the end.
struct Server(tempfile::TempDir);

impl Server {
    fn start() -> Self {
        let server = Self(tempfile::Builder::new().prefix("minke-golden-").tempdir().unwrap());
        let output = Command::new(MINKE).args(["up", "--no-node", "--data-dir"]).arg(server.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Command::new(MINKE).args(["down", "--purge", "--data-dir"]).arg(self.0.path()).output().ok();
    }
}

/// Groups that hold for every kind; the others join as their kinds get rules and controllers.
const GROUPS: &[&str] = &[
    "apply",
    "authn",
    "authz",
    "create",
    "decode",
    "decode-pod",
    "delete",
    "discovery",
    "escalation",
    "invalid-metadata",
    "invalid-pod",
    "paging",
    "patch-json",
    "patch-merge",
    "patch-strategic",
    "protocol",
    "rbac-defaults",
    "read",
    "sar",
    "scale",
    "selectors",
    "status",
    "subresource",
    "table",
    "table-pods",
    "tokens",
    "update",
    "update-pod",
    "warnings",
    "watch",
    "watch-kinds",
];

/// In the groups of bad input these kinds are complete.
const COMPLETE: &[&str] = &[
    "apiservices",
    "clusterrolebindings",
    "clusterroles",
    "configmaps",
    "cronjobs",
    "daemonsets",
    "deployments",
    "endpoints",
    "endpointslices",
    "events",
    "horizontalpodautoscalers",
    "ingressclasses",
    "ingresses",
    "jobs",
    "leases",
    "limitranges",
    "mutatingwebhookconfigurations",
    "namespaces",
    "networkpolicies",
    "nodes",
    "poddisruptionbudgets",
    "pods",
    "podtemplates",
    "priorityclasses",
    "replicasets",
    "replicationcontrollers",
    "resourcequotas",
    "rolebindings",
    "roles",
    "runtimeclasses",
    "secrets",
    "serviceaccounts",
    "services",
    "statefulsets",
    "storageclasses",
    "validatingwebhookconfigurations",
];

#[test]
fn the_api_answers_as_upstream_does() {
    let server = Server::start();
    replay(&server, &GROUPS.iter().flat_map(|group| ["--group", group]).collect::<Vec<_>>());
    let cases = format!("^(invalid|invalid-update|mutate|patch)/({})[./]", COMPLETE.join("|"));
    replay(&server, &["--only", &cases]);
}

/// Plays the cases that `choice` picks. A warning of minke's own (that it has no controller for a kind, or heeds no field) is
/// no difference, and nothing waits long: what a controller of ours does it does at once.
fn replay(server: &Server, choice: &[&str]) {
    let cases = PathBuf::from(std::env::var_os("MINKE_GOLDEN").expect("MINKE_GOLDEN: run by `cargo xtask test`"));
    let mut replay = Command::new("python3");
    replay
        .arg(golden().join("replay.py"))
        .arg("check")
        .arg("--kubeconfig")
        .arg(server.0.path().join("admin.kubeconfig"));
    replay.arg("--known-gaps").arg(golden().join("known-gaps.txt")).args(["--diffs", "40"]).arg(cases.join("api"));
    replay.args(["--wait", "5", "--own-warnings", "minke (stores|does not act)"]).args(choice);
    let output = replay.output().unwrap();
    let text = said(&output);
    let tail: Vec<_> = text.lines().rev().take(200).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "{tail}");
    assert!(!text.contains("no longer gaps"), "take these from golden/known-gaps.txt: {tail}");
}
