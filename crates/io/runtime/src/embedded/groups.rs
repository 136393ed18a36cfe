//! Where the instance's cgroups lie: below the root of every hierarchy, or, where systemd rules cgroup v2, in a scope
//! that it hands over.

use super::{failed, scope};
use crate::types::RuntimeError;
use shim::cgroup::Hierarchies;
use std::path::Path;

/// Named below every hierarchy's root.
pub(super) struct Groups {
    pub(super) base: String,
}

/// Holds the base's name; written before anything is made there.
const RECORD: &str = "cgroup";

/// Where systemd puts scopes that nobody's session asked for.
const SLICE: &str = "system.slice/";

impl Groups {
    fn plain(instance: &str) -> Groups {
        Groups { base: format!("minke-{instance}") }
    }

    pub(super) fn shims(&self) -> String {
        format!("{}/shims", self.base)
    }

    /// Of a Pod: `parent` is what the kubelet calls its group.
    pub(super) fn pod(&self, parent: &str) -> String {
        format!("{}/{}", self.pods(), parent.trim_matches('/'))
    }

    pub(super) fn pods(&self) -> String {
        format!("{}/pods", self.base)
    }

    /// A scope is systemd's to end: one that vanishes by itself stays in its lists.
    pub(super) fn give_back(&self) {
        let Some(name) = self.base.strip_prefix(SLICE).filter(|_| scope::booted()) else { return };
        if let Err(e) = scope::stop(name) {
            tracing::warn!(scope = name, error = %e, "systemd does not stop the scope");
        }
    }

    /// Where they were made.
    pub(super) fn recorded(instance: &str, dir: &Path) -> Result<Groups, RuntimeError> {
        let path = dir.join(RECORD);
        match std::fs::read_to_string(&path) {
            Ok(base) if !base.is_empty() => Ok(Groups { base }),
            Ok(_) => Ok(Groups::plain(instance)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Groups::plain(instance)),
            Err(e) => Err(failed(path.display())(e)),
        }
    }

    /// Takes up the groups there are, or chooses a place, and makes what everything else is made in.
    pub(super) fn make(instance: &str, dir: &Path, hierarchies: &mut Hierarchies) -> Result<Groups, RuntimeError> {
        let mut groups = Groups::recorded(instance, dir)?;
        if !hierarchies.exists(&groups.base) {
            groups = Groups::plain(instance);
            if hierarchies.is_v2() && scope::booted() {
                groups = in_scope(instance, dir)?.unwrap_or(groups);
            }
            record(dir, &groups.base)?;
        }
        if groups.base.starts_with(SLICE) {
            hierarchies.own(&groups.base);
        }
        let shims = groups.shims();
        hierarchies.create(&shims).map_err(failed("cgroup of the shims"))?;
        Ok(groups)
    }
}

/// `None`: systemd will not; then it is as without it.
fn in_scope(instance: &str, dir: &Path) -> Result<Option<Groups>, RuntimeError> {
    let name = format!("minke-{instance}.scope");
    let base = format!("{SLICE}{name}");
    record(dir, &base)?;
    // systemd ends a scope when its last process does; this one waits for nothing.
    let keeper = shim::start_pause().map_err(|e| failed("starting the scope's process")(e.into()))?;
    let started = scope::start(&name, keeper.pid.unsigned_abs());
    if let Err(e) = &started {
        tracing::warn!(scope = name, error = %e, "systemd starts no scope; the Pods' cgroups lie beside its own");
        let _ = shim::sys::pidfd_send_signal(keeper.pidfd, libc::SIGKILL);
        let _ = shim::sys::wait(keeper.pid, 0);
    }
    shim::sys::close(keeper.pidfd);
    Ok(started.is_ok().then_some(Groups { base }))
}

fn record(dir: &Path, base: &str) -> Result<(), RuntimeError> {
    super::state::write_bytes(dir, RECORD, base.as_bytes()).map_err(failed(dir.display()))
}

pub(super) fn forget(dir: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_file(dir.join(RECORD)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(dir.display())(e)),
        _ => Ok(()),
    }
}
