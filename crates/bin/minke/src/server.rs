//! A server: every part built, wired and supervised. No part knows another but through what is handed to it here.

use crate::admin::{self, Admin};
use crate::in_process::InProcess;
use crate::instance::{self, Instance};
use crate::up::DETACHED;
use anyhow::{Context, Result, bail};
use apiserver::authentication::User;
use apiserver::authorization::Authorizer;
use apiserver::pki::{self, Pki, ServerCertificate, ServerNames};
use apiserver::server::{ApiServer, Config as ApiConfig};
use apiserver::world::System;
use cli::arguments::Settings;
use client::transport::{ListQuery, ObjectEvent, Transport};
use client::typed::{Client, target};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::clock::SystemClock;
use store::disk::file::FileDisk;
use store::embedded::Embedded;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Open requests are given so long when the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// Runs until a signal or `minke down`.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let instance = Instance::open(settings)?;
    let record = &instance.record;
    if !record.no_node && !rustix::process::geteuid().is_root() {
        bail!("a node needs root; run as root, or start the control plane alone with --no-node");
    }
    if std::env::var_os(DETACHED).is_some() {
        // Fails only for the leader of a group, which has no terminal to lose.
        rustix::process::setsid().ok();
    }
    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<Result<()>> = JoinSet::new();
    let pki = Pki::open(&instance.directory.join("pki"), Timestamp::now())?;
    let store = open_store(&instance.directory.join("db"), &mut parts)?;
    let mut serving = JoinSet::new();
    let server = start_api(&instance, &pki, &store, &shutdown, (&mut parts, &mut serving)).await?;
    start_controllers(&server, &pki, &mut parts);
    let stop = Arc::new(Notify::new());
    let node = if record.no_node {
        None
    } else {
        Some(crate::node::start(&instance, &pki, &server, &shutdown, &mut parts).await?)
    };
    write_kubeconfigs(&instance, &pki)?;
    start_admin(&instance, &server, node.as_ref(), &stop, &mut parts)?;
    let ready = async {
        if let Some(node) = &node {
            node.node.ready().await;
        }
        default_service_account(&server).await
    };
    tokio::select! {
        ready = ready => ready?,
        failed = first_failure(&mut parts) => return Err(failed),
    }
    say_ready();
    let stopping = supervise(&stop, &mut parts).await?;
    shutdown.cancel();
    if stopping && let Some(node) = &node {
        node.node.tear_down().await.context("not everything could be ended")?;
    }
    store.close();
    // Open requests end; what runs for ever is dropped.
    tokio::time::timeout(GRACE, async { while serving.join_next().await.is_some() {} }).await.ok();
    Ok(())
}

/// True: everything is to be stopped, Pods too. False: only this process ends.
async fn supervise(stop: &Notify, parts: &mut JoinSet<Result<()>>) -> Result<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(false),
        () = stop.notified() => Ok(true),
        failed = first_failure(parts) => Err(failed),
    }
}

/// Parts run for ever: the first that ends has failed.
async fn first_failure(parts: &mut JoinSet<Result<()>>) -> anyhow::Error {
    match parts.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(panic)) => anyhow::anyhow!("a part panicked: {panic}"),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part ended by itself"),
    }
}

fn open_store(directory: &Path, parts: &mut JoinSet<Result<()>>) -> Result<Embedded> {
    instance::make_private(directory)?;
    let clock = SystemClock::new();
    let disk = FileDisk::open(directory)?;
    let (store, writer) = Embedded::open(disk, clock.now())?;
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("minke-store".to_owned());
    thread.spawn(move || {
        writer.run(move || clock.now());
        ended.send(()).ok();
    })?;
    parts.spawn(async move {
        end.await.ok();
        bail!("the store's writer ended")
    });
    Ok(store)
}

async fn start_api(
    instance: &Instance,
    pki: &Pki,
    store: &Embedded,
    shutdown: &CancellationToken,
    (parts, serving): (&mut JoinSet<Result<()>>, &mut JoinSet<()>),
) -> Result<Arc<ApiServer>> {
    let record = &instance.record;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, record.api_port)).await;
    let listener = listener
        .with_context(|| format!("port {} is in use; stop its owner, or purge and choose --port", record.api_port))?;
    let now = Timestamp::now();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let names =
        ServerNames::api_server(record.service_address(), &[host, record.node_name.clone()], &[record.node_address()]);
    let certificate = Arc::new(ServerCertificate::new(&pki.server("kube-apiserver", &names, now)?)?);
    let config = ApiConfig {
        kv: Arc::new(store.clone()),
        authenticator: apiserver::authentication::Authenticator {
            certificates: pki.client_authority()?,
            tokens: pki.tokens()?,
        },
        authorizer: Authorizer::default(),
        world: Arc::new(System),
        kubelet_client: Some(Arc::new(kubelet_client(pki, now)?)),
        advertised_address: format!("{}:{}", record.node_address(), record.api_port),
        service_cidrs: vec![record.service_cidr()],
        controllers: vec!["namespace", "serviceaccount", "root-ca-certificate-publisher"],
    };
    let server = ApiServer::start(config).await?;
    let (feeding, end) = (server.clone(), shutdown.clone());
    parts.spawn(async move { Ok(feeding.run(async move { end.cancelled().await }).await?) });
    let (served, end) = (server.clone(), shutdown.clone());
    let tls = Arc::new(pki::server_config(certificate)?);
    serving.spawn(async move {
        apiserver::http::serve(served, listener, tls, async move { end.cancelled().await }, GRACE).await;
    });
    Ok(server)
}

