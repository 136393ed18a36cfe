//! The least that a Pod is made of.

use super::{Log, hold, ms};
use crate::report::Figures;
use anyhow::{Context, Result, anyhow, ensure};
use netlink::PodLink;
use shim::cgroup::Hierarchies;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A Pod of `containers`: a process with namespaces of its own, a veth into them, control groups, and per container an
/// overlay and a process in its namespaces. Of its `commits` durable writes one comes before all, since nothing may be
/// made that is not written down, and one behind; the others go on beside.
pub(crate) fn pod(directory: &Path, containers: usize, commits: usize, n: usize) -> Result<Figures> {
    let rootfs = directory.join("rootfs");
    for name in ["bin", "proc"] {
        std::fs::create_dir_all(rootfs.join(name))?;
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
        .context("/bin/busybox (Debian package busybox-static)")?;
    let mut log = Log::create(directory)?;
    let times = (0..n).map(|_| {
        let scratch = tempfile::tempdir_in(directory)?;
        let began = Instant::now();
        log.commit()?;
        let pod = std::thread::scope(|scope| {
            let beside = scope.spawn(|| (2..commits).try_for_each(|_| log.commit()));
            let pod = Pod::start(scratch.path(), containers);
            beside.join().map_err(|_| anyhow!("the thread of the log panicked"))??;
            pod
        })?;
        log.commit()?;
        let took = ms(began.elapsed());
        pod.remove()?;
        Ok(took)
    });
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

struct Pod {
    /// Ends with its input, which is held here.
    holder: Child,
    hierarchies: Hierarchies,
    group: String,
    containers: usize,
}

impl Pod {
    fn start(scratch: &Path, containers: usize) -> Result<Self> {
        let group = format!("minke-bench-{}", std::process::id());
        let mut command = Command::new(std::env::current_exe()?);
        command.env(hold::VARIABLE, format!("{containers} {group} {}", scratch.display()));
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut pod = Self { holder, hierarchies: Hierarchies::observe()?, group, containers };
        match pod.fill() {
            Ok(()) => Ok(pod),
            Err(error) => Err(pod.remove().err().unwrap_or(error)),
        }
    }

    fn fill(&mut self) -> Result<()> {
        for number in 0..self.containers {
            self.hierarchies.create(&format!("{}/{number}", self.group))?;
        }
        let process = self.holder.id();
        let output = self.holder.stdout.as_mut().context("no pipe")?;
        let mut byte = [0];
        output.read_exact(&mut byte).context("the floor's process has no namespaces")?;
        let netns = std::fs::File::open(format!("/proc/{process}/ns/net"))?;
        let link = PodLink {
            name: "minkebench0".to_owned(),
            alias: "minke-bench".to_owned(),
            // RFC 2544: nobody's but a benchmark's.
            addresses: vec!["198.18.0.2".parse()?],
            node_addresses: Vec::new(),
            mtu: 0,
        };
        netlink::attach(&link, netns.as_fd())?;
        self.holder.stdin.as_mut().context("no pipe")?.write_all(b"g")?;
        output.read_exact(&mut byte).context("the floor's process did not start its containers")
    }

    fn remove(mut self) -> Result<()> {
        drop(self.holder.stdin.take());
        let status = self.holder.wait()?;
        self.hierarchies.kill(&self.group)?;
        for number in 0..self.containers {
            self.hierarchies.remove(&format!("{}/{number}", self.group))?;
        }
        self.hierarchies.remove(&self.group)?;
        ensure!(status.success(), "the floor's process: {status}");
        Ok(())
    }
}
