//! How components talk to the API: one transport trait (in process or over TLS), typed calls, informers, work queues.

pub mod controllers;
pub mod informer;
pub mod remote;
pub mod transport;
pub mod typed;
