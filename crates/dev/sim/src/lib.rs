//! The real store, API server, controllers, scheduler and kubelet core in one thread on a virtual clock, over a faulty disk
//! and a fake container runtime. A seed decides everything that happens; the same seed gives the same trace.
//!
//! A run has two phases: first clients work while processes crash, disks fail and clocks jump (nothing wrong may ever be
//! seen), then the faults end and everything must come to rest where its owners want it.

mod check;
mod clients;
mod cluster;
mod dice;
mod door;
mod effects;
mod faults;
mod history;
mod node;
mod process;
mod runtime;
mod watcher;

pub use cluster::{Report, run};
