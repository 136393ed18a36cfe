//! Who asks the kubelet, and whether they may: certificates of the cluster's authority, tokens that the API server knows
//! (TokenReview), and what it says of them (SubjectAccessReview). Answers are kept as long as upstream's kubelet keeps them.

use crate::Shared;
use api::write::{Target, Verb, Write};
use client::transport::CallError;
use http::{HeaderMap, StatusCode, header};
use kubelet::access;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a token's owner, a permission and a refusal count (upstream `authentication.webhook.cacheTTL`,
/// `authorization.webhook.cache(Una|A)uthorizedTTL`).
const TOKEN: Duration = Duration::from_secs(120);
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
/// More answers than these are not kept.
const KEPT: usize = 4096;
/// The API server lets it do everything.
const MASTERS: &str = "system:masters";

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(super) struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// What the API server said lately.
#[derive(Default)]
pub(crate) struct Reviews {
    tokens: Kept<String, Option<User>>,
    permissions: Kept<(User, &'static str, &'static str), bool>,
}

struct Kept<K, V>(Mutex<BTreeMap<K, (Instant, V)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn set(&self, key: K, value: V, lifetime: Duration) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if kept.len() >= KEPT {
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() < KEPT {
            kept.insert(key, (now + lifetime, value));
        }
    }
}

/// The user that a client's certificate names; TLS has checked it.
pub(super) fn of_certificate(certificate: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    let groups = groups.chain(["system:authenticated".to_owned()]).collect();
    Some(User { username: name.to_owned(), groups, ..User::default() })
}

/// Lets a request through, or says with which answer it is refused.
pub(super) async fn check(
    shared: &Shared,
    certificate: Option<&User>,
    (method, path): (&str, &str),
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
    let user = match certificate {
        Some(user) => user.clone(),
        None => of_token(shared, headers).await.ok_or_else(unauthorized)?,
    };
    if user.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let (verb, subresources) = (access::verb(method), access::subresources(path));
    for subresource in &subresources {
        match allows(shared, &user, verb, subresource).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(user = user.username, subresource, %error, "cannot ask whether a request is allowed");
                let who = &user.username;
                let why =
                    format!("Authorization error (user={who}, verb={verb}, resource=nodes, subresource={subresource})");
                return Err((StatusCode::INTERNAL_SERVER_ERROR, why));
            }
        }
    }
    Err((StatusCode::FORBIDDEN, access::forbidden(&user.username, verb, &subresources)))
}

async fn of_token(shared: &Shared, headers: &HeaderMap) -> Option<User> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return None;
    }
    if let Some(user) = shared.reviews.tokens.get(&token.to_owned()) {
        return user;
    }
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let status = match ask(shared, "authentication.k8s.io", "tokenreviews", &review).await {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(%error, "cannot ask whose a token is");
            return None;
        }
    };
    let known = status["authenticated"] == true;
    let user = known.then(|| serde_json::from_value(status["user"].clone()).unwrap_or_default());
    shared.reviews.tokens.set(token.to_owned(), user.clone(), TOKEN);
    user
}

async fn allows(
    shared: &Shared,
    user: &User,
    verb: &'static str,
    subresource: &'static str,
) -> Result<bool, CallError> {
    let key = (user.clone(), verb, subresource);
    if let Some(allowed) = shared.reviews.permissions.get(&key) {
        return Ok(allowed);
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        "resourceAttributes": {
            "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource,
            "name": shared.config.name,
        },
    }});
    let allowed = ask(shared, "authorization.k8s.io", "subjectaccessreviews", &review).await?["allowed"] == true;
    shared.reviews.permissions.set(key, allowed, if allowed { ALLOWED } else { DENIED });
    Ok(allowed)
}

/// The status of a review.
async fn ask(shared: &Shared, group: &'static str, plural: &'static str, review: &Value) -> Result<Value, CallError> {
    let target = Target { group, version: "v1", plural, ..Target::default() };
    let write = Write { verb: Verb::Create, target, body: review.to_string().into() };
    let answer = shared.client.transport().write(write).await?;
    let answer: Value =
        answer.decode().map_err(|error| CallError::Unreachable(format!("undecodable {plural}: {error}")))?;
    Ok(answer["status"].clone())
}
