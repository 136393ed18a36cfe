//! How an agent's node becomes one of the cluster: it learns the authority by the token's hash, asks for certificates as
//! a kubelet does (upstream "TLS bootstrapping"), and keeps them under `DIR/pki`.

use crate::token::Token;
use anyhow::{Context, Result, bail, ensure};
use apiserver::authentication::NODES;
use apiserver::pki::requests::{
    KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, NODE_USER_PREFIX, authority_hash, new_request,
};
use apiserver::pki::{ServerNames, write_kubeconfig};
use client::remote::Remote;
use client::transport::{ListQuery, ObjectEvent, Transport};
use client::typed::{Client, decode, target};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the server may take to sign.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a certificate's life, after which a start asks for a new one.
const RENEW_AFTER: f64 = 0.7;

/// What an agent needs to be a node.
pub(crate) struct Joined {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) authority: CertificateDer<'static>,
    server: String,
    node: String,
}

/// A certificate with its key, for TLS.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(directory: &Path) -> Self {
        let pki = directory.join("pki");
        Self { authority: pki.join("ca.crt"), certificate: pki.join("node.crt"), key: pki.join("node.key") }
    }
}

/// Connects as the node: with the certificate of an earlier start, or by the token.
pub(crate) async fn join(directory: &Path, server: &str, node: &str, token: Option<&str>) -> Result<Joined> {
    let files = Files::of(directory);
    crate::instance::make_private(&directory.join("pki"))?;
    let have = [&files.authority, &files.certificate, &files.key].iter().all(|file| file.exists());
    if !have {
        let token = token
            .context("a node that joins for the first time needs --token; `minke token` on the server makes one")?;
        let token: Token = token.parse()?;
        let authority = discover(server, &token.authority_hash).await?;
        let remote = remote(server, &authority, &format!("token: {}", serde_json::Value::from(token.bearer))).await?;
        let client = Client::new(Arc::new(remote));
        obtain(&client, &files, node).await?;
        write_kubeconfig(&files.authority, &pem("CERTIFICATE", &authority))?;
    }
    let joined = connect(&files, server, node).await?;
    if due(&files.certificate)? {
        obtain(&Client::new(joined.transport.clone()), &files, node).await?;
        return connect(&files, server, node).await;
    }
    Ok(joined)
}

impl Joined {
    /// A certificate for the kubelet's API, signed by the cluster's authority.
    pub(crate) async fn serving(&self, names: &ServerNames) -> Result<Identity> {
        let user = format!("{NODE_USER_PREFIX}{}", self.node);
        let (request, key) = new_request(&user, NODES, names)?;
        let client = Client::new(self.transport.clone());
        let certificate = sign(&client, &request, KUBELET_SERVING_SIGNER, "server auth").await.with_context(|| {
            format!("{} did not sign the certificate of the kubelet's API for {:?}", self.server, names.addresses)
        })?;
        Ok(Identity {
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes())?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        })
    }
}

async fn connect(files: &Files, server: &str, node: &str) -> Result<Joined> {
    let authority = CertificateDer::from_pem_file(&files.authority)
        .with_context(|| format!("cannot read {}", files.authority.display()))?;
    let path = |path: &Path| serde_json::Value::from(path.to_string_lossy());
    let user = format!("client-certificate: {}\n    client-key: {}", path(&files.certificate), path(&files.key));
    let remote = remote(server, &authority, &user).await?;
    Ok(Joined { transport: Arc::new(remote), authority, server: server.to_owned(), node: node.to_owned() })
}

/// `user` is what stands below `users[0].user` of a kubeconfig.
async fn remote(server: &str, authority: &CertificateDer<'_>, user: &str) -> Result<Remote> {
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(pem("CERTIFICATE", authority));
    let server = serde_json::Value::from(server);
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: c
clusters:
- name: c
  cluster:
    server: {server}
    certificate-authority-data: {authority}
contexts:
- name: c
  context: {{cluster: c, user: c}}
users:
- name: c
  user:
    {user}
"
    );
    Ok(Remote::from_text(&text).await?)
}

