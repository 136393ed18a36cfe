//! What a node must be told.

use kubelet::eviction;
use kubelet::garbage::{ImagePolicy, LogPolicy};
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
    /// When containers' logs are rotated.
    pub logs: LogPolicy,
    /// When images are cleared away.
    pub images: ImagePolicy,
    /// When Pods are evicted.
    pub eviction: eviction::Settings,
    /// The kubelet's version as the Node shows it.
    pub version: String,
}

impl Config {
    /// As `/configz` shows it: the `KubeletConfiguration` in force, as far as there are such settings here.
    pub(crate) fn shown(&self) -> serde_json::Value {
        serde_json::json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "staticPodPath": self.data_dir.join("manifests"),
            "staticPodURL": self.manifest_url,
            "port": self.kubelet_port,
            "authentication": {
                "x509": {},
                "webhook": {"enabled": true, "cacheTTL": "2m0s"},
                "anonymous": {"enabled": false},
            },
            "authorization": {
                "mode": "Webhook",
                "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
            },
            "clusterDomain": self.cluster_domain,
            "clusterDNS": self.cluster_dns,
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": kubelet::node::LEASE_DURATION_S,
            "maxPods": self.max_pods,
            "podLogsDir": self.pod_logs,
            "containerLogMaxSize": self.logs.max_bytes.to_string(),
            "containerLogMaxFiles": self.logs.max_files,
            "imageGCHighThresholdPercent": self.images.high_percent,
            "imageGCLowThresholdPercent": self.images.low_percent,
            "evictionPressureTransitionPeriod": format!("{}s", self.eviction.transition_period.as_secs()),
            "evictionMaxPodGracePeriod": self.eviction.max_pod_grace_period_s,
            "evictionHard": self.eviction.shown(false),
            "evictionSoft": self.eviction.shown(true),
            "imageMinimumGCAge": format!("{}s", self.images.minimum_age.as_secs()),
        }})
    }
}
