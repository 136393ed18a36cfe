//! The process: its command, environment, user and rights.

use super::super::sandbox::Sandbox;
use super::users::Users;
use super::{c_string, labels, seccomp};
use crate::types::{ContainerConfig, NamespaceMode, RuntimeError, SecurityContext};
use images::ImageConfig;
use shim::capabilities;
use shim::plan::{Capabilities, ProcessPlan};
use shim::wire::Bytes;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn plan(
    sandbox: &Sandbox,
    config: &ContainerConfig,
    image: &ImageConfig,
    users: &Users,
) -> Result<ProcessPlan, RuntimeError> {
    let user = users.resolve(&config.security, &image.user).map_err(RuntimeError::Failed)?;
    let workdir = [config.working_dir.as_str(), image.working_dir.as_str(), "/"];
    let cwd = workdir.into_iter().find(|dir| !dir.is_empty()).unwrap_or("/");
    let resources = &config.resources;
    Ok(ProcessPlan {
        argv: arguments(config, image)?.iter().map(c_string).collect(),
        env: environment(sandbox, config, image, &user.home)
            .iter()
            .map(|(name, value)| c_string(format!("{name}={value}")))
            .collect(),
        cwd: c_string(if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") }),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        umask: None,
        capabilities: capabilities(&config.security)?,
        no_new_privs: config.security.no_new_privs,
        seccomp: Bytes(seccomp::program(&config.security)?),
        rlimits: Vec::new(),
        oom_score_adj: Some(resources.oom_score_adj),
        tty: config.tty,
        columns: 0,
        rows: 0,
        apparmor: labels::apparmor(&config.security)?,
    })
}

/// CRI's rule: `command` replaces the image's entry point and drops its command, `args` replaces only the command.
pub(super) fn arguments(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, RuntimeError> {
    let (mut command, mut args) = (&config.command, &config.args);
    if command.is_empty() {
        if args.is_empty() {
            args = &image.cmd;
        }
        command = &image.entrypoint;
    }
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() {
        return Err(RuntimeError::Failed("no command specified".into()));
    }
    Ok(all)
}

/// The image's variables, then the container's, which replace those of the same name where they stand; and, as runc
/// does, the user's home unless one is set.
fn environment(sandbox: &Sandbox, config: &ContainerConfig, image: &ImageConfig, home: &str) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = vec![("PATH".into(), DEFAULT_PATH.into())];
    if config.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    let hostname = if sandbox.config.network == NamespaceMode::Node || sandbox.config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        sandbox.config.hostname.clone()
    };
    env.push(("HOSTNAME".into(), hostname));
    for (name, value) in image.env.iter().chain(&config.envs) {
        match env.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => old.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    if env.iter().all(|(name, value)| name != "HOME" || value.is_empty()) {
        env.retain(|(name, _)| name != "HOME");
        env.push(("HOME".into(), home.to_owned()));
    }
    env
}

/// containerd's default set, with `ALL` first among what is added and dropped.
pub(super) fn capabilities(security: &SecurityContext) -> Result<Capabilities, RuntimeError> {
    let available = capabilities::available();
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let bits = |names: &[String]| -> Result<u64, RuntimeError> {
        names.iter().filter(|name| !name.eq_ignore_ascii_case("all")).try_fold(0, |bits, name| {
            let bit = capabilities::bit(name);
            Ok(bits | bit.ok_or_else(|| RuntimeError::Failed(format!("unknown capability {name:?}")))?)
        })
    };
    let (add, drop) = (bits(&security.add_capabilities)?, bits(&security.drop_capabilities)?);
    let set = if security.privileged {
        available
    } else {
        let default = capabilities::DEFAULT.iter().filter_map(|name| capabilities::bit(name)).fold(0, |a, b| a | b);
        let base = match (all(&security.add_capabilities), all(&security.drop_capabilities)) {
            (_, true) => 0,
            (true, false) => available,
            (false, false) => default,
        };
        ((base | add) & !drop) & available
    };
    Ok(Capabilities { effective: set, permitted: set, inheritable: 0, bounding: set, ambient: 0 })
}

/// A signal's number from `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(super) fn signal(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // As the container's programs count them: the C library keeps two for itself.
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(34, rest);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(64, rest);
    }
    let names = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("IOT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("STKFLT", 16),
        ("CHLD", libc::SIGCHLD),
        ("CLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
        ("VTALRM", libc::SIGVTALRM),
        ("PROF", libc::SIGPROF),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("POLL", libc::SIGIO),
        ("PWR", libc::SIGPWR),
        ("SYS", libc::SIGSYS),
    ];
    names.into_iter().find(|(n, _)| *n == name).map(|(_, number)| number)
}

fn real_time(base: i32, rest: &str) -> Option<i32> {
    let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
    let number = base + offset;
    (34..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn commands_follow_cri() {
        // entrypoint, cmd, command, args, result
        type Words = &'static [&'static str];
        let cases: [(Words, Words, Words, Words, Words); 6] = [
            (&["e"], &["c"], &[], &[], &["e", "c"]),
            (&["e"], &["c"], &["x"], &[], &["x"]),
            (&["e"], &["c"], &[], &["y"], &["e", "y"]),
            (&["e"], &["c"], &["x"], &["y"], &["x", "y"]),
            (&[], &["c"], &[], &[], &["c"]),
            (&[], &["c"], &[], &["y"], &["y"]),
        ];
        for (entrypoint, cmd, command, args, expected) in cases {
            let image = ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..ImageConfig::default() };
            let mut config = super::super::tests::config();
            config.command = strings(command);
            config.args = strings(args);
            assert_eq!(arguments(&config, &image).unwrap(), strings(expected), "{command:?} {args:?}");
        }
        let nothing = arguments(&super::super::tests::config(), &ImageConfig::default());
        assert_eq!(nothing.unwrap_err().to_string(), "no command specified");
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let bit = |name| capabilities::bit(name).unwrap();
        let default = capabilities::DEFAULT.iter().map(|n| bit(n)).fold(0, |a, b| a | b);
        let set = |add: &[&str], drop: &[&str]| {
            let security = SecurityContext {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                ..SecurityContext::default()
            };
            capabilities(&security).map(|c| c.bounding)
        };
        assert_eq!(set(&[], &[]).unwrap(), default);
        assert_eq!(set(&["NET_ADMIN"], &["CAP_CHOWN"]).unwrap(), (default | bit("NET_ADMIN")) & !bit("CHOWN"));
        assert_eq!(set(&["NET_BIND_SERVICE"], &["ALL"]).unwrap(), bit("NET_BIND_SERVICE"));
        assert_eq!(set(&["all"], &["SYS_ADMIN"]).unwrap(), capabilities::available() & !bit("SYS_ADMIN"));
        assert!(set(&["NOPE"], &[]).is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGQUIT", Some(3)),
            ("", None),
            ("SIGNOPE", None),
            ("0", None),
            ("65", None),
            ("RTMIN+99", None),
        ];
        for (name, number) in cases {
            assert_eq!(signal(name), number, "{name}");
        }
    }
}