fn roots(pki: &Pki) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.authority().clone())?;
    Ok(roots)
}

/// How the API server reaches kubelets.
fn kubelet_client(pki: &Pki, now: Timestamp) -> Result<rustls::ClientConfig> {
    let leaf = pki.client("kube-apiserver-kubelet-client", &["system:masters"], now)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots(pki)?);
    Ok(config.with_client_auth_cert(vec![leaf.certificate], leaf.key)?)
}

/// How the kubelet's API is served: clients must be signed by our authority.
pub(crate) fn kubelet_server(pki: &Pki, name: &str, addresses: &[IpAddr]) -> Result<rustls::ServerConfig> {
    let names = ServerNames { dns: vec![name.to_owned()], addresses: addresses.to_vec() };
    let leaf = pki.server(&format!("system:node:{name}"), &names, Timestamp::now())?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(pki)?)).build()?;
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    Ok(config.with_single_cert(vec![leaf.certificate], leaf.key)?)
}

pub(crate) fn component(server: &Arc<ApiServer>, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
    Arc::new(InProcess { server: server.clone(), user: User::component(name, groups) })
}

fn start_controllers(server: &Arc<ApiServer>, pki: &Pki, parts: &mut JoinSet<Result<()>>) {
    let controllers = control::controllers::all();
    let reader = component(server, "system:kube-controller-manager", &[]);
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let writer = |name: &str| match name {
        "kube-scheduler" => component(server, "system:kube-scheduler", &[]),
        name => component(server, &format!("system:serviceaccount:kube-system:{name}"), &groups),
    };
    let writers = controllers.iter().map(|controller| writer(controller.name)).collect();
    let config = api::controller::Config { root_ca: pki.authority_pem().to_owned() };
    parts.spawn(async move {
        client::controllers::run(controllers, config, reader, writers, Arc::new(Timestamp::now)).await;
        bail!("the controllers ended")
    });
}

fn write_kubeconfigs(instance: &Instance, pki: &Pki) -> Result<()> {
    let record = &instance.record;
    let admin = pki.client("kubernetes-admin", &["system:masters"], Timestamp::now())?;
    let url = format!("https://127.0.0.1:{}", record.api_port);
    let text = pki::kubeconfig("minke", &url, pki.authority_pem(), &admin);
    pki::write_kubeconfig(&instance.directory.join("admin.kubeconfig"), &text)?;
    if let Some(path) = &record.kubeconfig {
        pki::write_kubeconfig(path, &text)?;
    }
    Ok(())
}

fn start_admin(
    instance: &Instance,
    server: &Arc<ApiServer>,
    node: Option<&crate::node::Running>,
    stop: &Arc<Notify>,
    parts: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let run = instance.directory.join("run");
    instance::make_private(&run)?;
    let listener = admin::listen(&run.join("admin.sock"))?;
    let facts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "server": format!("https://127.0.0.1:{}", instance.record.api_port),
        "kubeconfig": instance.directory.join("admin.kubeconfig"),
        "node": (!instance.record.no_node).then(|| instance.record.node_name.clone()),
    });
    let client = Client::new(component(server, "system:kube-controller-manager", &["system:masters"]));
    let status = move || status(client.clone(), facts.clone()).boxed();
    let node = node.map(|running| (running.images.clone(), running.runtime.clone()));
    let admin = Arc::new(Admin { node, status: Box::new(status), stop: stop.clone() });
    parts.spawn(admin::run(admin, listener));
    Ok(())
}

/// Healthy: the node, if there is one, is Ready.
async fn status(client: Client, mut facts: serde_json::Value) -> serde_json::Value {
    let Some(name) = facts["node"].as_str() else {
        facts["healthy"] = json!(true);
        return facts;
    };
    let node = client.get::<k8s_openapi::api::core::v1::Node>("", name).await;
    let ready = |node: &k8s_openapi::api::core::v1::Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    match node {
        Ok(node) => facts["healthy"] = json!(ready(&node)),
        Err(error) => {
            facts["healthy"] = json!(false);
            facts["problem"] = json!(error.to_string());
        }
    }
    facts
}

/// Pods can be created in `default` from now on.
async fn default_service_account(server: &Arc<ApiServer>) -> Result<()> {
    let reader = component(server, "system:kube-controller-manager", &[]);
    let query = ListQuery { target: target::<ServiceAccount>("default", ""), ..ListQuery::default() };
    let list = reader.list(&query).await?;
    if list.items.iter().any(|object| object.name == "default") {
        return Ok(());
    }
    let mut events = reader.watch(&query, list.revision).await?;
    while let Some(event) = events.next().await {
        if matches!(event?, ObjectEvent::Added(object) if object.name == "default") {
            return Ok(());
        }
    }
    bail!("the API server ended")
}

/// Whoever started us reads this.
#[allow(clippy::print_stdout)]
fn say_ready() {
    println!("ready");
}
