//! The API server itself: what it is made of, and the way of a request through it.

use crate::admission;
use crate::authentication::{Authenticator, User, impersonation};
use crate::authorization::{Attributes, Authorizer};
use crate::body::Body;
use crate::cache::Caches;
use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::metrics::Metrics;
use crate::negotiate::{self, Conversions};
use crate::query::{self, Query};
use crate::request::RequestInfo;
use crate::respond;
use crate::world::World;
use crate::{fixed_paths, verbs};
use api::resource::{Resource, Subresource};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use store::kv::{Kv, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// History is kept at least so long, for lists in pages and watches that come back.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// What an API server is made of.
pub struct Config {
    pub kv: Arc<dyn Kv>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub world: Arc<dyn World>,
    /// How kubelets are reached: roots, and a client certificate that they accept. Without it logs, exec, attach,
    /// port-forward and the node proxy are refused.
    pub kubelet_client: Option<Arc<rustls::ClientConfig>>,
    /// Where clients reach this server, as `/api` tells: `10.0.0.1:6443`.
    pub advertised_address: String,
    /// ClusterIPs are drawn from here: `10.96.0.0/12`; IPv4 first where there are two.
    pub service_cidrs: Vec<String>,
    /// Controllers that run beside this server, by upstream's names (`deployment`). A write to a kind whose controller
    /// is not among them is answered with a warning.
    pub controllers: Vec<&'static str>,
}

/// One API server. Cheap to share; everything in it is.
pub struct ApiServer {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) caches: Caches,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Authorizer,
    pub(crate) world: Arc<dyn World>,
    pub(crate) kubelet_client: Option<Arc<rustls::ClientConfig>>,
    pub(crate) advertised_address: String,
    pub(crate) services: crate::service_addresses::Allocator,
    pub(crate) metrics: Metrics,
    controllers: Vec<&'static str>,
    feed_from: u64,
    stopping: watch::Sender<bool>,
    /// Tunnels and connections to kubelets.
    tasks: Mutex<JoinSet<()>>,
    this: Weak<Self>,
}

