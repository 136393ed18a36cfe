//! The rows of the table: what is measured, and how.

mod api;
mod idle;
mod life;
mod pods;
mod start;

use crate::Arguments;
use crate::cluster::{Cluster, Instance};
use crate::report::Row;
use anyhow::Result;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// What every row is measured with.
pub(crate) struct Bench<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) directory: &'a Path,
    pub(crate) peers: &'a [(&'a str, Cluster)],
}

impl Bench<'_> {
    /// An instance from nothing, and the cluster it is.
    fn instance(&self) -> Result<(Instance, Cluster)> {
        let arguments = self.arguments;
        let (instance, _) = Instance::up(&arguments.minke, &arguments.kubectl, &self.directory.join("instance"))?;
        let cluster = instance.cluster(&arguments.images)?;
        Ok((instance, cluster))
    }
}

type Measured<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
/// Fills rows that one measurement answers.
type Measure = for<'a> fn(&'a Bench<'a>, &'a mut [Row]) -> Measured<'a>;

pub(crate) const ALL: &[(&[&str], Measure)] = &[
    (&["up, from nothing to node Ready"], |b, r| Box::pin(start::up(b, &mut r[0]))),
    (&["Pod start, 2 containers, image present", "Pod delete to gone, processes that stop at once"], |b, r| {
        Box::pin(pods::lives(b, r))
    }),
    (&["Pods per second, 60 at once"], |b, r| Box::pin(pods::burst(b, &mut r[0], 60))),
    (&["Pods per second, 110 at once"], |b, r| Box::pin(pods::burst(b, &mut r[0], 110))),
    (&["Pod of 20 containers, start of each"], |b, r| Box::pin(pods::many_containers(b, &mut r[0]))),
    (&["exit of a container until a watcher has it, 110 Pods"], |b, r| Box::pin(life::exits(b, &mut r[0]))),
    (&["CPU of 330 http and tcp probes per second, 110 Pods"], |b, r| Box::pin(life::probes(b, &mut r[0]))),
    (&["CPU of an exec probe, 110 Pods"], |b, r| Box::pin(life::exec_probes(b, &mut r[0]))),
    (&["change of a ConfigMap until its file has it"], |b, r| Box::pin(life::config_map(b, &mut r[0]))),
    (&["what 1,000 Pods leave behind"], |b, r| Box::pin(life::left_behind(b, &mut r[0]))),
    (&["idle memory after 200 kubectl commands and 100 Pods", "idle CPU, of one core"], |b, r| {
        Box::pin(idle::rested(b, r))
    }),
    (&["memory per Pod beyond its own processes"], |b, r| Box::pin(idle::per_pod(b, &mut r[0]))),
    (&["durable creates over the API, 64 clients"], |b, r| Box::pin(api::creates(b, &mut r[0]))),
    (&["durable puts of the store alone, 64 writers"], |b, r| Box::pin(api::store(b, &mut r[0]))),
    (&["create, one client"], |b, r| Box::pin(api::create(b, &mut r[0]))),
    (&["list of 5,000 objects of 1 KiB"], |b, r| Box::pin(api::list(b, &mut r[0]))),
    (&["write until 100 watchers have it"], |b, r| Box::pin(api::watch(b, &mut r[0]))),
    (&["binary, stripped"], |b, r| Box::pin(start::binary(b, &mut r[0]))),
    (&["start after a crash with 100 Pods running"], |b, r| Box::pin(start::crash(b, &mut r[0]))),
];
