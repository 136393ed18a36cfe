//! A client as small as can be: one pool of connections, raw JSON.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
}

/// The lines of a watch.
pub(crate) struct Watch {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    read: Vec<u8>,
}

impl Client {
    /// As the current user of a kubeconfig with certificates in it. `kubectl` reads the file, whatever its shape.
    pub(crate) fn of(kubeconfig: &Path, kubectl: &Path) -> Result<Self> {
        let mut command = Command::new(kubectl);
        command
            .args(["config", "view", "--minify", "--raw", "--flatten", "-o", "json", "--kubeconfig"])
            .arg(kubeconfig);
        let output = command.output().with_context(|| format!("cannot run {}", kubectl.display()))?;
        let config: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{}: {}", kubeconfig.display(), String::from_utf8_lossy(&output.stderr)))?;
        let decoded = |pointer: &str| -> Result<Vec<u8>> {
            let text = config.pointer(pointer).and_then(Value::as_str);
            Ok(STANDARD.decode(text.with_context(|| format!("{} has no {pointer}", kubeconfig.display()))?)?)
        };
        let mut identity = decoded("/users/0/user/client-key-data")?;
        identity.extend(decoded("/users/0/user/client-certificate-data")?);
        let authority = reqwest::Certificate::from_pem(&decoded("/clusters/0/cluster/certificate-authority-data")?)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([authority])
            .identity(reqwest::Identity::from_pem(&identity)?)
            .http1_only()
            .no_proxy()
            .pool_max_idle_per_host(1000)
            .build()?;
        let server = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str);
        Ok(Self { http, server: server.context("no server")?.trim_end_matches('/').to_owned() })
    }

    /// The answer's body; an error of the server is an error here.
    pub(crate) async fn send(&self, method: reqwest::Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.server));
        request = request.header("Accept", "application/json");
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body.into())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.send(reqwest::Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Vec<u8>> {
        self.send(reqwest::Method::POST, path, Some(serde_json::to_vec(object)?)).await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Result<Vec<u8>> {
        self.send(reqwest::Method::PUT, path, Some(serde_json::to_vec(object)?)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Vec<u8>> {
        self.send(reqwest::Method::DELETE, path, None).await
    }

    /// Waits for the first bytes of an answer that does not end.
    pub(crate) async fn first_of(&self, path: &str) -> Result<()> {
        let answer = self.http.get(format!("{}{path}", self.server)).send().await?.error_for_status()?;
        answer.bytes_stream().next().await.context("an empty answer")??;
        Ok(())
    }

    /// Watches a collection from now on; the answer's head has come when this returns.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch> {
        let list: Value = serde_json::from_slice(&self.get(&format!("{path}?limit=1")).await?)?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a list without resourceVersion")?;
        let url = format!("{}{path}?watch=1&resourceVersion={version}", self.server);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        Ok(Watch { body: answer.bytes_stream().boxed(), read: Vec::new() })
    }
}

impl Watch {
    /// The next event's type and object.
    pub(crate) async fn next(&mut self) -> Result<(String, Value)> {
        let mut line: Value = serde_json::from_slice(&self.line().await?)?;
        Ok((line["type"].as_str().unwrap_or_default().to_owned(), line["object"].take()))
    }

    /// The next event as it comes over the wire.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            self.read.extend(self.body.next().await.context("the watch ended")??);
        }
    }
}
