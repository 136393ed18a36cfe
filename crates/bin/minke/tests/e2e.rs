//! minke as its user sees it: the real binary, the real kernel, the real kubectl. Needs root; `cargo xtask test` sets what
//! it needs (`MINKE_TEST_KUBECTL`, `MINKE_TEST_IMAGES`, `MINKE_GOLDEN`). Each test has an instance of its own and proves at its end that
//! nothing of it is left.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "e2e/access.rs"]
mod access;
#[path = "e2e/agent.rs"]
mod agent;
#[path = "e2e/behaviour.rs"]
mod behaviour;
#[path = "e2e/cgroups.rs"]
mod cgroups;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/commands.rs"]
mod commands;
#[path = "e2e/cri.rs"]
mod cri;
#[path = "e2e/default_instance.rs"]
mod default_instance;
#[path = "e2e/eviction.rs"]
mod eviction;
#[path = "e2e/kubectl.rs"]
mod kubectl;
#[path = "e2e/network.rs"]
mod network;
#[path = "e2e/node.rs"]
mod node;
#[path = "e2e/pods.rs"]
mod pods;
#[path = "e2e/port_forward.rs"]
mod port_forward;
#[path = "e2e/probes.rs"]
mod probes;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/registry.rs"]
mod registry;
#[path = "e2e/resize.rs"]
mod resize;
#[path = "e2e/static_pods.rs"]
mod static_pods;
