//! An API server alone, for replaying recorded requests against it: `lone PORT DIR`.
//!
//! Keeps its data below `DIR` (an empty one is a fresh cluster) and writes `DIR/admin.kubeconfig`.
#![allow(clippy::print_stdout)] // An example talks to who started it.

use anyhow::Context;
use apiserver::authentication::Authenticator;
use apiserver::authorization::Authorizer;
use apiserver::pki::kubeconfig;
use apiserver::pki::{self, Pki, ServerNames};
use apiserver::server::{ApiServer, Config};
use apiserver::world::System;
use apiserver::{http, missing_controllers};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::clock::SystemClock;
use store::disk::file::FileDisk;
use store::embedded::Embedded;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().context("usage: lone PORT DIR")?.parse().context("PORT is no port")?;
    let dir = PathBuf::from(arguments.next().context("usage: lone PORT DIR")?);
    let now = jiff::Timestamp::now();
    std::fs::create_dir_all(&dir)?;
    let pki = Pki::open(&dir.join("pki"), now)?;
    let db = dir.join("db");
    std::fs::create_dir_all(&db)?;
    let clock = SystemClock::new();
    let (kv, writer) = Embedded::open(FileDisk::open(&db)?, clock.now())?;
    let writing = std::thread::spawn(move || writer.run(move || clock.now()));

    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let service_ip = IpAddr::from([10, 96, 0, 1]);
    let names = ServerNames::api_server(service_ip, &[], &[]);
    let certificate = Arc::new(pki::ServerCertificate::new(&pki.server("kube-apiserver", &names, now)?)?);
    let kv = Arc::new(kv);
    let server = ApiServer::start(Config {
        kv: kv.clone(),
        authenticator: Authenticator { certificates: pki.client_authority()?, tokens: pki.tokens()? },
        authorizer: Authorizer::default(),
        world: Arc::new(System),
        kubelet_client: None,
        advertised_address: format!("{localhost}:{port}"),
        service_cidrs: vec!["10.96.0.0/12".to_owned()],
        controllers: missing_controllers::all(),
    })
    .await?;

    let admin = pki.client("admin", &["system:masters"], now)?;
    let path = dir.join("admin.kubeconfig");
    let url = format!("https://{localhost}:{port}");
    std::fs::write(&path, kubeconfig("lone", &url, pki.authority_pem(), &admin))?;
    println!("KUBECONFIG={}", path.display());
    let listener = tokio::net::TcpListener::bind((localhost, port)).await?;
    let (stop, _) = tokio::sync::watch::channel(false);
    let stopped =
        |mut receiver: tokio::sync::watch::Receiver<bool>| async move { drop(receiver.wait_for(|s| *s).await) };
    let tls = Arc::new(pki::server_config(certificate)?);
    let serving = http::serve(server.clone(), listener, tls, stopped(stop.subscribe()), Duration::from_secs(2));
    let feeding = server.run(stopped(stop.subscribe()));
    let interrupted = async {
        drop(tokio::signal::ctrl_c().await);
        stop.send_replace(true);
    };
    let (result, (), ()) = tokio::join!(feeding, serving, interrupted);
    result?;
    kv.close();
    drop(writing.join());
    Ok(())
}
