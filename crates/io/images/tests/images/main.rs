//! The image store against real archives, a real registry (Debian's docker-registry on loopback) and the real kernel.
//! Needs root: layers have owners, devices and trusted attributes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // its servers end with the test

mod import;
mod pull;
mod support;
mod unpack;
