//! The floor's stand-in for a shim: a process that owns a Pod's namespaces and starts its containers.

use anyhow::{Context, Result, anyhow};
use shim::cgroup::Hierarchies;
use shim::launch;
use shim::plan::{ContainerPlan, ProcessPlan, RootPlan};
use shim::sys;
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Tells this program to be one; its value is `CONTAINERS CGROUP DIRECTORY`, beside which lies `rootfs`.
pub(crate) const VARIABLE: &str = "MINKE_BENCH_HOLD";

pub(crate) fn request() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Says when its namespaces are there, starts the containers when told to, and ends with its input.
pub(crate) fn run(request: &str) -> Result<()> {
    let mut words = request.splitn(3, ' ');
    let mut word = || words.next().with_context(|| format!("{VARIABLE}={request:?}"));
    let (containers, group, directory) = (word()?.parse::<usize>()?, word()?, Path::new(word()?));
    sys::unshare((libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64).map_err(errno)?;
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    output.write_all(b"n")?;
    output.flush()?;
    input.read_exact(&mut [0])?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let stdio = [null.as_raw_fd(); 3];
    let hierarchies = Hierarchies::observe()?;
    let children = std::thread::scope(|scope| {
        let start = |number| {
            let plan = plan(directory, number, &hierarchies, &format!("{group}/{number}"))?;
            let launched = launch::create(&plan, stdio, None, None).map_err(|error| anyhow!("{}", error.text))?;
            launched.start(&plan.process).map_err(|error| anyhow!("{}", error.text))
        };
        let threads: Vec<_> = (0..containers).map(|number| scope.spawn(move || start(number))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a start panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    output.write_all(b"r")?;
    output.flush()?;
    input.read_to_end(&mut Vec::new())?;
    for child in children {
        sys::pidfd_send_signal(child.pidfd, 9).map_err(errno)?;
        sys::wait(child.pid, 0).map_err(errno)?;
    }
    Ok(())
}

fn errno(error: sys::Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.0)
}

fn plan(directory: &Path, number: usize, hierarchies: &Hierarchies, group: &str) -> Result<ContainerPlan> {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let own = directory.join(number.to_string());
    let (upper, work) = (own.join("upper"), own.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir(&work)?;
    let rootfs = directory.parent().context("no directory")?.join("rootfs");
    Ok(ContainerPlan {
        id: number.to_string(),
        process: ProcessPlan {
            argv: [c"/bin/busybox", c"sleep", c"3600"].map(CString::from).into(),
            cwd: c"/".into(),
            ..ProcessPlan::default()
        },
        namespaces: (libc::CLONE_NEWNS | libc::CLONE_NEWPID) as u64,
        root: RootPlan { lower: vec![path(&rootfs)?], upper: path(&upper)?, work: path(&work)?, ..RootPlan::default() },
        cgroup: hierarchies.plan(group),
        directory: path(&own)?,
        ..ContainerPlan::default()
    })
}