/// A new key and a certificate for it; both are written once the server has signed.
async fn obtain(client: &Client, files: &Files, node: &str) -> Result<()> {
    let (request, key) = new_request(&format!("{NODE_USER_PREFIX}{node}"), NODES, &ServerNames::default())?;
    let certificate = sign(client, &request, KUBELET_CLIENT_SIGNER, "client auth")
        .await
        .with_context(|| format!("the server did not let node {node} join"))?;
    write_kubeconfig(&files.key, &key)?;
    write_kubeconfig(&files.certificate, &certificate)?;
    Ok(())
}

/// Posts a request and waits until it is signed.
async fn sign(client: &Client, request: &str, signer: &str, purpose: &str) -> Result<String> {
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), purpose.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let csr = client.create(&csr).await?;
    let name = csr.metadata.name.clone().unwrap_or_default();
    let signed = tokio::time::timeout(PATIENCE, until_signed(client, &name)).await;
    signed.with_context(|| format!("nobody approved and signed certificate request {name}; see `kubectl get csr`"))?
}

async fn until_signed(client: &Client, name: &str) -> Result<String> {
    let query = ListQuery {
        target: target::<CertificateSigningRequest>("", ""),
        field_selector: format!("metadata.name={name}"),
        ..ListQuery::default()
    };
    let list = client.transport().list(&query).await?;
    let mut found = list.items;
    let mut events = client.transport().watch(&query, list.revision).await?;
    loop {
        for object in found.drain(..) {
            let csr = decode::<CertificateSigningRequest>(&object)?;
            let status = csr.status.clone().unwrap_or_default();
            if let Some(certificate) = status.certificate {
                return Ok(String::from_utf8(certificate.0)?);
            }
            let refused =
                status.conditions.into_iter().flatten().find(|one| one.type_ == "Denied" || one.type_ == "Failed");
            if let Some(refused) = refused {
                bail!("{}: {}", refused.type_, refused.message.unwrap_or_default());
            }
        }
        match events.next().await {
            Some(event) => {
                if let ObjectEvent::Added(object) | ObjectEvent::Modified(object) = event? {
                    found.push(object);
                }
            }
            None => bail!("the server ended the watch"),
        }
    }
}

/// Whether most of the certificate's life is over.
fn due(certificate: &Path) -> Result<bool> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let der =
        CertificateDer::from_pem_file(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
    let (_, parsed) = X509Certificate::from_der(&der)?;
    let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let now = Timestamp::now().as_second();
    ensure!(
        now < until,
        "the node's certificate has expired; remove {} and start with a new --token",
        certificate.display()
    );
    Ok((now - from) as f64 > (until - from) as f64 * RENEW_AFTER)
}

/// The authority whose key has this hash, as the server shows it. The server has to prove that it is of that authority.
async fn discover(server: &str, hash: &str) -> Result<CertificateDer<'static>> {
    let address =
        server.strip_prefix("https://").with_context(|| format!("--server must be https://HOST:PORT, not {server}"))?;
    let address = address.trim_end_matches('/');
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse::<u16>().with_context(|| format!("no port: {port}"))?)
        }
        _ => (address, 443),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let verifier = Arc::new(Pinned { hash: hash.to_owned(), found: Mutex::default() });
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("cannot reach {server}"))?;
    let name = ServerName::try_from(host)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector
        .connect(name, stream)
        .await
        .with_context(|| format!("{server} is not the server that the token is for"))?;
    let found = verifier.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    found.context("the server showed no authority")
}

/// Trusts the one authority with this hash.
#[derive(Debug)]
struct Pinned {
    hash: String,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let of_hash = |one: &&CertificateDer<'_>| authority_hash(one).as_deref() == Some(self.hash.as_str());
        let authority = intermediates.iter().find(of_hash);
        let authority = authority.ok_or_else(|| rustls::Error::General("its authority is another".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|problem| rustls::Error::General(problem.to_string()))?;
        let verified = verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
