//! `minke status`: how the instance is.

use crate::admin::Admin;
use crate::arguments::Status;
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What is shown, in this order.
const ROWS: [(&str, &str); 8] = [
    ("version", "minke"),
    ("kubernetesVersion", "Kubernetes"),
    ("dataDir", "data directory"),
    ("pid", "process"),
    ("server", "API server"),
    ("kubeconfig", "kubeconfig"),
    ("node", "node"),
    ("nodeAddress", "node address"),
];

/// Prints it; an error when the instance does not run or is not healthy.
pub async fn run(arguments: Status) -> Result<()> {
    let directory = &arguments.instance.data_dir;
    let answer = Admin::new(directory).get("/status").await;
    let crash = directory.join("crash.txt");
    let answer = if crash.exists() {
        answer.with_context(|| format!("its last crash is told in {}", crash.display()))?
    } else {
        answer?
    };
    let status: Value = serde_json::from_slice(&answer)?;
    if arguments.output.as_deref() == Some("json") {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", table(&status));
    }
    if status["healthy"] != true {
        bail!("minke is not healthy: {}", status["problem"].as_str().unwrap_or("it does not say why"));
    }
    Ok(())
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text.push_str(&format!("{name:<16}{value}\n"));
    for (field, name) in ROWS {
        match &status[field] {
            Value::Null => {}
            Value::String(value) => row(name, value),
            value => row(name, &value.to_string()),
        }
    }
    let memory = &status["memoryBytes"];
    if let (Some(server), Some(shims)) = (memory["server"].as_u64(), memory["shims"].as_u64()) {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let count = memory["shimCount"].as_u64().unwrap_or_default();
        row("memory (PSS)", &format!("{:.1} MB, and {:.1} MB of {count} shims", megabytes(server), megabytes(shims)));
    }
    for name in ["host", "manifests"] {
        for sentence in status[name].as_array().into_iter().flatten().filter_map(Value::as_str) {
            row(name, sentence);
        }
    }
    row("healthy", if status["healthy"] == true { "yes" } else { "no" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_there_is_not_shown() {
        let status = json!({"version": "0.1.0", "pid": 7, "healthy": false, "host": ["ufw runs here"],
            "manifests": ["/m/web.yaml: invalid pod"]});
        let lines = "minke           0.1.0\nprocess         7\nhost            ufw runs here\n\
            manifests       /m/web.yaml: invalid pod\nhealthy         no\n";
        assert_eq!(table(&status), lines);
    }
}
