//! Talks to a running instance over its admin socket, `DIR/run/admin.sock`: HTTP/1.1, root only.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

type Body = BoxBody<Bytes, io::Error>;

/// One instance's admin socket.
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    pub fn new(data_dir: &Path) -> Self {
        Self { socket: data_dir.join("run/admin.sock") }
    }

    /// Whether an instance answers.
    pub async fn is_running(&self) -> bool {
        self.get("/status").await.is_ok()
    }

    pub async fn get(&self, path: &str) -> Result<Bytes> {
        self.send(Method::GET, path, empty()).await
    }

    pub async fn post(&self, path: &str) -> Result<Bytes> {
        self.send(Method::POST, path, empty()).await
    }

    pub async fn delete(&self, path: &str) -> Result<Bytes> {
        self.send(Method::DELETE, path, empty()).await
    }

    /// Posts everything `reader` gives, as it comes.
    pub async fn upload(&self, path: &str, reader: impl AsyncRead + Send + Sync + 'static) -> Result<Bytes> {
        use futures::TryStreamExt;
        let body = StreamBody::new(ReaderStream::new(reader).map_ok(Frame::data));
        self.send(Method::POST, path, BodyExt::boxed(body)).await
    }

    /// An answer that is no success is the error, in the server's words.
    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Bytes> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                anyhow!(
                    "minke is not running here ({} does not answer); start it with `minke up`",
                    self.socket.display()
                )
            }
            io::ErrorKind::PermissionDenied => anyhow!("only root may use {}", self.socket.display()),
            _ => anyhow!(error).context(format!("cannot connect to {}", self.socket.display())),
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header("host", "minke").body(body)?;
        let exchange = async {
            let response = sender.send_request(request).await.context("minke did not answer")?;
            let status = response.status();
            let body = response.into_body().collect().await.context("minke stopped answering")?.to_bytes();
            Ok::<(StatusCode, Bytes), anyhow::Error>((status, body))
        };
        let (status, body) = tokio::select! {
            answer = exchange => answer?,
            ended = connection => bail!("the connection to minke ended: {ended:?}"),
        };
        if !status.is_success() {
            bail!("{}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(body)
    }
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}
