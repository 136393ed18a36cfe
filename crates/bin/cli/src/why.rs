//! `minke why KIND/NAME`: the root cause, the evidence, the fix. Works on any cluster that a kubeconfig names.

use crate::arguments::Why;
use anyhow::{Result, bail};
use client::remote::Remote;
use client::transport::ListQuery;
use client::typed::{Client, decode, target};
use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

/// Prints it; true when nothing is wrong.
pub async fn run(arguments: &Why) -> Result<bool> {
    let Some(("pod" | "pods" | "po", name)) = arguments.object.split_once('/') else {
        bail!("{:?}: minke can only explain pod/NAME yet", arguments.object);
    };
    let of_environment = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    let default = arguments.instance.data_dir.join("admin.kubeconfig");
    let kubeconfig = arguments.kubeconfig.clone().or(of_environment).unwrap_or(default);
    let remote = Arc::new(Remote::from_kubeconfig(&kubeconfig).await?);
    let client = Client::new(remote.clone());
    let pod = client.get::<Pod>(&arguments.namespace, name).await?;
    let query = ListQuery {
        target: target::<Event>(&arguments.namespace, ""),
        field_selector: format!("involvedObject.uid={}", pod.metadata.uid.as_deref().unwrap_or_default()),
        ..ListQuery::default()
    };
    let objects = client.transport().list(&query).await?.items;
    let mut events: Vec<Event> = Vec::new();
    for object in &objects {
        events.push((*decode::<Event>(object)?).clone());
    }
    events.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
    let mut cause = explain::pod::explain(&pod, &events);
    if cause.is_none() && is_minke(&remote).await? {
        cause = explain::pod::unheeded(&pod);
    }
    match cause {
        Some(cause) => {
            println!("{}", cause.what);
            for evidence in cause.evidence {
                println!("  {evidence}");
            }
            println!("Fix: {}", cause.fix);
            Ok(false)
        }
        None => {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
            println!("pod/{name} is {phase}; nothing is known to be wrong with it");
            Ok(true)
        }
    }
}

/// Whether the server is one of ours, by its own word.
async fn is_minke(remote: &Remote) -> Result<bool> {
    let mut version = String::new();
    pin!(remote.stream("/version").await?).read_to_string(&mut version).await?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    Ok(version["gitVersion"].as_str().is_some_and(|version| version.ends_with("+minke")))
}
