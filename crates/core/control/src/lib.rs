//! The scheduler and every controller as pure functions: `plan(view, key, now) -> Plan`.

pub mod controllers;
pub mod scheduler;
#[cfg(test)]
mod testing;
