//! `NodeName`: only the named node will do.

use super::{Cycle, NodeInfo, Verdict, node_of};

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    match node_of(cycle.pod) {
        Some(name) if name != info.name() => Verdict::never("node(s) didn't match the requested node name"),
        _ => Verdict::Fits,
    }
}
