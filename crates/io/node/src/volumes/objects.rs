//! Where a volume's content comes from.

use async_trait::async_trait;
use client::transport::CallError;
use client::typed::Client;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use serde_json::json;
use std::sync::Arc;

/// Why there is no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("not found")]
    NotFound,
    /// In the server's words.
    #[error("{0}")]
    Failed(String),
}

/// A service account's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    /// How long it lives from now.
    pub lifetime_seconds: u64,
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    pub namespace: String,
    pub service_account: String,
    /// It is bound to this Pod.
    pub pod_name: String,
    pub pod_uid: String,
    /// Empty: the API server's own.
    pub audience: String,
    pub expiration_seconds: i64,
}

/// Gives ConfigMaps, Secrets and tokens.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError>;
    async fn token(&self, key: &TokenKey) -> Result<Token, ObjectError>;
}

impl From<CallError> for ObjectError {
    fn from(error: CallError) -> ObjectError {
        if error.is_not_found() { ObjectError::NotFound } else { ObjectError::Failed(error.to_string()) }
    }
}

#[async_trait]
impl Objects for Client {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Ok(self.get(namespace, name).await?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Ok(self.get(namespace, name).await?)
    }

    async fn token(&self, key: &TokenKey) -> Result<Token, ObjectError> {
        let audiences: Vec<&str> = Some(key.audience.as_str()).filter(|a| !a.is_empty()).into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": key.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": key.pod_name, "uid": key.pod_uid},
            },
        });
        let answer = self.post::<ServiceAccount>(&key.namespace, &key.service_account, "token", &request).await;
        // Not found is told in the server's own words here.
        let answer = answer.map_err(|error| ObjectError::Failed(error.to_string()))?;
        let answer = answer.typed::<TokenRequest>().map_err(|e| ObjectError::Failed(e.to_string()))?;
        let token = answer.status.as_ref().and_then(|status| status.token.clone()).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| ObjectError::Failed("the server's answer holds no token".to_owned()))?;
        let seconds = answer.spec.as_ref().and_then(|spec| spec.expiration_seconds).unwrap_or(key.expiration_seconds);
        Ok(Token { token, lifetime_seconds: seconds.try_into().unwrap_or_default() })
    }
}