impl ApiServer {
    /// Puts the bootstrap objects in place that are missing and loads the watch cache. Nothing is answered with fresh
    /// data before [`Self::run`] is polled.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(config: Config) -> std::result::Result<Arc<Self>, StoreError> {
        crate::initial_objects::create_missing(&config).await?;
        let caches = Caches::new(config.kv.clone(), api::table::resources());
        let feed_from = caches.load().await?;
        let services = crate::service_addresses::Allocator::new(&config.service_cidrs);
        Ok(Arc::new_cyclic(|this| Self {
            kv: config.kv,
            caches,
            authenticator: config.authenticator,
            authorizer: config.authorizer,
            world: config.world,
            kubelet_client: config.kubelet_client,
            advertised_address: config.advertised_address,
            services,
            metrics: Metrics::default(),
            controllers: config.controllers,
            feed_from,
            stopping: watch::Sender::new(false),
            tasks: Mutex::default(),
            this: this.clone(),
        }))
    }

    /// Feeds the watch cache until `shutdown`; then every watch ends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> std::result::Result<(), StoreError> {
        let result = tokio::select! {
            result = self.caches.run(self.feed_from) => result,
            () = self.compact() => Ok(()),
            () = shutdown => Ok(()),
        };
        self.stopping.send_replace(true);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        result
    }

    /// Forgets what is older than one period, for ever (upstream `--etcd-compaction-interval`).
    async fn compact(&self) {
        let mut seen = self.caches.applied();
        loop {
            tokio::time::sleep(COMPACT_EVERY).await;
            if let Err(error) = self.kv.compact(seen).await {
                tracing::warn!(%error, "the store was not compacted");
            }
            seen = self.caches.applied();
        }
    }

    /// Runs a task until it is done or the server ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// What identity, authorization and admission see.
    pub fn lookup(&self) -> &dyn crate::lookup::Lookup {
        &self.caches
    }

    pub(crate) fn shared(&self) -> Arc<Self> {
        // `start` is the only way to make one, and it hands out an `Arc`; a reference proves that it still lives.
        self.this.upgrade().unwrap_or_else(|| unreachable!("an API server outside its Arc"))
    }

    /// Becomes true when the server ends.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(crate) fn has_controller(&self, name: &str) -> bool {
        self.controllers.contains(&name)
    }

    /// Answers one request of an authenticated user: authorization, decoding, admission, validation, store. Bodies
    /// longer than [`crate::http::BODY_LIMIT_BYTES`] are refused. A request that asks for an upgrade must carry hyper's
    /// `OnUpgrade` among its extensions.
    pub async fn handle(&self, user: &User, request: Request<Bytes>) -> Response<Body> {
        let accept = header(request.headers(), "accept");
        let answered = AssertUnwindSafe(self.answer(user, request)).catch_unwind().await;
        match answered {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => respond::refuse(&refusal, &accept),
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                tracing::error!(panic = what.unwrap_or("unknown"), "a request panicked");
                let why = "This request caused apiserver to panic. Look in the logs for details.";
                respond::refuse(
                    &crate::refusal::Refusal {
                        details: serde_json::Value::Null,
                        ..crate::refusal::Refusal::internal(why)
                    },
                    &accept,
                )
            }
        }
    }

    async fn answer(&self, user: &User, request: Request<Bytes>) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        query::check_timeout(&query)?;
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let impersonated = self.impersonate(user, &info, &parts.headers)?;
        let user = impersonated.as_ref().unwrap_or(user);
        self.authorize(user, &info, &query)?;
        if !info.is_resource {
            return fixed_paths::answer(self, &info, &parts, &query).await;
        }
        let Some((resource, subresource)) = find(&info) else {
            return Err(missing(&info)?);
        };
        let mut call = Call::new(self, user, &info, resource, subresource, &query, &parts.headers, &body);
        call.on_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>().map(Mutex::new);
        call.method = parts.method;
        call.raw_query = parts.uri.query().map(str::to_owned);
        if let Some(text) = deprecated(resource) {
            call.warn(text);
        }
        let answered =
            async { dispatch(&call).await.unwrap_or_else(|refusal| respond::refuse(&refusal, call.header("accept"))) };
        let mut response = self.metrics.measured(&call, answered).await;
        add_warnings(response.headers_mut(), &call.take_warnings());
        Ok(response)
    }

    fn impersonate(&self, user: &User, info: &RequestInfo, headers: &HeaderMap) -> Result<Option<User>> {
        let pairs = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let Some(wanted) = impersonation::wanted(pairs)? else {
            return Ok(None);
        };
        let attributes = attributes(user, info, None);
        impersonation::impersonate(&wanted, &attributes, &self.authorizer, &self.caches).map(Some)
    }

    /// Whether the call's user may also create what the call is about.
    pub(crate) fn authorize_create(&self, call: &Call<'_>) -> Result<()> {
        let mut attributes = attributes(call.user, call.info, None);
        attributes.verb = "create";
        self.authorizer.check(&attributes, &self.caches)
    }

    pub(crate) fn authorize(&self, user: &User, info: &RequestInfo, query: &Query) -> Result<()> {
        let selector = match info.verb.as_str() {
            "list" | "watch" | "deletecollection" => {
                schema::selector::FieldSelector::parse(query.get("fieldSelector")).ok()
            }
            _ => None,
        };
        self.authorizer.check(&attributes(user, info, selector.as_ref()), &self.caches)
    }
}

