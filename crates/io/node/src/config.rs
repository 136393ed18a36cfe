//! What a node must be told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The settings of one node; made by the binary.
#[derive(Clone)]
pub struct Config {
    /// The Node object's name.
    pub name: String,
    /// `manifests/` stands in it.
    pub data_dir: PathBuf,
    /// `pods/` stands in it: the kubelet's root.
    pub kubelet_root: PathBuf,
    /// Pods' logs: `NS_NAME_UID/CONTAINER/N.log`.
    pub pod_logs: PathBuf,
    /// Where links to the logs stand for collectors, `POD_NS_CONTAINER-ID.log`, if anywhere.
    pub container_logs: Option<PathBuf>,
    /// The node's own addresses, the primary first.
    pub addresses: Vec<IpAddr>,
    /// Where the kubelet's API answers, as the Node object tells.
    pub kubelet_port: u16,
    /// Serving certificate, and the CA that clients must be signed by.
    pub tls: Arc<rustls::ServerConfig>,
    /// Name servers of Pods with `dnsPolicy: ClusterFirst`; empty: the node's own.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Most Pods on this node.
    pub max_pods: u32,
    /// Pods' address ranges (CIDR), for `spec.podCIDRs`.
    pub pod_cidrs: Vec<String>,
    /// Where static Pods are asked for, beside `manifests/`, and with which headers (`Name: value`).
    pub manifest_url: Option<String>,
    pub manifest_url_headers: Vec<String>,
    /// The kubelet's version as the Node shows it.
    pub version: String,
}
