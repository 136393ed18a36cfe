//! What cannot be beaten: the bare system calls of a thing, without anything that decides or remembers.

pub(crate) mod hold;

use crate::report::Figures;
use anyhow::{Context, Result, ensure};
use netlink::PodLink;
use shim::cgroup::Hierarchies;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// A file that is written and synced like a log, in place.
pub(crate) struct Log {
    file: std::fs::File,
    at: u64,
}

const RECORD_BYTES: u64 = 4096;
const LOG_BYTES: u64 = 8 << 20;

impl Log {
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let file = std::fs::File::create(directory.join("floor.log"))?;
        file.write_all_at(&vec![0; LOG_BYTES as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// One record, durable.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.file.write_all_at(&[b'x'; RECORD_BYTES as usize], self.at)?;
        self.at = (self.at + RECORD_BYTES) % LOG_BYTES;
        Ok(self.file.sync_data()?)
    }
}

/// One durable write.
pub(crate) fn fdatasync(directory: &Path, n: usize) -> Result<Figures> {
    let mut log = Log::create(directory)?;
    let times = (0..n).map(|_| {
        let began = Instant::now();
        log.commit()?;
        Ok(ms(began.elapsed()))
    });
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

/// A program executed and a durable write.
pub(crate) fn exec_and_fsync(directory: &Path, n: usize) -> Result<Figures> {
    let mut log = Log::create(directory)?;
    let times = (0..n).map(|_| {
        let began = Instant::now();
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
        log.commit()?;
        Ok(ms(began.elapsed()))
    });
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

/// So many bytes through a TCP connection on loopback, until the reader has them all.
pub(crate) fn copy_to_socket(bytes: usize, n: usize) -> Result<Figures> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut reader = TcpStream::connect(listener.local_addr()?)?;
    let (mut writer, _) = listener.accept()?;
    let content = vec![b'x'; bytes];
    let times = (0..n).map(|_| {
        let mut got = vec![0; bytes];
        let began = Instant::now();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| reader.read_exact(&mut got));
            writer.write_all(&content)?;
            read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
            anyhow::Ok(())
        })?;
        Ok(ms(began.elapsed()))
    });
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

/// A Pod of `containers`: a process with namespaces of its own, a veth into them, control groups, and per container an
/// overlay and a process in its namespaces; with `commits` durable writes.
pub(crate) fn pod(directory: &Path, containers: usize, commits: usize, n: usize) -> Result<Figures> {
    let rootfs = directory.join("rootfs");
    for name in ["bin", "proc"] {
        std::fs::create_dir_all(rootfs.join(name))?;
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
        .context("/bin/busybox (Debian package busybox-static)")?;
    let mut log = Log::create(directory)?;
    let times = (0..n).map(|_| one_pod(directory, containers, commits, &mut log));
    Ok(Figures::of(times.collect::<Result<_>>()?))
}

fn one_pod(directory: &Path, containers: usize, commits: usize, log: &mut Log) -> Result<f64> {
    let hierarchies = Hierarchies::observe()?;
    let group = format!("minke-bench-{}", std::process::id());
    let scratch = tempfile::tempdir_in(directory)?;
    let began = Instant::now();
    for _ in 0..commits {
        log.commit()?;
    }
    for number in 0..containers {
        hierarchies.create(&format!("{group}/{number}"))?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.env(hold::VARIABLE, format!("{containers} {group} {}", scratch.path().display()));
    let mut held = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = held.stdin.take().context("no pipe")?;
    let mut output = held.stdout.take().context("no pipe")?;
    let result = (|| {
        let mut byte = [0];
        output.read_exact(&mut byte).context("the floor's process has no namespaces")?;
        let netns = std::fs::File::open(format!("/proc/{}/ns/net", held.id()))?;
        let link = PodLink {
            name: "minkebench0".to_owned(),
            alias: "minke-bench".to_owned(),
            // RFC 2544: nobody's but a benchmark's.
            addresses: vec!["198.18.0.2".parse()?],
            node_addresses: Vec::new(),
            mtu: 0,
        };
        netlink::attach(&link, netns.as_fd())?;
        input.write_all(b"g")?;
        output.read_exact(&mut byte).context("the floor's process did not start its containers")?;
        Ok(ms(began.elapsed()))
    })();
    drop(input);
    let status = held.wait()?;
    hierarchies.kill(&group)?;
    for number in 0..containers {
        hierarchies.remove(&format!("{group}/{number}"))?;
    }
    hierarchies.remove(&group)?;
    ensure!(status.success() || result.is_err(), "the floor's process: {status}");
    result
}
