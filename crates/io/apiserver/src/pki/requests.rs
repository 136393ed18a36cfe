//! Certificate signing requests: what they ask for, which signer may grant it, and the certificate.
//!
//! The rules are upstream's (`pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer`).

use super::{LEAF_DAYS, Pki, PkiError, ServerNames};
use crate::authentication::{MASTERS, NODES};
use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// What a node is called as a user.
pub const NODE_USER_PREFIX: &str = "system:node:";

/// Certificates begin so much earlier, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
const SHORTEST: Duration = Duration::from_secs(10 * 60);
/// Shorter ones are not shortened further by the time they begin earlier.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// A request whose signature proves that its sender holds the key.
#[derive(Debug)]
pub struct SigningRequest {
    asked: CertificateSigningRequestParams,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// It names other things, too: mail addresses, URIs.
    other_names: bool,
    /// Its subject says the same thing twice, or something unknown.
    odd_subject: bool,
}

impl SigningRequest {
    /// # Errors
    /// When it is no PEM request, or its signature is wrong.
    pub fn parse(pem: &[u8]) -> Result<Self, PkiError> {
        let not_one = rcgen::Error::CouldNotParseCertificationRequest;
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| not_one.clone())?;
        let asked = CertificateSigningRequestParams::from_der(&der)?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| not_one)?;
        let subject = &parsed.certification_request_info.subject;
        let common_names: Vec<String> =
            subject.iter_common_name().filter_map(|name| Some(name.as_str().ok()?.to_owned())).collect();
        let organizations: Vec<String> =
            subject.iter_organization().filter_map(|name| Some(name.as_str().ok()?.to_owned())).collect();
        let said = subject.iter_attributes().count();
        let (mut dns_names, mut addresses, mut other_names) = (Vec::new(), Vec::new(), false);
        for name in &asked.params.subject_alt_names {
            match name {
                SanType::DnsName(name) => dns_names.push(name.to_string()),
                SanType::IpAddress(address) => addresses.push(*address),
                _ => other_names = true,
            }
        }
        let odd_subject =
            common_names.len() > 1 || organizations.len() > 1 || said != common_names.len() + organizations.len();
        let common_name = common_names.into_iter().next().unwrap_or_default();
        Ok(Self { asked, common_name, organizations, dns_names, addresses, other_names, odd_subject })
    }

    /// Whether it asks for what the signer grants; `false`: the signer is none of ours.
    ///
    /// # Errors
    /// What it asks for beyond that, in upstream's words where upstream has the same rule.
    pub fn fits(&self, signer: &str, usages: &[&str]) -> Result<bool, String> {
        match signer {
            KUBELET_CLIENT_SIGNER => self.fits_kubelet_client(usages)?,
            KUBELET_SERVING_SIGNER => self.fits_kubelet_serving(usages)?,
            CLIENT_SIGNER => {
                fits_client(usages)?;
                if self.organizations.iter().any(|group| group == MASTERS) {
                    return Err(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"));
                }
            }
            _ => return Ok(false),
        }
        if self.odd_subject {
            return Err("minke signs subjects of one common name and at most one organization".to_owned());
        }
        Ok(true)
    }

    fn fits_kubelet_client(&self, usages: &[&str]) -> Result<(), String> {
        self.is_of_a_node()?;
        if !self.dns_names.is_empty() {
            return Err("DNS subjectAltNames are not allowed".to_owned());
        }
        if !self.addresses.is_empty() {
            return Err("IP subjectAltNames are not allowed".to_owned());
        }
        exactly(usages, "client auth")
    }

    fn fits_kubelet_serving(&self, usages: &[&str]) -> Result<(), String> {
        self.is_of_a_node()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        exactly(usages, "server auth")
    }

    fn is_of_a_node(&self) -> Result<(), String> {
        if self.organizations != [NODES] {
            return Err(format!("subject organization is not {NODES}"));
        }
        if !self.common_name.starts_with(NODE_USER_PREFIX) {
            return Err("subject common name does not begin with system:node:".to_owned());
        }
        if self.other_names {
            return Err("email and URI subjectAltNames are not allowed".to_owned());
        }
        Ok(())
    }
}

/// The key of the certificate signs; with RSA it may encipher, too.
fn exactly(usages: &[&str], purpose: &str) -> Result<(), String> {
    let mut given: BTreeSet<&str> = usages.iter().copied().collect();
    given.remove("key encipherment");
    if given == BTreeSet::from(["digital signature", purpose]) {
        return Ok(());
    }
    Err(format!("usages did not match [digital signature key encipherment {purpose}]"))
}

