//! From ready to the end of a server or an agent.

use anyhow::Result;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// True: everything is to be stopped, Pods too. False: only this process ends.
pub(crate) async fn supervise(stop: &Notify, parts: &mut JoinSet<Result<()>>) -> Result<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(false),
        () = stop.notified() => Ok(true),
        failed = first_failure(parts) => Err(failed),
    }
}

/// Parts run for ever: the first that ends has failed.
pub(crate) async fn first_failure(parts: &mut JoinSet<Result<()>>) -> anyhow::Error {
    match parts.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(panic)) => anyhow::anyhow!("a part panicked: {panic}"),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part ended by itself"),
    }
}

/// Whoever started us reads this.
#[allow(clippy::print_stdout)]
pub(crate) fn say_ready() {
    println!("ready");
}
