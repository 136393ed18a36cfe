//! What goes wrong, and when.

use crate::cluster::{NODES, Sim};
use crate::process;
use std::sync::Arc;
use std::time::Duration;
use store::disk::faulty::Faults;

/// To the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The process is killed and the machine goes on.
    Kill,
    /// The machine loses what it had not synced.
    PowerLoss,
}

/// Lets something go wrong every few seconds.
pub(crate) async fn run(sim: Arc<Sim>, duration: Duration) {
    while sim.monotonic() < duration {
        tokio::time::sleep(sim.dice.millis(20_000)).await;
        one(&sim).await;
    }
    process::heal(&sim);
}

async fn one(sim: &Arc<Sim>) {
    match sim.dice.below(9) {
        0 | 1 => order(sim, Order::PowerLoss),
        2 => order(sim, Order::Kill),
        3 => {
            let nth = 1 + sim.dice.below(12);
            let (fail_write, fail_sync) = if sim.dice.percent(50) { (nth, 0) } else { (0, nth) };
            sim.trace(&format!("disk: write {fail_write} or sync {fail_sync} will fail"));
            sim.disk.set_faults(Faults { fail_write, fail_sync, fail_read: 0 });
        }
        4 => {
            sim.trace("disk: full");
            sim.disk.set_capacity(Some(sim.disk.used_bytes() + sim.dice.below(300 << 10)));
            tokio::time::sleep(sim.dice.millis(15_000)).await;
            sim.disk.set_capacity(None);
            sim.trace("disk: room again");
        }
        5 => step(sim, if sim.dice.percent(50) { -3_600_000 } else { 90_000 }),
        // Suspended: the wall clock went on, nothing else did.
        6 => step(sim, 8 * 3_600_000),
        7 => {
            let node = usize::try_from(sim.dice.below(NODES as u64)).unwrap_or(0);
            sim.nodes[node].lose_sandbox(sim);
        }
        _ => {
            let node = usize::try_from(sim.dice.below(NODES as u64)).unwrap_or(0);
            sim.nodes[node].lose_container(sim);
        }
    }
}

fn order(sim: &Sim, order: Order) {
    sim.trace(&format!("{order:?}"));
    // The supervisor outlives all faults.
    let _ = sim.orders.send(order);
}

fn step(sim: &Sim, by_ms: i64) {
    sim.trace(&format!("clock set by {by_ms} ms"));
    sim.step_clock(by_ms);
}
