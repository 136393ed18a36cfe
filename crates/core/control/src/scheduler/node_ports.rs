//! `NodePorts`: host ports are free.

use super::{Cycle, NodeInfo, Verdict};
use k8s_openapi::api::core::v1::Pod;

/// Address, protocol and number.
type Port = (String, String, i32);

pub(super) fn filter(cycle: &Cycle<'_>, info: &NodeInfo) -> Verdict {
    let wanted = ports(cycle.pod);
    let taken: Vec<_> =
        if wanted.is_empty() { Vec::new() } else { info.pods.iter().flat_map(|pod| ports(pod)).collect() };
    if wanted.iter().any(|port| taken.iter().any(|other| conflict(port, other))) {
        return Verdict::fails("node(s) didn't have free ports for the requested pod ports");
    }
    Verdict::Fits
}

fn ports(pod: &Pod) -> Vec<Port> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let own = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    };
    ports.filter_map(own).collect()
}

fn conflict(a: &Port, b: &Port) -> bool {
    let any = |address: &str| address == "0.0.0.0";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}
