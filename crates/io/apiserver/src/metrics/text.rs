//! Prometheus' text form.

use super::{Histogram, Labels, Metrics};
use crate::server::ApiServer;
use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Kernel ticks per second, as every Linux tells user space.
const TICKS_PER_S: f64 = 100.0;

/// An exposition on its way.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(self.0, "{name}{open}{labels}{close} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.below) {
            below += count;
            // As Go writes a number: 100000, but 1e+06.
            let bound = if *bound < 1e6 { bound.to_string() } else { format!("{bound:e}").replace('e', "e+0") };
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), histogram.count);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, histogram.count);
    }
}

pub(super) fn write(metrics: &Metrics, server: &ApiServer) -> String {
    let mut text = Text(String::new());
    requests(&mut text, metrics);
    admission(&mut text, metrics);
    let name = "apiserver_resource_objects";
    text.family(name, "gauge", "[STABLE] Number of stored objects at the time of last check split by kind.");
    for (resource, count) in server.caches.counts() {
        let labels = format!("group=\"{}\",resource=\"{}\"", resource.group, resource.plural);
        text.sample(name, &labels, count);
    }
    build_info(&mut text);
    process(&mut text);
    text.0
}

fn labels(of: &Labels, dry_run: bool) -> String {
    let Labels { verb, group, version, resource, subresource, scope, .. } = of;
    let dry = match (dry_run, of.dry_run) {
        (false, _) => "",
        (true, false) => "dry_run=\"\",",
        (true, true) => "dry_run=\"All\",",
    };
    format!(
        "component=\"apiserver\",{dry}group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
    )
}

fn requests(text: &mut Text, metrics: &Metrics) {
    let all = metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
    let name = "apiserver_request_total";
    text.family(name, "counter", "[STABLE] Requests for resources, by what they asked and the code of the answer.");
    for (of, series) in all.iter() {
        for (code, count) in &series.by_code {
            text.sample(name, &format!("code=\"{code}\",{}", labels(of, true)), count);
        }
    }
    let name = "apiserver_request_duration_seconds";
    text.family(name, "histogram", "[STABLE] How long the answers to requests for resources took, in seconds.");
    for (of, series) in all.iter() {
        text.histogram(name, &labels(of, true), &series.seconds);
    }
    let name = "apiserver_response_sizes";
    text.family(
        name,
        "histogram",
        "[STABLE] How long the answers to reads were, in bytes; streamed ones are left out.",
    );
    for (of, series) in all.iter().filter(|(_, series)| series.bytes.count > 0) {
        text.histogram(name, &labels(of, false), &series.bytes);
    }
    let name = "apiserver_longrunning_requests";
    text.family(name, "gauge", "[STABLE] Watches, log streams and tunnels that are open.");
    for (of, series) in all.iter().filter(|(of, _)| of.is_long_running()) {
        text.sample(name, &labels(of, false), series.long_running.load(Ordering::Relaxed));
    }
    drop(all);
    let name = "apiserver_current_inflight_requests";
    text.family(name, "gauge", "[STABLE] Requests that are being answered now, the long-running ones left out.");
    for (kind, gauge) in [("mutating", &metrics.writing), ("readOnly", &metrics.reading)] {
        text.sample(name, &format!("request_kind=\"{kind}\""), gauge.load(Ordering::Relaxed));
    }
    let name = "apiserver_watch_events_total";
    text.family(name, "counter", "[BETA] Events that clients' watches were sent.");
    for ([group, version, resource], count) in
        metrics.watch_events.lock().unwrap_or_else(PoisonError::into_inner).iter()
    {
        let labels = format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
        text.sample(name, &labels, count.load(Ordering::Relaxed));
    }
}

fn admission(text: &mut Text, metrics: &Metrics) {
    let name = "apiserver_admission_controller_admission_duration_seconds";
    text.family(name, "histogram", "[STABLE] How long each admission plug-in took, in seconds.");
    for ((plugin, phase, operation, refused), histogram) in
        metrics.admission.0.lock().unwrap_or_else(PoisonError::into_inner).iter()
    {
        let labels = format!("name=\"{plugin}\",operation=\"{operation}\",rejected=\"{refused}\",type=\"{phase}\"");
        text.histogram(name, &labels, histogram);
    }
}

fn build_info(text: &mut Text) {
    let name = "kubernetes_build_info";
    text.family(name, "gauge", "[BETA] The version that this server says it is; always 1.");
    let version = crate::fixed_paths::version();
    let labels = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let labels: Vec<String> = labels.iter().map(|(label, field)| format!("{label}={}", version[*field])).collect();
    text.sample(name, &labels.join(","), 1);
}

/// What the kernel says of this process; left out where it says nothing.
fn process(text: &mut Text) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name before may hold spaces and brackets; times stand in fields 14 and 15 of the whole.
    let ticks = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    if let Some(ticks) = ticks {
        let ticks: f64 = ticks.filter_map(|t| t.parse::<f64>().ok()).sum();
        let name = "process_cpu_seconds_total";
        text.family(name, "counter", "Total user and system CPU time spent in seconds.");
        text.sample(name, "", ticks / TICKS_PER_S);
    }
    let status = read("status");
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    for (name, field, help) in [
        ("process_resident_memory_bytes", "VmRSS:", "Resident memory size in bytes."),
        ("process_virtual_memory_bytes", "VmSize:", "Virtual memory size in bytes."),
    ] {
        if let Some(kib) = kib(field) {
            text.family(name, "gauge", help);
            text.sample(name, "", kib * 1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_bound_by_bound() {
        let mut histogram = Histogram::new(&[0.5, 10.0]);
        for value in [0.25, 0.5, 2.0, 11.0] {
            histogram.observe(value);
        }
        let mut text = Text(String::new());
        text.histogram("x", "a=\"b\"", &histogram);
        expect_test::expect![[r#"
            x_bucket{a="b",le="0.5"} 2
            x_bucket{a="b",le="10"} 3
            x_bucket{a="b",le="+Inf"} 4
            x_sum{a="b"} 13.75
            x_count{a="b"} 4
        "#]]
        .assert_eq(&text.0);
    }
}