fn fits_client(usages: &[&str]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment", "client auth"];
    if let Some(wrong) = usages.iter().find(|usage| !optional.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {wrong}"));
    }
    if !usages.contains(&"client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

impl Pki {
    /// The certificate (PEM) that a request asks for, good for `lifetime` and no longer than a year. Whether it may be
    /// signed is the caller's to know: [`SigningRequest::fits`].
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        usages: &[&str],
        lifetime: Option<Duration>,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let year = Duration::from_secs(LEAF_DAYS.unsigned_abs() * 24 * 3600);
        let lifetime = lifetime.unwrap_or(year).clamp(SHORTEST, year);
        let until = if lifetime < SHORT { lifetime } else { lifetime - BACKDATED };
        let mut params = request.asked.params.clone();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = Vec::new();
        params.extended_key_usages = Vec::new();
        for usage in usages {
            match *usage {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                _ => {}
            }
        }
        let (year, month, day) = super::date(now);
        let today = date_time_ymd(year, month, day);
        let into_the_day = Duration::from_secs(now.as_second().rem_euclid(24 * 3600).unsigned_abs());
        params.not_before = today + into_the_day - BACKDATED;
        params.not_after = today + into_the_day + until;
        let asked = CertificateSigningRequestParams { params, public_key: request.asked.public_key.clone() };
        Ok(asked.signed_by(&self.issuer)?.pem())
    }

    /// What a token carries so that a node knows the right server: see [`authority_hash`].
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn authority_hash(&self) -> Result<String, PkiError> {
        authority_hash(&self.authority).ok_or(PkiError::Certificate(rcgen::Error::CouldNotParseCertificate))
    }
}

/// SHA-256 of a certificate's public key in hexadecimal (upstream `kubeadm join --discovery-token-ca-cert-hash`).
pub fn authority_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut text = String::new();
    for byte in Sha256::digest(parsed.public_key().raw) {
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// A new key and a request for it, both PEM: user and group of a client, and the names of a server (none: no server).
///
/// # Errors
/// When a name cannot stand in a certificate.
pub fn new_request(common_name: &str, organization: &str, names: &ServerNames) -> Result<(String, String), PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    for name in &names.dns {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(names.addresses.iter().map(|address| SanType::IpAddress(*address)));
    let key = KeyPair::generate()?;
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CLIENT: [&str; 2] = ["digital signature", "client auth"];
    const SERVER: [&str; 2] = ["digital signature", "server auth"];

    fn request(name: &str, group: &str, dns: &[&str]) -> SigningRequest {
        let names = ServerNames { dns: dns.iter().map(|name| (*name).to_owned()).collect(), addresses: Vec::new() };
        let (pem, _) = new_request(name, group, &names).unwrap();
        SigningRequest::parse(pem.as_bytes()).unwrap()
    }

    #[test]
    fn each_signer_grants_its_own() {
        let client = request("system:node:a", NODES, &[]);
        let serving = request("system:node:a", NODES, &["a"]);
        assert_eq!(client.fits(KUBELET_CLIENT_SIGNER, &CLIENT), Ok(true));
        assert_eq!(serving.fits(KUBELET_SERVING_SIGNER, &SERVER), Ok(true));
        assert_eq!(request("jane", "dev", &[]).fits(CLIENT_SIGNER, &CLIENT), Ok(true));
        assert_eq!(client.fits("example.com/other", &CLIENT), Ok(false));
        for (request, signer, usages, why) in [
            (&client, KUBELET_CLIENT_SIGNER, SERVER, "usages did not match"),
            (&client, KUBELET_SERVING_SIGNER, SERVER, "DNS or IP subjectAltName is required"),
            (&serving, KUBELET_CLIENT_SIGNER, CLIENT, "DNS subjectAltNames are not allowed"),
            (&request("jane", NODES, &[]), KUBELET_CLIENT_SIGNER, CLIENT, "subject common name"),
            (&request("system:node:a", "dev", &[]), KUBELET_CLIENT_SIGNER, CLIENT, "subject organization"),
            (&request("jane", MASTERS, &[]), CLIENT_SIGNER, CLIENT, "with system:masters group is not allowed"),
            (&request("jane", "dev", &[]), CLIENT_SIGNER, SERVER, "invalid usage for client certificate: server auth"),
        ] {
            let refused = request.fits(signer, &usages).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_signed_request_is_a_client_of_our_authority() {
        let directory = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-21T17:00:00Z".parse().unwrap();
        let pki = Pki::open(directory.path(), now).unwrap();
        let request = request("system:node:a", NODES, &[]);
        let pem = pki.sign_request(&request, &CLIENT, Some(Duration::from_secs(3600)), now).unwrap();
        let chain = [CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let authority = pki.client_authority().unwrap();
        let user = authority.user(&chain, now).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.is_in(NODES)), ("system:node:a", true));
        let later = now + jiff::SignedDuration::from_secs(3601);
        assert!(authority.user(&chain, later).is_err(), "it lives for ever");
    }

    #[test]
    fn a_request_that_another_key_signed_is_none() {
        let (pem, _) = new_request("a", "b", &ServerNames::default()).unwrap();
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(CertificateSigningRequestParams::from_der(&der.into()).is_err());
        assert!(SigningRequest::parse(b"nothing").is_err());
    }
}
