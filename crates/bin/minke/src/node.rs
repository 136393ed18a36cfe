//! A node: runtime, images, network and kubelet, wired to an API server.

use crate::instance::Instance;
use crate::kubelet_flags;
use crate::places::{self, Places};
use anyhow::{Context, Result};
use client::transport::Transport;
use client::typed::Client;
use images::Images;
use node::Node;
use runtime::embedded::Embedded;
use runtime::types::Runtime;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Upstream's default (`--max-pods`).
const MAX_PODS: u32 = 110;

/// A node that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) node: Arc<Node>,
    pub(crate) images: Images,
    pub(crate) runtime: Arc<dyn Runtime>,
}

/// How the kubelet's API is served: clients are signed by the cluster's authority, or bring a token.
pub(crate) fn kubelet_tls(
    authority: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    Ok(config.with_single_cert(vec![certificate], key)?)
}

/// `transport` speaks as `system:node:NAME`, `tls` is how the kubelet's API is served.
pub(crate) async fn start(
    instance: &Instance,
    transport: Arc<dyn Transport>,
    tls: rustls::ServerConfig,
    shutdown: &CancellationToken,
    parts: &mut JoinSet<Result<()>>,
) -> Result<Running> {
    let (directory, record) = (&instance.directory, &instance.record);
    let addressing = record.addressing();
    let (addresses, pod_cidrs) = addressing.shown(record);
    places::claim(record)?;
    let places = Places::of(directory, record);
    let options =
        images::Options { registries_dir: Some(directory.join("registries.d")), ..images::Options::default() };
    let images = Images::open(&directory.join("images"), options)?;
    let network = node::network::Network::open(node::network::Options {
        instance: record.id.clone(),
        directory: directory.join("network"),
        node_addresses: addressing.node,
        pod_cidrs: addressing.pods,
        own_cidrs: addressing.own,
        dual_stack: record.dual_stack,
    })
    .await?;
    let runtime = Embedded::open(runtime::embedded::Options {
        instance: record.id.clone(),
        dir: directory.join("runtime"),
        shim_program: std::env::current_exe().context("cannot find my own program")?,
        images: images.clone(),
        network: Arc::new(network),
    })
    .await?;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let cri = runtime::cri::Options {
        runtime: runtime.clone(),
        directory: directory.join("runtime/cri"),
        version: env!("CARGO_PKG_VERSION"),
    };
    let socket = crate::admin::listen(directory, "cri.sock")?;
    crate::crictl::put(directory)?;
    parts.spawn(async move { runtime::cri::serve(cri, socket).await.context("the CRI socket failed") });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, record.kubelet_port)).await;
    let listener = listener.with_context(|| format!("the kubelet's port {} is in use", record.kubelet_port))?;
    let config = node::config::Config {
        name: record.node_name.clone(),
        data_dir: directory.clone(),
        kubelet_root: places.kubelet_root,
        pod_logs: places.pod_logs,
        container_logs: places.container_logs,
        kubelet_port: record.kubelet_port,
        tls: Arc::new(tls),
        addresses,
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        max_pods: MAX_PODS,
        pod_cidrs,
        manifest_url: record.kubelet.manifest_url.clone(),
        manifest_url_headers: record.kubelet.manifest_url_header.clone(),
        logs: kubelet_flags::logs(&record.kubelet)?,
        images: kubelet_flags::images(&record.kubelet)?,
        eviction: kubelet_flags::eviction(&record.kubelet)?,
        version: format!("v1.37.1+minke-{}", env!("CARGO_PKG_VERSION")),
    };
    let node = Arc::new(Node::build(config, Client::new(transport), runtime.clone()));
    let (running, end) = (node.clone(), shutdown.clone());
    parts.spawn(async move { Ok(running.run(listener, end).await?) });
    Ok(Running { node, images, runtime })
}
