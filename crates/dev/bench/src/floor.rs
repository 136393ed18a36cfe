//! What cannot be beaten: the bare system calls of a thing, without anything that decides or remembers.

pub(crate) mod hold;
mod pod;

pub(crate) use pod::pod;

use crate::processes;
use crate::report::Figures;
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

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

/// The processor's time of a process that executes a small program, in ms.
pub(crate) fn fork_and_exec(n: usize) -> Result<Figures> {
    let used = || processes::cpu_seconds_with_children(std::process::id() as i32);
    let before = used()?;
    for _ in 0..n {
        ensure!(Command::new("/bin/busybox").arg("true").status()?.success(), "busybox true failed");
    }
    Ok(Figures::one((used()? - before) * 1e3 / n as f64))
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

/// A durable write, then `bytes` to each of so many readers over connections on loopback: from before the write until a
/// reader has them.
pub(crate) async fn fan_out(directory: &Path, readers: usize, bytes: usize, n: usize) -> Result<Figures> {
    let mut log = Log::create(directory)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut tasks = JoinSet::new();
    let mut writers = Vec::new();
    for _ in 0..readers {
        let mut reader = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
        let (writer, _) = listener.accept().await?;
        writer.set_nodelay(true)?;
        writers.push(writer);
        tasks.spawn(async move {
            let (mut got, mut seen) = (vec![0; bytes], Vec::new());
            while seen.len() < n {
                reader.read_exact(&mut got).await?;
                seen.push(Instant::now());
            }
            anyhow::Ok(seen)
        });
    }
    let content = vec![b'x'; bytes];
    let mut sent = Vec::new();
    for _ in 0..n {
        sent.push(Instant::now());
        log.commit()?;
        for writer in &mut writers {
            writer.write_all(&content).await?;
        }
    }
    let mut times = Vec::new();
    while let Some(seen) = tasks.join_next().await {
        times.extend(seen??.into_iter().zip(&sent).map(|(at, sent)| ms(at - *sent)));
    }
    Ok(Figures::of(times))
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
