//! A Pod's shim: the process that owns its namespaces, streams and exit codes, so that the daemon may come and go.
//! And the launcher, which makes containers. One thread, system calls only, no runtime.

pub mod capabilities;
pub mod cgroup;
mod device_filter;
pub mod executable;
pub mod launch;
pub mod log;
mod pause;
pub mod plan;
pub mod proto;
pub mod seccomp;
mod server;
pub mod sys;
pub mod wire;

pub use server::{NAME, Spawner, is_shim, main, read_exit};

/// Starts a process of a few instructions that waits until it is killed: it keeps what needs a process to be kept.
pub fn start_pause() -> sys::Result<sys::Child> {
    pause::start(&[], None)
}
