//! A server: every part built, wired and supervised. No part knows another but through what is handed to it here.

use crate::admin::Admin;
use crate::certificates::Signer;
use crate::contexts;
use crate::in_process::InProcess;
use crate::instance::{self, Flags, Instance, Record};
use crate::life::{first_failure, say_ready, supervise};
use crate::node::kubelet_tls;
use anyhow::{Context, Result, bail};
use apiserver::authentication::{MASTERS, NODES, User};
use apiserver::authorization::Authorizer;
use apiserver::pki::{self, Pki, ServerCertificate, ServerNames};
use apiserver::server::{ApiServer, Config as ApiConfig};
use apiserver::world::System;
use cli::arguments::Settings;
use client::transport::{ListQuery, ObjectEvent, Transport};
use client::typed::{Client, target};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use rustls::RootCertStore;
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
    let flags = Flags::of(settings)?;
    instance::check(&settings.instance.data_dir, &flags)?;
    let instance = Instance::open(&settings.instance.data_dir, &flags)?;
    let record = &instance.record;
    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<Result<()>> = JoinSet::new();
    let pki = Arc::new(Pki::open(&instance.directory.join("pki"), Timestamp::now())?);
    let store = open_store(&instance.directory.join("db"), &mut parts)?;
    let mut serving = JoinSet::new();
    let server = start_api(&instance, &pki, &store, &shutdown, (&mut parts, &mut serving)).await?;
    start_controllers(&server, &pki, &mut parts);
    start_signer(&instance, &server, &pki, &mut parts);
    let stop = Arc::new(Notify::new());
    let node =
        if record.no_node { None } else { Some(start_node(&instance, &pki, &server, &shutdown, &mut parts).await?) };
    write_kubeconfig(&instance, &pki)?;
    let admin = Admin {
        node: node.clone(),
        client: administrator(&server),
        facts: facts(&instance),
        authority_hash: Some(pki.authority_hash()?),
        stop: stop.clone(),
    };
    admin.start(&instance.directory, &mut parts)?;
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

async fn start_node(
    instance: &Instance,
    pki: &Pki,
    server: &Arc<ApiServer>,
    shutdown: &CancellationToken,
    parts: &mut JoinSet<Result<()>>,
) -> Result<crate::node::Running> {
    let record = &instance.record;
    let user = format!("system:node:{}", record.node_name);
    let names = ServerNames { dns: vec![record.node_name.clone()], addresses: vec![record.node_address()] };
    let leaf = pki.server(&user, &names, Timestamp::now())?;
    let tls = kubelet_tls(pki.authority(), leaf.certificate, leaf.key)?;
    crate::node::start(instance, component(server, &user, &[NODES]), tls, shutdown, parts).await
}

fn facts(instance: &Instance) -> serde_json::Value {
    let record = &instance.record;
    let mut facts = json!({
        "id": record.id,
        "dataDir": instance.directory,
        "server": format!("https://127.0.0.1:{}", record.api_port),
        "kubeconfig": instance.directory.join("admin.kubeconfig"),
    });
    if !record.no_node {
        facts["node"] = json!(record.node_name);
        facts["nodeAddress"] = json!(record.node_address());
    }
    facts
}

fn open_store(directory: &Path, parts: &mut JoinSet<Result<()>>) -> Result<Embedded> {
    instance::make_private(directory)?;
    let clock = SystemClock::new();
    let disk = FileDisk::open(directory)?;
    let opened = Embedded::open(disk, clock.now());
    let (store, writer) = opened.with_context(|| format!("cannot open {}", directory.display()))?;
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
    let certificate = pki.server("kube-apiserver", &server_names(record), now)?;
    let certificate = Arc::new(ServerCertificate::new(&certificate)?);
    let config = ApiConfig {
        kv: Arc::new(store.clone()),
        authenticator: apiserver::authentication::Authenticator {
            certificates: pki.client_authority()?,
            tokens: pki.tokens()?,
        },
        authorizer: Authorizer::default(),
        world: Arc::new(System),
        kubelet_client: Some(Arc::new(kubelet_client(pki, now)?)),
        advertised_address: format!("{}:{}", advertised_address(record), record.api_port),
        service_cidrs: vec![record.service_cidr()],
        controllers: vec!["namespace", "serviceaccount", "root-ca-certificate-publisher", "certificate signing"],
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

pub(crate) fn component(server: &Arc<ApiServer>, name: &str, groups: &[&str]) -> Arc<dyn Transport> {
    Arc::new(InProcess { server: server.clone(), user: User::component(name, groups) })
}

fn administrator(server: &Arc<ApiServer>) -> Client {
    Client::new(component(server, "minke", &[MASTERS]))
}

fn start_signer(instance: &Instance, server: &Arc<ApiServer>, pki: &Arc<Pki>, parts: &mut JoinSet<Result<()>>) {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let name = "system:serviceaccount:kube-system:certificate-controller";
    let signer = Signer {
        pki: pki.clone(),
        client: Client::new(component(server, name, &groups)),
        administrator: administrator(server),
        reserved: server_names(&instance.record),
    };
    parts.spawn(crate::certificates::run(signer));
}

/// What the API server is called.
fn server_names(record: &Record) -> ServerNames {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut addresses = vec![advertised_address(record)];
    addresses.extend(host_address());
    ServerNames::api_server(record.service_address(), &[host, record.node_name.clone()], &addresses)
}

/// Where Pods and agents reach the API: beside a node the node's own address, which every host has; without one the
/// host's.
fn advertised_address(record: &Record) -> IpAddr {
    if record.no_node { host_address().unwrap_or(Ipv4Addr::LOCALHOST.into()) } else { record.node_address() }
}

/// The address that this host has towards others, if it has any (upstream `ChooseHostInterface`). Sends nothing.
fn host_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address that is nobody's (RFC 5737).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
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

fn write_kubeconfig(instance: &Instance, pki: &Pki) -> Result<()> {
    let admin = pki.client("kubernetes-admin", &[MASTERS], Timestamp::now())?;
    let url = format!("https://127.0.0.1:{}", instance.record.api_port);
    let text = pki::kubeconfig("minke", &url, pki.authority_pem(), &admin);
    pki::write_kubeconfig(&instance.directory.join("admin.kubeconfig"), &text)?;
    if instance.record.kubeconfig.is_some() {
        contexts::put(&instance.directory, &instance.record)?;
    }
    Ok(())
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
