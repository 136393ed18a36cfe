//! The process that shims are forked from: started when the first is needed, and again when somebody killed it.

use super::lock;
use shim::Spawner;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

pub(super) struct Shims {
    instance: String,
    /// Cgroup directories that the shims live in.
    groups: Vec<String>,
    /// The shims' program, which nobody can write through them.
    executable: OwnedFd,
    running: Mutex<Option<(Spawner, Child)>>,
}

impl Shims {
    pub(super) fn new(instance: &str, groups: Vec<String>, executable: OwnedFd) -> Shims {
        Shims { instance: instance.to_owned(), groups, executable, running: Mutex::default() }
    }

    /// Starts a shim; see [`Spawner::spawn`].
    pub(super) fn spawn(&self, sandbox_id: &str, listener: &OwnedFd, log: &OwnedFd) -> std::io::Result<()> {
        let mut running = lock(&self.running);
        if let Some((spawner, _)) = &*running
            && spawner.spawn(sandbox_id, listener, log).is_ok()
        {
            return Ok(());
        }
        if let Some((_, mut child)) = running.take() {
            let _ = child.kill();
            child.wait()?;
        }
        let (spawner, _) = running.insert(self.start()?);
        spawner.spawn(sandbox_id, listener, log)
    }

    fn start(&self) -> std::io::Result<(Spawner, Child)> {
        let (spawner, theirs) = Spawner::pair()?;
        let mut command = Command::new(format!("/proc/self/fd/{}", self.executable.as_raw_fd()));
        command
            .arg0(shim::NAME)
            .args(&self.groups)
            .env_clear()
            .env("MINKE_INSTANCE", &self.instance)
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok((spawner, command.spawn()?))
    }
}

impl Drop for Shims {
    /// It ends when nobody can ask it any more.
    fn drop(&mut self) {
        if let Some((spawner, mut child)) = lock(&self.running).take() {
            drop(spawner);
            let _ = child.wait();
        }
    }
}
