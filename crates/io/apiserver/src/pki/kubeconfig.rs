//! Kubeconfig files.

use super::{Leaf, PkiError, files};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// The text of a kubeconfig with one context, named as cluster and user are. `server` is `https://HOST:PORT`.
pub fn kubeconfig(context: &str, server: &str, authority_pem: &str, client: &Leaf) -> String {
    let name = serde_json::Value::from(context);
    let server = serde_json::Value::from(server);
    let (authority, certificate, key) =
        (STANDARD.encode(authority_pem), STANDARD.encode(&client.certificate_pem), STANDARD.encode(&client.key_pem));
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// Writes a kubeconfig with mode 0600.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(path: &Path, text: &str) -> Result<(), PkiError> {
    files::write_private(path, text)
}
