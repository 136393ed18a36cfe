//! The life of a Pod on its node as a pure state machine: `step(state, input, now) -> actions and the next wake-up`.

pub mod pod;
