//! After a restart: what the state directory says there should be, held against what there is.

use super::container::{self, Container, Phase};
use super::link::Link;
use super::sandbox::{self, Sandbox};
use super::state::{self, ContainerRecord, ReadyRecord, SandboxRecord};
use super::{Inner, failed, lock, purge};
use crate::types::RuntimeError;
use shim::proto::{ContainerInfo, Empty, Reply, Request, StateInfo, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Takes up every recorded sandbox. What cannot be understood is logged and left to `purge`.
pub(super) async fn recover(inner: &Arc<Inner>) -> Result<(), RuntimeError> {
    let dir = inner.dir.join("sandboxes");
    for entry in std::fs::read_dir(&dir).map_err(failed(dir.display()))?.flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        if let Err(e) = recover_sandbox(inner, &id, &entry.path()).await {
            tracing::error!(sandbox = id, error = %e, "a recorded sandbox could not be taken up");
        }
    }
    let state = inner.dir.clone();
    inner.tasks.tracker.spawn_blocking(move || purge::clear_removed(&state));
    // Images removed while their containers ran are kept by the leases just taken; the others can go.
    inner.images.collect().map_err(|e| RuntimeError::Failed(e.to_string()))
}

async fn recover_sandbox(inner: &Arc<Inner>, id: &str, dir: &Path) -> Result<(), RuntimeError> {
    let Some(record) = state::read::<SandboxRecord>(dir, state::SANDBOX).map_err(failed(dir.display()))? else {
        // It ended before the record was whole: nothing of it was made.
        return purge::remove_dir(dir);
    };
    inner.user_ranges.hold(&record.config);
    let sandbox = Arc::new(Sandbox::new(id.to_owned(), dir.to_owned(), record));
    let ready = state::read::<ReadyRecord>(dir, state::READY).map_err(failed(dir.display()))?;
    let (sender, events) = mpsc::unbounded_channel();
    let link = Link::open(&inner.tasks, dir, id, sender).await;
    let Some(ready) = ready else {
        // Nobody was told of it.
        if let Ok(link) = link {
            sandbox.adopt(inner, link, events);
        }
        return sandbox::discard(inner, &sandbox).await;
    };
    sandbox.set_ips(ready.ips);
    if dir.join(state::STOPPED).exists() {
        sandbox.set_stopped();
    }
    // Exits are told from the moment the link is open, and the state is asked for after: none falls in between.
    let info = match &link {
        Ok(link) => match link.call(Request::State(Empty {})).await? {
            Reply::State(info) => Some(info),
            other => return Err(RuntimeError::Failed(format!("the shim answered {other:?}"))),
        },
        Err(_) => None,
    };
    recover_containers(inner, &sandbox, info.as_ref(), link.as_ref().ok()).await?;
    lock(&inner.sandboxes).insert(id.to_owned(), sandbox.clone());
    match link {
        Ok(link) => sandbox.adopt(inner, link, events),
        Err(_) => sandbox::lose_containers(inner, &sandbox).await,
    }
    Ok(())
}

async fn recover_containers(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    info: Option<&StateInfo>,
    link: Option<&Link>,
) -> Result<(), RuntimeError> {
    let mut told: BTreeMap<&str, &ContainerInfo> = BTreeMap::new();
    for container in info.iter().flat_map(|info| &info.containers) {
        told.insert(&container.id, container);
    }
    let dir = sandbox.dir.join(state::CONTAINERS);
    for entry in std::fs::read_dir(&dir).map_err(failed(dir.display()))?.flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        let dir = entry.path();
        let record = state::read::<ContainerRecord>(&dir, state::CONTAINER).map_err(failed(dir.display()))?;
        let Some(record) = record else {
            purge::remove_dir(&dir)?;
            continue;
        };
        let exit = shim::read_exit(&dir).map_err(failed(dir.display()))?;
        let phase = match (exit, told.get(id.as_str())) {
            (Some(record), _) => exited(&record),
            (None, Some(info)) if info.started_at_ns != 0 => match &info.exit {
                Some(record) => exited(record),
                None => Phase::Running { pid: info.pid, started_at_ns: info.started_at_ns },
            },
            (None, Some(_)) => {
                // It waits before its program, and whoever was to let it go is gone.
                if let Some(link) = link {
                    let _ = link.call(Request::Delete(Target { id: id.clone() })).await;
                }
                Phase::Exited { exit: container::unknown_exit(), started_at_ns: 0 }
            }
            // The planned process is written before the shim is asked.
            (None, None) if dir.join(state::PROCESS).exists() => match link {
                Some(_) => Phase::Exited { exit: container::unknown_exit(), started_at_ns: 0 },
                None => Phase::Running { pid: 0, started_at_ns: record.created_at_ns },
            },
            (None, None) => Phase::Created,
        };
        let leases = container::leases(inner, &record.config).unwrap_or_else(|e| {
            tracing::warn!(container = id, error = %e, "a container's image is gone");
            Vec::new()
        });
        sandbox.insert(Arc::new(Container::new(sandbox, id, record, phase, leases)));
    }
    Ok(())
}

fn exited(record: &shim::proto::ExitRecord) -> Phase {
    let (exit, started_at_ns) = container::exit_of(record);
    Phase::Exited { exit, started_at_ns }
}
