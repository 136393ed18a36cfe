//! Who asks: client certificates, bearer tokens, the anonymous user.
//!
//! Authentication ends in a [`User`]; impersonation (checked by the pipeline through `authorization`) replaces it.

pub mod certificate;
pub mod impersonation;
pub mod reviews;
pub mod service_account;
pub mod token_request;
pub mod tokens;

use crate::lookup::Lookup;
use certificate::CertificateAuthority;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use tokens::Tokens;

pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";

/// The one who asks, as authorization, admission and reviews see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Empty when unknown.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// A trusted component inside the process, by its user name (`system:kube-scheduler`) and extra groups.
    pub fn component(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Credentials were given and are wrong: 401 with `reason` for the log only; the client reads `Unauthorized`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub String);

/// What credentials are checked against.
pub struct Authenticator {
    pub certificates: CertificateAuthority,
    pub tokens: Tokens,
}

impl Authenticator {
    /// The user of one request: its connection's client certificate chain (leaf first, may be empty) and its
    /// `Authorization` header. A certificate wins over a token; without credentials the user is anonymous.
    ///
    /// # Errors
    /// A certificate or a token that is not ours, has expired, or whose bound object is gone.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'_>],
        authorization: Option<&str>,
        lookup: &dyn Lookup,
        now: Timestamp,
    ) -> Result<User, Unauthenticated> {
        let refused = match self.certificates.user(chain, now) {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => None,
            Err(refused) => Some(refused),
        };
        match (bearer(authorization), refused) {
            (Some(token), _) => self.tokens.authenticate(token, &[tokens::ISSUER], lookup, now).map(|(user, _)| user),
            (None, Some(refused)) => Err(refused),
            (None, None) => Ok(User::anonymous()),
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`; an empty one counts as none, as upstream has it.
fn bearer(authorization: Option<&str>) -> Option<&str> {
    let mut parts = authorization?.trim().split(' ');
    let scheme = parts.next()?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    parts.next().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