fn attributes<'a>(
    user: &'a User,
    info: &'a RequestInfo,
    selector: Option<&'a schema::selector::FieldSelector>,
) -> Attributes<'a> {
    let mut attributes = Attributes::new(user, &info.verb);
    attributes.field_selector = selector;
    if !info.is_resource {
        attributes.path = &info.path;
        return attributes;
    }
    attributes.group = &info.group;
    attributes.version = &info.version;
    attributes.resource = &info.resource;
    attributes.subresource = &info.subresource;
    attributes.namespace = &info.namespace;
    attributes.name = name_asked(&info.name, selector);
    attributes
}

/// The name that authorization judges: a list limited to one name may be allowed by a rule for that name.
pub(crate) fn name_asked<'a>(name: &'a str, selector: Option<&'a schema::selector::FieldSelector>) -> &'a str {
    let terms = selector.iter().flat_map(|selector| &selector.terms);
    let exact = terms.into_iter().find(|(field, _, equal)| field == "metadata.name" && *equal);
    match exact {
        Some((_, only, _)) if name.is_empty() => only,
        _ => name,
    }
}

/// The resource of a path, as its scope allows, and its subresource.
fn find(info: &RequestInfo) -> Option<(&'static Resource, Option<&'static Subresource>)> {
    let resource = api::resource::find(&info.group, &info.version, &info.resource)?;
    let in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
    if resource.namespaced {
        // Across namespaces a resource can only be listed and watched.
        if !in_namespace && !info.name.is_empty() {
            return None;
        }
    } else if in_namespace {
        return None;
    }
    if info.subresource.is_empty() {
        return Some((resource, None));
    }
    resource.subresources.iter().find(|s| s.name == info.subresource).map(|s| (resource, Some(s)))
}

/// The refusal of a path without a resource: upstream tells unknown groups apart, in plain text.
fn missing(info: &RequestInfo) -> std::result::Result<crate::refusal::Refusal, crate::refusal::Refusal> {
    let known = api::table::resources().iter().any(|r| r.group == info.group);
    if known || info.group.is_empty() { Ok(errors::no_such_resource()) } else { Err(errors::page_not_found()) }
}

/// Kinds that upstream warns of at every request.
fn deprecated(resource: &Resource) -> Option<&'static str> {
    match (resource.group, resource.plural) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

async fn dispatch(call: &Call<'_>) -> Result<Response<Body>> {
    let verb = verbs::Verb::of(call)?;
    let conversions = if verb.answers_itself() { Conversions::None } else { Conversions::Resource };
    let pretty = matches!(call.query.find("pretty"), Some(v) if !matches!(v, "0" | "false"));
    let form = if verb.negotiates() {
        negotiate::check_produces(call.header("accept"))?;
        negotiate::negotiate(call.header("accept"), conversions, pretty)?
    } else {
        negotiate::Negotiated::plain_json()
    };
    let answer: Answer = verb.carry_out(call, &form).await?;
    respond::respond(call, &form, answer)
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// `Warning: 299 - "…"`, one header a text (apimachinery `util/net` `NewWarningHeader`).
fn add_warnings(headers: &mut HeaderMap, texts: &[String]) {
    for text in texts {
        let cleaned: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        let escaped = cleaned.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            headers.append(http::header::WARNING, value);
        }
    }
}

/// The admission request of a call.
pub(crate) fn admission_request<'a>(
    call: &'a Call<'_>,
    operation: admission::Operation,
    name: &'a str,
    namespace: &'a str,
    old: Option<&'a serde_json::Value>,
    dry_run: bool,
) -> admission::Request<'a> {
    admission::Request {
        operation,
        group: call.resource.group,
        version: call.resource.version,
        resource: call.resource.plural,
        kind: call.subresource.map_or(call.resource.kind, |s| s.kind),
        subresource: call.subresource.map_or("", |s| s.name),
        namespace,
        name,
        user: call.user,
        old,
        dry_run,
        lookup: &call.server.caches,
        times: &call.server.metrics.admission,
        authorizer: &call.server.authorizer,
        now: call.now,
        random: call.server.world.random(),
    }
}
