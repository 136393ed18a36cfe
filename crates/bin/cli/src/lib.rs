//! What a person types. Commands that only talk to a running minke live here; those that start or end one are the
//! binary's.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod admin;
pub mod arguments;
pub mod completion;
pub mod image;
pub mod kubeconfig;
pub mod manifests;
pub mod run;
pub mod status;
pub mod token;
pub mod why;
