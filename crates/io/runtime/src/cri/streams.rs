//! Exec, attach and port-forward: a call gives the address of a stream, which is served on the loopback to whoever knows the
//! address's secret, once and within a minute (upstream `cri-streaming/pkg/streaming`).

use super::Server;
use super::grpc::{Code, Refusal};
use super::v1::{AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse};
use crate::streaming::command::{self, Call};
use crate::streaming::{Body, port_forward, text};
use crate::types::{ExecConfig, Runtime};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long an address is good (upstream `cacheTTL`), and how many there may be at once (`maxInFlight`).
const LIFETIME: Duration = Duration::from_secs(60);
const MAX_WAITING: usize = 1000;

/// What is served at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Exec { id: String, config: ExecConfig },
    Attach { id: String, config: ExecConfig },
    PortForward { sandbox_id: String },
}

impl Wanted {
    fn name(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

/// What was promised and not fetched yet.
#[derive(Default)]
struct Promises {
    by_secret: BTreeMap<String, (Instant, Wanted)>,
}

impl Promises {
    fn add(&mut self, secret: String, wanted: Wanted, now: Instant) -> Result<(), Refusal> {
        self.by_secret.retain(|_, (until, _)| *until > now);
        if self.by_secret.len() >= MAX_WAITING {
            return Err(Refusal::new(Code::Unknown, "maximum number of in-flight requests exceeded"));
        }
        self.by_secret.insert(secret, (now + LIFETIME, wanted));
        Ok(())
    }

    /// Once only.
    fn take(&mut self, path: &str, now: Instant) -> Option<Wanted> {
        let (name, secret) = path.strip_prefix('/')?.split_once('/')?;
        let (until, wanted) = self.by_secret.remove(secret)?;
        (until > now && wanted.name() == name).then_some(wanted)
    }
}

pub(super) struct Streams {
    inner: Arc<Inner>,
    /// Opened with the first promise.
    address: OnceCell<SocketAddr>,
}

struct Inner {
    runtime: Arc<dyn Runtime>,
    promises: Mutex<Promises>,
    tasks: TaskTracker,
}

impl Inner {
    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    pub(super) fn new(runtime: Arc<dyn Runtime>, tasks: TaskTracker) -> Self {
        Self { inner: Arc::new(Inner { runtime, promises: Mutex::default(), tasks }), address: OnceCell::new() }
    }

    async fn promise(&self, wanted: Wanted) -> Result<String, Refusal> {
        let failed = |error: std::io::Error| Refusal::new(Code::Internal, format!("no stream can be served: {error}"));
        let address = self.address.get_or_try_init(|| listen(&self.inner)).await.map_err(failed)?;
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|e| failed(e.into()))?;
        let secret = format!("{:032x}", u128::from_ne_bytes(bytes));
        let url = format!("http://{address}/{}/{secret}", wanted.name());
        self.inner.promises().add(secret, wanted, Instant::now())?;
        Ok(url)
    }
}

async fn listen(inner: &Arc<Inner>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let own = inner.clone();
    inner.tasks.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(own.tasks.spawn(connection(own.clone(), stream))),
                Err(error) => {
                    tracing::warn!(%error, "CRI's streams cannot be served any more");
                    return;
                }
            }
        }
    });
    Ok(address)
}

async fn connection(inner: Arc<Inner>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let service = hyper::service::service_fn(move |request| {
        let inner = inner.clone();
        async move { Ok::<_, Infallible>(answer(&inner, request)) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a CRI stream ended");
    }
}

fn answer(inner: &Inner, request: Request<Incoming>) -> Response<Body> {
    let Some(wanted) = inner.promises().take(request.uri().path(), Instant::now()) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let runtime = inner.runtime.clone();
    match wanted {
        Wanted::Exec { id, config } => {
            let wanted = config.clone();
            let open = async move { runtime.exec(&id, wanted).await };
            command::answer(&inner.tasks, request, Call::Exec, &config, open)
        }
        Wanted::Attach { id, config } => {
            let wanted = config.clone();
            let open = async move { runtime.attach(&id, wanted).await };
            command::answer(&inner.tasks, request, Call::Attach, &config, open)
        }
        Wanted::PortForward { sandbox_id } => port_forward::answer(&inner.tasks, request, runtime, sandbox_id),
    }
}

/// Upstream `validateExecRequest` and `validateAttachRequest`.
fn check(config: &ExecConfig) -> Result<(), Refusal> {
    if config.tty && config.stderr {
        return Err(Refusal::invalid("tty and stderr cannot both be true"));
    }
    if !config.stdin && !config.stdout && !config.stderr {
        return Err(Refusal::invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

impl Server {
    pub(super) async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Refusal> {
        let ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr } = request;
        let config = ExecConfig { command, stdin, stdout, stderr, tty };
        check(&config)?;
        let id = self.running(&container_id).await?;
        Ok(ExecResponse { url: self.streams.promise(Wanted::Exec { id, config }).await? })
    }

    pub(super) async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Refusal> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let config = ExecConfig { command: Vec::new(), stdin, stdout, stderr, tty };
        check(&config)?;
        let id = self.running(&container_id).await?;
        Ok(AttachResponse { url: self.streams.promise(Wanted::Attach { id, config }).await? })
    }

    async fn running(&self, id: &str) -> Result<String, Refusal> {
        let container = self.find_container(id).await?;
        if container.state != crate::types::ContainerState::Running {
            let state = super::tell::state(container.state).as_str_name();
            return Err(Refusal::new(Code::Unknown, format!("container is in {state} state")));
        }
        Ok(container.id)
    }

    pub(super) async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse, Refusal> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        if !sandbox.ready {
            return Err(Refusal::new(Code::Unknown, format!("sandbox container {:?} is not running", sandbox.id)));
        }
        Ok(PortForwardResponse { url: self.streams.promise(Wanted::PortForward { sandbox_id: sandbox.id }).await? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_good_once_and_for_a_minute() {
        let start = Instant::now();
        let wanted = Wanted::PortForward { sandbox_id: "s".into() };
        let mut promises = Promises::default();
        let mut add = |secret: &str, at: Instant| promises.add(secret.into(), wanted.clone(), at).unwrap();
        add("a", start);
        add("b", start);
        add("c", start);
        assert_eq!(promises.take("/portforward/a", start), Some(wanted.clone()));
        assert_eq!(promises.take("/portforward/a", start), None);
        assert_eq!(promises.take("/exec/b", start), None, "another kind of stream");
        assert_eq!(promises.take("/portforward/c", start + LIFETIME), None);
        for unknown in ["", "/", "/portforward", "/portforward/", "/portforward/x"] {
            assert_eq!(promises.take(unknown, start), None);
        }
    }

    #[test]
    fn promises_are_limited_and_forgotten_in_time() {
        let start = Instant::now();
        let wanted = Wanted::PortForward { sandbox_id: "s".into() };
        let mut promises = Promises::default();
        for i in 0..MAX_WAITING {
            promises.add(i.to_string(), wanted.clone(), start).unwrap();
        }
        assert!(promises.add("more".into(), wanted.clone(), start).is_err());
        assert!(promises.add("more".into(), wanted, start + LIFETIME).is_ok());
        assert_eq!(promises.by_secret.len(), 1);
    }
}
