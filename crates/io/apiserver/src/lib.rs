//! The API server: one visible pipeline from a request to the store and back, callable below HTTP.
//!
//! `request -> identity -> authorization -> decode -> mutate -> validate -> store`; reads come from the watch cache.
//! [`server::ApiServer::handle`] is the whole of it; `http` puts TLS around, the typed doors of `doors` leave HTTP out.

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod body;
pub mod bootstrap;
mod cache;
mod call;
mod commit;
mod convert;
mod create;
mod decode_body;
mod delete;
mod delete_options;
pub mod doors;
mod errors;
mod fixed_paths;
mod go_order;
pub mod http;
mod initial_objects;
pub mod lookup;
mod managed_fields;
pub mod metrics;
pub mod missing_controllers;
mod negotiate;
mod paging;
mod partial;
mod patch;
pub mod pki;
mod query;
mod read;
pub mod refusal;
mod request;
mod respond;
mod select;
mod selector;
pub mod server;
mod service_addresses;
mod stored;
mod subresources;
mod table_form;
mod update;
mod verbs;
mod watch;
pub mod world;
mod yaml;
