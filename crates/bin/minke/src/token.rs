//! Tokens with which nodes join: upstream's bootstrap tokens, with the hash of the authority's key behind them, so that
//! the node knows the server as the server knows the node.
//!
//! ```text
//! abcdef.0123456789abcdef:HASH    HASH as `kubeadm join --discovery-token-ca-cert-hash` has it
//! ```

use anyhow::{Context, Result, ensure};
use client::typed::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::json;
use std::str::FromStr;
use std::time::Duration;

/// Whoever holds a token of ours is in this group.
const JOINING: &str = "system:bootstrappers:minke:node";

/// A token as a node gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What the API server asks for.
    pub(crate) bearer: String,
    pub(crate) authority_hash: String,
}

impl FromStr for Token {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (bearer, hash) =
            text.trim().split_once(':').context("a token looks like ID.SECRET:HASH; `minke token` makes one")?;
        ensure!(
            bearer.contains('.') && hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit()),
            "a token looks like ID.SECRET:HASH; `minke token` makes one"
        );
        Ok(Self { bearer: bearer.to_owned(), authority_hash: hash.to_lowercase() })
    }
}

/// Makes a token that nodes can join with for `lifetime`, and what it needs to be allowed to.
pub(crate) async fn make(administrator: &Client, authority_hash: &str, lifetime: Duration) -> Result<String> {
    for (name, role, group) in [
        ("minke:node-bootstrap", "system:node-bootstrapper", JOINING),
        ("minke:node-approve", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", JOINING),
        (
            "minke:node-renew",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            apiserver::authentication::NODES,
        ),
    ] {
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        }))?;
        match administrator.create(&binding).await {
            Err(error) if error.is_conflict() => {}
            made => drop(made.context("cannot allow nodes to join")?),
        }
    }
    let (id, secret) = (word(6), word(16));
    let expires = Timestamp::now().checked_add(lifetime)?;
    let expires = Timestamp::from_second(expires.as_second())?;
    let object: Secret = serde_json::from_value(json!({
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": expires.to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": JOINING,
            "description": "made by `minke token`",
        },
    }))?;
    administrator.create(&object).await.context("cannot store the token")?;
    Ok(format!("{id}.{secret}:{authority_hash}"))
}

/// Letters and digits by chance, 120 random bits being more than enough for any of our lengths.
fn word(length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut word = String::new();
    let mut rest = 0u128;
    for index in 0..length {
        if index % 16 == 0 {
            // 122 of its bits are random; those that are not lie in bytes 6 and 8.
            let bytes = *uuid::Uuid::new_v4().as_bytes();
            let more = *uuid::Uuid::new_v4().as_bytes();
            rest = bytes.iter().zip(more.iter().rev()).fold(0, |all, (a, b)| (all << 8) | u128::from(a ^ b));
        }
        word.push(char::from(LETTERS[usize::try_from(rest % 32).unwrap_or(0)]));
        rest /= 32;
    }
    word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let hash = "0123456789abcdef".repeat(4);
        let token: Token = format!("abcdef.0123456789abcdef:{hash}\n").parse().unwrap();
        assert_eq!((token.bearer.as_str(), token.authority_hash), ("abcdef.0123456789abcdef", hash));
        for wrong in ["", "abcdef.0123456789abcdef", "abcdef:12", &format!("abcdef:{}", "0".repeat(64))] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_what_bootstrap_tokens_consist_of() {
        let (one, two) = (word(16), word(16));
        assert_ne!(one, two);
        assert!(one.len() == 16 && one.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
