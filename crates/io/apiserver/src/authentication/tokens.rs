//! Bearer tokens: service account tokens (ES256 JWT, bound to live objects) and bootstrap tokens.
//!
//! Claims and messages as upstream `pkg/serviceaccount`.

use super::service_account::{groups as service_account_groups, user_name};
use super::{AUTHENTICATED, Unauthenticated, User};
use crate::lookup::{GroupResource, Lookup};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Issuer and only audience of the API server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Clock difference that `nbf`, `iat` and `exp` forgive.
const LEEWAY_S: i64 = 60;

const SERVICE_ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
const PODS: GroupResource = GroupResource::new("", "pods");
const SECRETS: GroupResource = GroupResource::new("", "secrets");
const NODES: GroupResource = GroupResource::new("", "nodes");

/// Signs and checks tokens with one key pair.
pub struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("service account key: {0}")]
pub struct KeyError(String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// What a token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Tokens {
    /// `pkcs8`: a P-256 private key, DER. `spki`: its public key as SubjectPublicKeyInfo, of which the key id is made.
    ///
    /// # Errors
    /// When the key is no P-256 key.
    pub fn new(pkcs8: &[u8], spki: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|problem| KeyError(problem.to_string()))?;
        Ok(Self { key, key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(spki)), random })
    }

    /// # Errors
    /// When the system gives no random numbers.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let payload = serde_json::to_vec(claims).map_err(|problem| KeyError(problem.to_string()))?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature =
            self.key.sign(&self.random, token.as_bytes()).map_err(|problem| KeyError(problem.to_string()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The user of a token meant for one of `audiences`, and which of them.
    ///
    /// # Errors
    /// With the text that a TokenReview shows.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[&str],
        lookup: &dyn Lookup,
        now: Timestamp,
    ) -> Result<(User, Vec<String>), Unauthenticated> {
        const INVALID: &str = "invalid bearer token";
        let nested = |why: String| Unauthenticated(format!("[{INVALID}, {why}]"));
        let ours = |audience: &&str| **audience == *ISSUER;
        if let Some(user) = bootstrap(token, lookup, now).map_err(nested)? {
            // Upstream's bootstrap tokens speak to the API server only.
            let audiences = audiences.iter().filter(|a| ours(a)).map(|a| (*a).to_owned()).collect();
            return Ok((user, audiences));
        }
        let Some(parts) = Parts::of_issuer(token) else {
            return Err(Unauthenticated(INVALID.to_owned()));
        };
        let claims = self.verify(&parts).map_err(nested)?;
        let mut accepted: Vec<String> = claims.aud.clone();
        accepted.retain(|audience| audiences.contains(&audience.as_str()));
        if accepted.is_empty() {
            return Err(nested(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_strings(claims.aud.iter().map(String::as_str)),
                go_strings(audiences.iter().copied()),
            )));
        }
        check_times(&claims, now).map_err(nested)?;
        check_bound(&claims.kubernetes, lookup, now).map_err(nested)?;
        Ok((user(claims), accepted))
    }

    fn verify(&self, parts: &Parts<'_>) -> Result<Claims, String> {
        if parts.header.get("kid").and_then(Value::as_str).is_some_and(|id| id != self.key_id) {
            return Err("invalid signature, no keys found".to_owned());
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(parts.signed, &parts.signature)
            .map_err(|_| "square/go-jose: error in cryptographic primitive".to_owned())?;
        serde_json::from_slice(&parts.payload).map_err(|problem| problem.to_string())
    }

    /// The document below `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 0x04, then both coordinates of 32 bytes.
        let point = self.key.public_key().as_ref();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1), "y": coordinate(33),
        }]})
    }
}

/// The document `/.well-known/openid-configuration`; `server` is the API server's own `https://HOST:PORT`.
pub fn openid_configuration(server: &str) -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{server}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

struct Parts<'a> {
    header: Value,
    payload: Vec<u8>,
    /// What the signature covers.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// A JWT that says it is of our issuer; anything else is not for us to judge.
    fn of_issuer(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let payload = decode(payload)?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        if claims.get("iss")?.as_str()? != ISSUER {
            return None;
        }
        let header = serde_json::from_slice(&decode(header)?).ok()?;
        Some(Self { header, payload, signed: signed.as_bytes(), signature: decode(signature)? })
    }
}

fn go_strings<'a>(values: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", values.map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "))
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), String> {
    let now = now.as_second();
    let problem = if now + LEEWAY_S < claims.nbf {
        "service account token is not valid yet"
    } else if now - LEEWAY_S > claims.exp {
        "service account token has expired"
    } else if now + LEEWAY_S < claims.iat {
        "service account token is issued in the future"
    } else {
        return Ok(());
    };
    Err(problem.to_owned())
}

