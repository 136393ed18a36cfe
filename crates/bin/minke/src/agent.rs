//! An agent: the node of a cluster whose API server runs elsewhere.

use crate::admin::Admin;
use crate::instance::{self, Flags, Instance};
use crate::join;
use crate::life::{first_failure, say_ready, supervise};
use crate::node::kubelet_tls;
use anyhow::{Context, Result};
use apiserver::pki::ServerNames;
use cli::arguments::Agent;
use client::typed::Client;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs until a signal or `minke down`.
pub(crate) async fn run(arguments: &Agent) -> Result<()> {
    instance::check(&arguments.instance.data_dir, &Flags::default())?;
    let server = arguments.server.trim_end_matches('/');
    let flags = Flags {
        node_name: arguments.node_name.clone(),
        server: Some(server.to_owned()),
        kubelet: arguments.kubelet.clone(),
        ..Flags::default()
    };
    let instance = Instance::open(&arguments.instance.data_dir, &flags)?;
    let record = &instance.record;
    let joined = join::join(&instance.directory, server, &record.node_name, arguments.token.as_deref()).await?;
    let names = ServerNames { dns: vec![record.node_name.clone()], addresses: vec![record.node_address()] };
    let identity = joined.serving(&names).await?;
    let tls = kubelet_tls(&joined.authority, identity.certificate, identity.key)?;
    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<Result<()>> = JoinSet::new();
    let node = crate::node::start(&instance, joined.transport.clone(), tls, &shutdown, &mut parts).await?;
    let stop = Arc::new(Notify::new());
    let admin = Admin {
        node: Some(node.clone()),
        client: Client::new(joined.transport),
        facts: json!({
            "id": record.id,
            "dataDir": instance.directory,
            "server": server,
            "node": record.node_name,
            "nodeAddress": record.node_address(),
        }),
        authority_hash: None,
        stop: stop.clone(),
    };
    admin.start(&instance.directory, &mut parts)?;
    tokio::select! {
        () = node.node.ready() => {}
        failed = first_failure(&mut parts) => return Err(failed),
    }
    say_ready();
    let stopping = supervise(&stop, &mut parts).await?;
    shutdown.cancel();
    if stopping {
        node.node.tear_down().await.context("not everything could be ended")?;
    }
    Ok(())
}
