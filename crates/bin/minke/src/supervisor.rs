//! The small process that `up` leaves beside a server. It starts the server again when that fails, each time a little
//! later, writes why to `DIR/crash.txt`, and ends with the server's orderly end.

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{
    Flock, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, kill_process, pidfd_open, pidfd_send_signal,
};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::Instant;

/// Tells a server that `up` started it: it becomes the supervisor of another that does the work.
pub(crate) const DETACHED: &str = "MINKE_DETACHED";

/// Waits before a failed server is started again grow from the first to the second, and begin anew after a life of the
/// third.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
const HEALTHY: Duration = Duration::from_secs(600);
const LOG_LINES: usize = 50;

/// Supervises until the server ends in order, a signal, or a first start that fails.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(directory: &Path) -> Result<()> {
    let directory = std::path::absolute(directory)?;
    // Fails only for the leader of a group, which has no terminal to lose.
    rustix::process::setsid().ok();
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join("supervisor.lock"))?;
    if fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another minke runs on {}", directory.display());
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (mut wait, mut was_ready, mut failures) = (BACK_OFF.0, false, 0);
    loop {
        let began = Instant::now();
        let mut server = start()?;
        let said = if was_ready { None } else { server.stdout.take() };
        let status = tokio::select! {
            status = relay(said, &mut was_ready, &mut server) => status?,
            () = either(&mut terminate, &mut interrupt) => return stop(server).await,
        };
        if status.success() {
            return Ok(());
        }
        if !was_ready {
            bail!("the server did not start");
        }
        failures += 1;
        report(&directory, status, failures).context("cannot write the crash report")?;
        if began.elapsed() > HEALTHY {
            wait = BACK_OFF.0;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACK_OFF.1),
            () = either(&mut terminate, &mut interrupt) => return Ok(()),
        }
    }
}

/// The server's command line is ours.
fn start() -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("cannot find my own program")?);
    command.args(std::env::args_os().skip(1)).env_remove(DETACHED).stdout(Stdio::piped());
    command.spawn().context("cannot start the server")
}

/// Passes the first server's `ready` on to `up`, and waits for the server's end.
async fn relay(
    said: Option<tokio::process::ChildStdout>,
    was_ready: &mut bool,
    server: &mut Child,
) -> std::io::Result<ExitStatus> {
    if let Some(said) = said {
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).await?;
        if line.trim() == "ready" {
            *was_ready = true;
            crate::life::say_ready();
        }
    }
    server.wait().await
}

async fn either(terminate: &mut SignalStream, interrupt: &mut SignalStream) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The server ends, its Pods do not.
async fn stop(mut server: Child) -> Result<()> {
    if let Some(pid) = server.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        kill_process(pid, Signal::TERM).ok();
    }
    server.wait().await?;
    Ok(())
}

/// The last crash; the log holds the earlier ones.
fn report(directory: &Path, status: ExitStatus, failures: u32) -> std::io::Result<()> {
    let log = std::fs::read(directory.join("minke.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    let text = format!(
        "minke {} failed at {}: {status}\nfailures since it was started: {failures}\n\nthe end of its log:\n{}\n",
        env!("CARGO_PKG_VERSION"),
        Timestamp::now(),
        tail.join("\n")
    );
    std::fs::write(directory.join("crash.txt"), text)
}

/// The supervisor of an instance, if there is one.
pub(crate) fn find(directory: &Path) -> Result<Option<OwnedFd>> {
    let path = directory.join("supervisor.lock");
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
    let Some(pid) = held.and_then(|held| held.pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ends a supervisor and its server, and waits for that; Pods go on.
pub(crate) fn end(supervisor: &OwnedFd) -> Result<()> {
    match pidfd_send_signal(supervisor, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => wait(supervisor),
        Err(error) => Err(error).context("cannot end the running server"),
    }
}

/// Waits until it has ended.
pub(crate) fn wait(supervisor: &OwnedFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(supervisor, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return ended.map(drop).context("cannot wait for the running server"),
        }
    }
}
