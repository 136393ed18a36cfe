//! A URL of manifests (upstream `pkg/kubelet/config/http.go`), asked every 20 s: there is no event for it. An empty answer
//! means no Pods; none at all, or one that cannot be used, changes nothing. The last good answer is kept in the data
//! directory, so that its Pods are known again after a restart even where the URL is not reachable then.

use super::Wanted;
use crate::{Shared, every};
use jiff::Timestamp;
use kubelet::static_pods::{self, MAX_BYTES, Origin};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const PERIOD: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(shared: &Arc<Shared>, sender: mpsc::UnboundedSender<Wanted>) {
    let kept = shared.config.data_dir.join("manifest-url");
    let Some(url) = &shared.config.manifest_url else {
        sender.send(Wanted::new()).ok();
        std::fs::remove_file(kept).ok();
        return std::future::pending().await;
    };
    let mut source = Source { shared, url, kept, last: None };
    sender.send(source.remembered().unwrap_or_default()).ok();
    let client = match source.client() {
        Ok(client) => client,
        Err(error) => {
            source.tell(Some(error));
            return std::future::pending().await;
        }
    };
    let mut ticks = every(PERIOD);
    loop {
        ticks.tick().await;
        let asked = match fetch(&client, url).await {
            Ok(body) => source.take(body),
            Err(error) => Err(error),
        };
        match asked {
            Ok(wanted) => {
                source.tell(None);
                wanted.map(|wanted| sender.send(wanted));
            }
            Err(error) => source.tell(Some(error)),
        }
    }
}

struct Source<'a> {
    shared: &'a Shared,
    url: &'a str,
    kept: PathBuf,
    /// The last answer.
    last: Option<Vec<u8>>,
}

impl Source<'_> {
    fn client(&self) -> Result<reqwest::Client, String> {
        let mut headers = http::HeaderMap::new();
        for header in &self.shared.config.manifest_url_headers {
            let (name, value) = header.split_once(':').ok_or_else(|| format!("no header: {header:?}"))?;
            let name: http::HeaderName = name.trim().parse().map_err(|_| format!("no name of a header: {name:?}"))?;
            let value = value.trim().parse().map_err(|_| format!("no value of the header {name}"))?;
            headers.append(name, value);
        }
        let builder = reqwest::Client::builder().timeout(TIMEOUT).default_headers(headers);
        builder.build().map_err(|error| causes(&error))
    }

    /// What the URL answered last before this start.
    fn remembered(&mut self) -> Option<Wanted> {
        let bytes = std::fs::read(&self.kept).ok()?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        if bytes[..end] != *self.url.as_bytes() {
            return None;
        }
        let body = bytes[end + 1..].to_vec();
        let wanted = self.pods(&body).ok()?;
        self.last = Some(body);
        Some(wanted)
    }

    /// The Pods of an answer, if it is another one than before.
    fn take(&mut self, body: Vec<u8>) -> Result<Option<Wanted>, String> {
        if self.last.as_ref() == Some(&body) {
            return Ok(None);
        }
        let wanted = if body.is_empty() { Wanted::new() } else { self.pods(&body)? };
        let kept = [self.url.as_bytes(), b"\n", &body].concat();
        let new = self.kept.with_extension("new");
        let written = std::fs::write(&new, kept).and_then(|()| std::fs::rename(&new, &self.kept));
        if let Err(error) = written {
            tracing::warn!(path = %self.kept.display(), %error, "the answer of the manifest URL is not kept");
        }
        self.last = Some(body);
        Ok(Some(wanted))
    }

    fn pods(&self, body: &[u8]) -> Result<Wanted, String> {
        let origin = Origin::Url { url: self.url, node: &self.shared.config.name };
        let manifest = static_pods::decode(body, origin, Timestamp::now()).map_err(|wrong| wrong.to_string())?;
        for warning in &manifest.warnings {
            tracing::warn!(url = self.url, "{warning}");
        }
        Ok(manifest.pods.into_iter().map(Arc::new).collect())
    }

    /// A problem is logged when it is new.
    fn tell(&self, problem: Option<String>) {
        let text = problem.clone();
        match (self.shared.manifests.set(self.url, problem), text) {
            (true, Some(problem)) => tracing::warn!(url = self.url, problem, "no static Pods from the manifest URL"),
            (true, None) => tracing::info!(url = self.url, "the manifest URL answers again"),
            _ => {}
        }
    }
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, String> {
    let mut response = client.get(url).send().await.map_err(|error| causes(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_BYTES {
            return Err("its answer is longer than 10 MiB".to_owned());
        }
    }
    Ok(body)
}

/// An error with all that lies behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let behind = std::iter::successors(error.source(), |error| error.source());
    behind.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
