//! What `/metrics` tells, with upstream's names and labels (apiserver `endpoints/metrics`, `admission/metrics`): requests for
//! resources, watches, admission, stored objects, and the process.

mod text;

use crate::admission::Operation;
use crate::body::Body;
use crate::call::Call;
use crate::refusal::Refusal;
use crate::server::ApiServer;
use futures::StreamExt;
use http::{Method, Response};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const DURATION_BOUNDS_S: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SIZE_BOUNDS_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

const ADMISSION_BOUNDS_S: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// What has been counted since the server's start.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, Requests>>,
    /// Requests that are being answered; long-running ones have gauges of their own.
    reading: Arc<AtomicI64>,
    writing: Arc<AtomicI64>,
    watch_events: Mutex<BTreeMap<[&'static str; 3], Arc<AtomicU64>>>,
    pub admission: Times,
}

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    /// `dryRun=All`.
    dry_run: bool,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
}

struct Requests {
    by_code: BTreeMap<u16, u64>,
    seconds: Histogram,
    /// Of reads only.
    bytes: Histogram,
    long_running: Arc<AtomicI64>,
}

/// Observations by size.
#[derive(Clone)]
struct Histogram {
    bounds: &'static [f64],
    /// One for each bound; what is larger is in `count` alone.
    below: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, below: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            self.below[bucket] += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

/// Counts one as long as it lives.
pub(crate) struct Up(Arc<AtomicI64>);

impl Up {
    fn new(gauge: &Arc<AtomicI64>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge.clone())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long each admission plug-in took: by its name, the phase, the operation, and whether it refused.
#[derive(Default)]
pub struct Times(Mutex<BTreeMap<(&'static str, &'static str, &'static str, bool), Histogram>>);

/// Measures the plug-ins of one phase one after another.
pub(crate) struct Laps<'a> {
    times: &'a Times,
    phase: &'static str,
    operation: &'static str,
    last: Instant,
    laps: Vec<(&'static str, Duration, bool)>,
}

impl Times {
    pub(crate) fn laps(&self, phase: &'static str, operation: Operation) -> Laps<'_> {
        let operation = match operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        };
        Laps { times: self, phase, operation, last: Instant::now(), laps: Vec::with_capacity(16) }
    }
}

impl Laps<'_> {
    /// What has passed since the last lap is the plug-in's.
    pub(crate) fn judged<T>(&mut self, plugin: &'static str, result: Result<T, Refusal>) -> Result<T, Refusal> {
        self.lap(plugin, result.is_err());
        result
    }

    /// As [`Self::judged`], of a plug-in that never refuses.
    pub(crate) fn done(&mut self, plugin: &'static str) {
        self.lap(plugin, false);
    }

    fn lap(&mut self, plugin: &'static str, refused: bool) {
        let now = Instant::now();
        self.laps.push((plugin, now - std::mem::replace(&mut self.last, now), refused));
    }
}

impl Drop for Laps<'_> {
    fn drop(&mut self) {
        let mut times = self.times.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (plugin, took, refused) in self.laps.drain(..) {
            let series = times.entry((plugin, self.phase, self.operation, refused));
            series.or_insert_with(|| Histogram::new(ADMISSION_BOUNDS_S)).observe(took.as_secs_f64());
        }
    }
}

impl Metrics {
    fn series<T>(&self, labels: &Labels, of: impl FnOnce(&mut Requests) -> T) -> T {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = requests.get_mut(labels) {
            return of(known);
        }
        of(requests.entry(labels.clone()).or_insert_with(|| Requests {
            by_code: BTreeMap::new(),
            seconds: Histogram::new(DURATION_BOUNDS_S),
            bytes: Histogram::new(SIZE_BOUNDS_BYTES),
            long_running: Arc::default(),
        }))
    }

    /// The counter of events that clients' watches of the call's resource are sent.
    pub(crate) fn watch_events(&self, call: &Call<'_>) -> Arc<AtomicU64> {
        let r = call.resource;
        let mut all = self.watch_events.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry([r.group, r.version, r.plural]).or_default().clone()
    }

    /// Counts the call among the long-running ones until the result is dropped.
    pub(crate) fn long_running(&self, call: &Call<'_>) -> Up {
        Up::new(&self.series(&Labels::of(call), |series| series.long_running.clone()))
    }

    /// Answers a call and counts it. A stream that follows a long-running call counts as long as it flows.
    pub(crate) async fn measured(
        &self,
        call: &Call<'_>,
        answer: impl Future<Output = Response<Body>>,
    ) -> Response<Body> {
        let labels = Labels::of(call);
        let begun = Instant::now();
        let long = labels.is_long_running();
        let response = {
            let _up = (!long).then(|| {
                let reads = matches!(labels.verb, "GET" | "LIST");
                Up::new(if reads { &self.reading } else { &self.writing })
            });
            answer.await
        };
        let gauge = self.series(&labels, |series| {
            *series.by_code.entry(response.status().as_u16()).or_default() += 1;
            series.seconds.observe(begun.elapsed().as_secs_f64());
            if let (Body::Full(bytes), "GET" | "LIST") = (response.body(), labels.verb) {
                #[expect(clippy::cast_precision_loss, reason = "no answer is as long as that")]
                series.bytes.observe(bytes.len() as f64);
            }
            series.long_running.clone()
        });
        if !long {
            return response;
        }
        response.map(|body| match body {
            Body::Stream(stream) => {
                let up = Up::new(&gauge);
                let counted = stream.inspect(move |_| {
                    let _until_the_end = &up;
                });
                Body::Stream(counted.boxed())
            }
            full @ Body::Full(_) => full,
        })
    }

    /// The exposition in Prometheus' text form.
    pub(crate) fn text(&self, server: &ApiServer) -> String {
        text::write(self, server)
    }
}

impl Labels {
    /// As upstream's `MonitorRequest` names a request.
    fn of(call: &Call<'_>) -> Self {
        let subresource = call.subresource.map(|s| s.name).unwrap_or_default();
        let info = call.info;
        let scope = if !info.name.is_empty() || info.verb == "create" {
            "resource"
        } else if !info.namespace.is_empty() {
            "namespace"
        } else {
            "cluster"
        };
        let verb = match (&call.method, info.verb.as_str()) {
            _ if matches!(subresource, "attach" | "exec" | "log" | "portforward" | "proxy") => "CONNECT",
            (_, "watch") => "WATCH",
            (&Method::GET | &Method::HEAD, _) if scope == "resource" => "GET",
            (&Method::GET | &Method::HEAD, _) => "LIST",
            (&Method::POST, _) => "POST",
            (&Method::PUT, _) => "PUT",
            (&Method::PATCH, _) if call.header("content-type").starts_with("application/apply-patch+") => "APPLY",
            (&Method::PATCH, _) => "PATCH",
            (&Method::DELETE, _) => "DELETE",
            _ => "other",
        };
        Self {
            verb,
            dry_run: call.query.get("dryRun") == "All",
            group: call.resource.group,
            version: call.resource.version,
            resource: call.resource.plural,
            subresource,
            scope,
        }
    }

    fn is_long_running(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT")
    }
}
