//! Client certificates of our own authority: the common name is the user, organisations are groups.

use super::{AUTHENTICATED, Unauthenticated, User};
use jiff::Timestamp;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, pki_types::UnixTime};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verifies chains against one authority.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl CertificateAuthority {
    /// # Errors
    /// When the certificate cannot serve as a trust anchor.
    pub fn new(authority: &CertificateDer<'static>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|problem| rustls::Error::General(problem.to_string()))?;
        Ok(Self { verifier })
    }

    /// The user of a chain (leaf first), `None` without one or with an empty common name. Possession of the key was
    /// proved in the handshake ([`crate::pki::AnyClientCertificate`]); who signed, for what and until when is checked here.
    ///
    /// # Errors
    /// When the chain does not lead to our authority, is out of date, or is not meant for clients.
    pub fn user(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Option<User>, Unauthenticated> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Ok(None);
        };
        let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch))
            .map_err(|problem| Unauthenticated(format!("client certificate: {problem}")))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|problem| Unauthenticated(format!("client certificate: {problem}")))?;
        Ok(named(&parsed, leaf))
    }
}

fn named(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<User> {
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok())?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    let mut digest = String::from("X509SHA256=");
    for byte in Sha256::digest(der) {
        let _ = write!(digest, "{byte:02x}");
    }
    let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![digest])].into();
    Some(User { name, uid: String::new(), groups, extra })
}
