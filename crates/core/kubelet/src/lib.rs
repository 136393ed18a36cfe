//! The life of a Pod on its node as a pure state machine: `step(state, input, now) -> actions and the next wake-up`.

pub mod access;
pub mod admission;
pub mod allocated;
pub mod allocation;
pub mod backoff;
pub mod conditions;
pub mod container;
pub mod credentials;
pub mod env;
mod env_file;
pub mod eviction;
pub mod files;
pub mod garbage;
pub mod logs;
pub mod machine;
pub mod node;
pub mod order;
pub mod phase;
pub mod pod;
pub mod recorder;
pub mod resources;
pub mod restart;
pub mod static_pods;
pub mod status;
pub mod termination;
