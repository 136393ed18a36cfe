//! The proofs of the store: the contract that every engine fills, and that the embedded one loses nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod contract;
mod damage;
mod faults;
mod full;
mod kill;