/// All that the token names still lives, under the same uid.
fn check_bound(bound: &Bound, lookup: &dyn Lookup, now: Timestamp) -> Result<(), String> {
    let namespace = bound.namespace.as_str();
    let account = &bound.serviceaccount;
    let Some(object) = lookup.get(SERVICE_ACCOUNTS, namespace, &account.name) else {
        return Err(format!("serviceaccounts \"{}\" not found", account.name));
    };
    let found = object.typed::<ServiceAccount>().map_err(|problem| problem.to_string())?;
    let uid = found.metadata.uid.as_deref().unwrap_or_default();
    if uid != account.uid {
        return Err(format!("service account UID ({uid}) does not match claim ({})", account.uid));
    }
    if long_deleted(&found.metadata, now) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    if let Some(secret) = &bound.secret {
        let found = lookup.get(SECRETS, namespace, &secret.name).and_then(|o| o.typed::<Secret>().ok());
        check_reference("secret", secret, found.as_deref().map(|s| &s.metadata), now)?;
    }
    match (&bound.pod, &bound.node) {
        (Some(pod), _) => {
            let found = lookup.get(PODS, namespace, &pod.name).and_then(|o| o.typed::<Pod>().ok());
            check_reference("pod", pod, found.as_deref().map(|p| &p.metadata), now)
        }
        (None, Some(node)) => {
            let found = lookup.get(NODES, "", &node.name).and_then(|o| o.typed::<Node>().ok());
            check_reference("node", node, found.as_deref().map(|n| &n.metadata), now)
        }
        (None, None) => Ok(()),
    }
}

fn check_reference(kind: &str, wanted: &Reference, found: Option<&ObjectMeta>, now: Timestamp) -> Result<(), String> {
    const INVALIDATED: &str = "service account token has been invalidated";
    let found = found.ok_or(INVALIDATED)?;
    let uid = found.uid.as_deref().unwrap_or_default();
    if uid != wanted.uid {
        let shown = if kind == "pod" {
            "Pod"
        } else if kind == "node" {
            "Node"
        } else {
            kind
        };
        let shown = shown.to_lowercase();
        return Err(format!("{shown} UID ({uid}) does not match service account {shown} ref claim ({})", wanted.uid));
    }
    if long_deleted(found, now) { Err(INVALIDATED.to_owned()) } else { Ok(()) }
}

fn long_deleted(metadata: &ObjectMeta, now: Timestamp) -> bool {
    metadata.deletion_timestamp.as_ref().is_some_and(|at| at.0.as_second() < now.as_second() - LEEWAY_S)
}

fn user(claims: Claims) -> User {
    let bound = claims.kubernetes;
    let mut groups = service_account_groups(&bound.namespace);
    groups.push(AUTHENTICATED.to_owned());
    let mut user = User {
        name: user_name(&bound.namespace, &bound.serviceaccount.name),
        uid: bound.serviceaccount.uid,
        groups,
        ..User::default()
    };
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        add("credential-id", format!("JTI={}", claims.jti));
    }
    if let Some(pod) = bound.pod {
        add("pod-name", pod.name);
        add("pod-uid", pod.uid);
    }
    if let Some(node) = bound.node {
        add("node-name", node.name);
        add("node-uid", node.uid);
    }
    user
}

/// The user of `[a-z0-9]{6}.[a-z0-9]{16}`, kept in a Secret (upstream `plugin/pkg/auth/authenticator/token/bootstrap`).
/// `None`: not such a token, or one that nobody knows.
fn bootstrap(token: &str, lookup: &dyn Lookup, now: Timestamp) -> Result<Option<User>, String> {
    let Some((id, secret)) = token.split_once('.') else {
        return Ok(None);
    };
    let word = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !word(id, 6) || !word(secret, 16) {
        return Ok(None);
    }
    let Some(object) = lookup.get(SECRETS, "kube-system", &format!("bootstrap-token-{id}")) else {
        return Ok(None);
    };
    let found = object.typed::<Secret>().map_err(|problem| problem.to_string())?;
    if found.metadata.deletion_timestamp.is_some() || found.type_.as_deref() != Some("bootstrap.kubernetes.io/token") {
        return Ok(None);
    }
    let data = |key: &str| -> Option<&str> { std::str::from_utf8(&found.data.as_ref()?.get(key)?.0).ok() };
    let same = data("token-secret").is_some_and(|kept| same_bytes(kept.as_bytes(), secret.as_bytes()));
    if !same || data("token-id") != Some(id) || data("usage-bootstrap-authentication") != Some("true") {
        return Ok(None);
    }
    if let Some(until) = data("expiration").filter(|until| !until.is_empty())
        && until.parse::<Timestamp>().map_or(true, |until| until <= now)
    {
        return Ok(None);
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    for group in data("auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return Err(format!(
                "bootstrap group {group:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
            ));
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.push(AUTHENTICATED.to_owned());
    Ok(Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() }))
}

/// Comparison whose time says nothing about where the difference is.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
