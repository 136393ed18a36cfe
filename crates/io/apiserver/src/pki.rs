//! The instance's private authority: made at first start, kept under `DIR/pki` (0600), signs everything else in memory.

mod files;
mod kubeconfig;
pub mod requests;

pub use kubeconfig::{kubeconfig, write_kubeconfig};

use crate::authentication::certificate::CertificateAuthority;
use crate::authentication::tokens::{KeyError, Tokens};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName as WireName, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

const AUTHORITY_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A clock that is a little behind still trusts a new certificate.
const BACKDATED_DAYS: i64 = 1;

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is missing while {other} exists: restore it, or remove both to begin a new authority")]
    HalfThere { path: PathBuf, other: PathBuf },
    #[error("{path} cannot be used")]
    Broken {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The authority and the key that signs service account tokens.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    authority_pem: String,
    accounts: KeyPair,
}

/// A certificate with its key.
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    /// Who signed it; a server shows it, so that a node that joins can know it by its hash.
    pub authority: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
    pub expires: Timestamp,
}

/// The names that a server answers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl ServerNames {
    /// What the API server is called inside every cluster, besides the host's own names and addresses.
    pub fn api_server(service_ip: IpAddr, host_names: &[String], host_addresses: &[IpAddr]) -> Self {
        let inside = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let mut dns: Vec<String> = inside.into_iter().map(str::to_owned).collect();
        dns.extend(host_names.iter().filter(|name| !inside.contains(&name.as_str())).cloned());
        let mut addresses = vec![service_ip, IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
        addresses
            .extend(host_addresses.iter().filter(|address| !addresses.contains(address)).copied().collect::<Vec<_>>());
        Self { dns, addresses }
    }
}

impl Pki {
    /// Opens the authority in `dir`, or makes one.
    ///
    /// # Errors
    /// Files that cannot be read or written, or do not belong together.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        files::make_dir(dir)?;
        let key = open_key(&dir.join("ca.key"), &dir.join("ca.crt"))?;
        let path = dir.join("ca.crt");
        let authority_pem = match files::read(&path)? {
            Some(pem) => pem,
            None => {
                let pem = authority_params(now)?.self_signed(&key)?.pem();
                files::write_private(&path, &pem)?;
                pem
            }
        };
        let broken = |source| PkiError::Broken { path: path.clone(), source };
        let authority =
            pem_certificate(&authority_pem).ok_or(rcgen::Error::CouldNotParseCertificate).map_err(broken)?;
        let issuer = Issuer::from_ca_cert_der(&authority, key).map_err(broken)?;
        let accounts = open_key(&dir.join("sa.key"), &dir.join("sa.key"))?;
        Ok(Self { issuer, authority, authority_pem, accounts })
    }

    /// `ca.crt`, as kubeconfigs and `kube-root-ca.crt` carry it.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// # Errors
    /// When the authority's certificate is no trust anchor.
    pub fn client_authority(&self) -> Result<CertificateAuthority, PkiError> {
        Ok(CertificateAuthority::new(&self.authority)?)
    }

    /// # Errors
    /// When the key in `sa.key` is no P-256 key.
    pub fn tokens(&self) -> Result<Tokens, PkiError> {
        Ok(Tokens::new(&self.accounts.serialize_der(), &self.accounts.subject_public_key_info())?)
    }

    /// A client certificate: user and groups. `system:masters` makes an administrator, `system:node:NAME` in
    /// `system:nodes` a kubelet.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn client(&self, user: &str, groups: &[&str], now: Timestamp) -> Result<Leaf, PkiError> {
        let mut params = leaf_params(user, now)?;
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, now)
    }

    /// A server certificate, also good as a client's (a kubelet's is both).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(&self, common_name: &str, names: &ServerNames, now: Timestamp) -> Result<Leaf, PkiError> {
        let mut params = leaf_params(common_name, now)?;
        for name in &names.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(names.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, now)
    }

    fn sign(&self, params: &CertificateParams, now: Timestamp) -> Result<Leaf, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            authority: self.authority.clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            key_pem: key.serialize_pem(),
            expires: midnight(now, LEAF_DAYS),
        })
    }
}

/// The key of `path`; when `companion` stands without it, somebody lost it and a new one would not fit.
fn open_key(path: &Path, companion: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = files::read(path)? {
        return KeyPair::from_pem(&pem).map_err(|source| PkiError::Broken { path: path.to_owned(), source });
    }
    if companion != path && files::read(companion)?.is_some() {
        return Err(PkiError::HalfThere { path: path.to_owned(), other: companion.to_owned() });
    }
    let key = KeyPair::generate()?;
    files::write_private(path, &key.serialize_pem())?;
    Ok(key)
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated_params("minke-ca", now, AUTHORITY_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(common_name: &str, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated_params(common_name, now, LEAF_DAYS)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dated_params(common_name: &str, now: Timestamp, days: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let (year, month, day) = date(midnight(now, -BACKDATED_DAYS));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(midnight(now, days));
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

/// Year, month and day in UTC.
fn date(at: Timestamp) -> (i32, u8, u8) {
    let date = at.to_zoned(TimeZone::UTC).date();
    let positive = |value: i8| u8::try_from(value).unwrap_or(1);
    (i32::from(date.year()), positive(date.month()), positive(date.day()))
}

/// The beginning of the UTC day so many days from `now`.
fn midnight(now: Timestamp, days: i64) -> Timestamp {
    const DAY_S: i64 = 24 * 3600;
    let today = now.as_second().div_euclid(DAY_S) * DAY_S;
    let today = Timestamp::from_second(today).unwrap_or(now);
    today.saturating_add(SignedDuration::from_secs(days * DAY_S)).unwrap_or(now)
}

fn pem_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// A server's present certificate; connections made after [`ServerCertificate::replace`] see the new one.
#[derive(Debug)]
pub struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// # Errors
    /// When the leaf's key cannot sign.
    pub fn new(leaf: &Leaf) -> Result<Self, PkiError> {
        Ok(Self { current: RwLock::new(Arc::new(certified(leaf)?)) })
    }

    /// # Errors
    /// When the leaf's key cannot sign.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), PkiError> {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified(leaf)?);
        Ok(())
    }
}

fn certified(leaf: &Leaf) -> Result<CertifiedKey, PkiError> {
    Ok(CertifiedKey::new(vec![leaf.certificate.clone(), leaf.authority.clone()], any_ecdsa_type(&leaf.key)?))
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// TLS for a listener of ours: HTTP/2 and HTTP/1.1, any client certificate accepted (and judged per request).
///
/// # Errors
/// When TLS has no protocol version in common with itself.
pub fn server_config(certificate: Arc<ServerCertificate>) -> Result<ServerConfig, PkiError> {
    let provider = Arc::new(default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyClientCertificate))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Asks for a client certificate and proves only that its key is there. Upstream answers 401 to a wrong one, which
/// takes a connection; `authentication::certificate` checks the chain.
#[derive(Debug)]
pub struct AnyClientCertificate;

impl ClientCertVerifier for AnyClientCertificate {
    fn root_hint_subjects(&self) -> &[WireName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
