//! Reads manifests as kubectl does: files, directories, URLs, standard input; YAML of several documents, JSON, Lists.

use anyhow::{Context, Result, bail};
use api::resource::Resource;
use api::write::{Target, Verb, Write};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is read at most from one file.
const MAX_BYTES: u64 = 16 << 20;

/// Every object, in the order of the arguments (files, directories, URLs, `-`) and of the documents.
pub async fn read(places: &[String]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for place in places {
        let path = Path::new(place);
        if place.starts_with("http://") || place.starts_with("https://") {
            documents(&fetch(place).await?, place, &mut objects)?;
        } else if path.is_dir() {
            for file in files_of(path)? {
                documents(&text(&file)?, &file.to_string_lossy(), &mut objects)?;
            }
        } else {
            documents(&text(path)?, place, &mut objects)?;
        }
    }
    if objects.is_empty() {
        bail!("no objects in {}", places.join(", "));
    }
    Ok(objects)
}

async fn fetch(url: &str) -> Result<String> {
    let read = async {
        let mut response = reqwest::get(url).await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await? {
            body.extend_from_slice(&part);
            if body.len() as u64 > MAX_BYTES {
                bail!("it is longer than {} MiB", MAX_BYTES >> 20);
            }
        }
        Ok(String::from_utf8(body)?)
    };
    read.await.with_context(|| format!("cannot read {url}"))
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)));
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

fn documents(text: &str, place: &str, objects: &mut Vec<Value>) -> Result<()> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow::anyhow!("{place}: {error}"))?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(document),
        }
    }
    Ok(())
}

/// The resource that an object is of.
pub fn resource(object: &Value) -> Result<&'static Resource> {
    let (version, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let found = api::table::resources().iter().find(|r| r.kind == kind && r.api_version() == version);
    found.with_context(|| format!("no matches for kind {kind:?} in version {version:?}"))
}

/// The request that creates it, in its own namespace or `default`.
pub fn create(object: &Value) -> Result<Write> {
    let resource = resource(object)?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let target = Target {
        group: resource.group,
        version: resource.version,
        plural: resource.plural,
        namespace: if resource.namespaced { namespace.to_owned() } else { String::new() },
        ..Target::default()
    };
    Ok(Write { verb: Verb::Create, target, body: object.to_string().into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_manifest_comes_from_a_url() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            for answer in [
                "200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nkind: Pod",
                "404 Not Found\r\ncontent-length: 0\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
        };
        let url = [format!("http://{address}/pod.yaml")];
        let ask = async { (read(&url).await, read(&url).await) };
        let ((), (found, missing)) = tokio::join!(serve, ask);
        assert_eq!(found.unwrap()[0]["kind"], "Pod");
        assert!(format!("{:#}", missing.unwrap_err()).contains("404"));
    }

    #[tokio::test]
    async fn several_documents_and_lists_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let yaml = "kind: Pod\nmetadata: {name: a}\n---\n# nothing\n---\nkind: List\nitems:\n- {kind: Pod, mode: 0644}\n- {kind: Job}\n";
        std::fs::write(directory.path().join("2.yaml"), yaml).unwrap();
        std::fs::write(directory.path().join("1.json"), r#"{"kind": "Namespace"}"#).unwrap();
        std::fs::write(directory.path().join("notes.txt"), "no manifest").unwrap();
        let objects = read(&[directory.path().to_str().unwrap().to_owned()]).await.unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Namespace", "Pod", "Pod", "Job"]);
        assert_eq!(objects[2]["mode"], 420);
    }
}
