//! The house's rules that no compiler checks.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may use whom of our own crates; a name not listed may use nobody.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &["schema"]),
    ("control", &["api", "schema"]),
    ("kubelet", &["api", "schema"]),
    ("network", &["api", "schema"]),
    ("explain", &["api", "schema"]),
    ("apiserver", &["api", "schema", "store"]),
    ("client", &["api"]),
    ("netlink", &["network"]),
    ("runtime", &["shim", "images"]),
    ("node", &["control", "kubelet", "network", "runtime", "netlink", "client", "api", "schema"]),
    ("cli", &["client", "explain", "api"]),
    (
        "minke",
        &[
            "api",
            "apiserver",
            "cli",
            "client",
            "control",
            "explain",
            "images",
            "kubelet",
            "netlink",
            "network",
            "node",
            "runtime",
            "schema",
            "shim",
            "store",
        ],
    ),
    ("bench", &["netlink", "shim", "store"]),
    ("sim", &["api", "apiserver", "client", "control", "kubelet", "schema", "store"]),
];

/// Crates that must not reach tokio by any path, and what else stays out of the pure ones.
const PURE: &[&str] = &["schema", "api", "control", "kubelet", "network", "explain"];
/// Modules that are compiled for tests only.
const TEST_MODULES: &[&str] = &["golden", "tests", "testing"];
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "rand::",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

pub(crate) fn run() -> Result<()> {
    let text = crate::process::output("cargo", ["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
    let ours: Vec<&Package> =
        metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id)).collect();
    let mut problems = edges(&ours);
    problems.extend(tokio_free(&metadata, &ours));
    for package in &ours {
        let root = package.manifest_path.parent().context("a manifest has no directory")?;
        for file in sources(&root.join("src"))? {
            problems.extend(source(&package.name, &file)?);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn edges(ours: &[&Package]) -> Vec<String> {
    let names: BTreeSet<&str> = ours.iter().map(|package| package.name.as_str()).collect();
    let mut problems = Vec::new();
    for package in ours {
        let allowed = EDGES.iter().find(|(name, _)| *name == package.name).map_or(&[][..], |(_, allowed)| allowed);
        let used = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
        for dependency in used.filter(|dependency| names.contains(dependency.name.as_str())) {
            if !allowed.contains(&dependency.name.as_str()) {
                problems.push(format!("{} must not depend on {}", package.name, dependency.name));
            }
        }
    }
    problems
}

fn tokio_free(metadata: &Metadata, ours: &[&Package]) -> Vec<String> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let names: BTreeMap<&str, &str> = metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let mut problems = Vec::new();
    for package in ours.iter().filter(|package| PURE.contains(&package.name.as_str()) || package.name == "shim") {
        let mut seen = BTreeSet::new();
        let mut open = vec![package.id.as_str()];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if names.get(id) == Some(&"tokio") {
                problems.push(format!("{} reaches tokio", package.name));
            }
            let normal = |dependency: &&NodeDependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(nodes[id].deps.iter().filter(normal).map(|dependency| dependency.pkg.as_str()));
        }
    }
    problems
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn source(package: &str, path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let place = path.display();
    let mut problems = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("// Code generated") {
        problems.push(format!("{place}: no module header (//!)"));
    }
    if path.file_name().is_some_and(|name| name == "mod.rs") {
        problems.push(format!("{place}: write foo.rs beside foo/, not mod.rs"));
    }
    let of_tests =
        path.iter().any(|part| TEST_MODULES.iter().any(|name| part.to_string_lossy().trim_end_matches(".rs") == *name));
    if PURE.contains(&package) && !of_tests {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in IMPURE_WORDS.iter().filter(|word| code.contains(*word)) {
            problems.push(format!("{place}: {word} in a pure crate"));
        }
    }
    Ok(problems)
}
