//! How components talk to the API: one transport trait (in process or over TLS), typed calls, informers, work queues.

pub mod transport;
