//! Commands and their flags.

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Kubernetes in one binary, built around the Pod.
#[derive(Debug, Parser)]
#[command(name = "minke", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run manifests in a throw-away cluster: progress, logs, their exit code, nothing left behind
    Run(Run),
    /// Start minke in the background; returns when its node is Ready
    Up(Settings),
    /// Stop minke; its Pods end with it
    Down(Down),
    /// What runs, where, and how it is
    Status(Status),
    /// Why a Pod is not what it should be: the cause, the evidence, the fix
    Why(Why),
    /// Images of this machine's minke
    #[command(subcommand)]
    Image(Image),
    /// Run minke in the foreground
    Server(Settings),
    /// Run a node, in the foreground, of a cluster whose server runs elsewhere
    Agent(Agent),
    /// Make a token with which an agent joins this server
    Token(Token),
    /// The kubectl on PATH, with minke's kubeconfig
    #[command(disable_help_flag = true)]
    Kubectl(Passed),
    /// The crictl on PATH, with minke's socket
    #[command(disable_help_flag = true)]
    Crictl(Passed),
    /// Print completions for a shell
    Completion { shell: clap_complete::Shell },
}

/// Which instance.
#[derive(Debug, Clone, Args)]
pub struct Instance {
    /// Where minke keeps everything of this instance
    #[arg(long, env = "MINKE_DATA_DIR", default_value = "/var/lib/minke", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// How a server runs; remembered in the data directory.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub instance: Instance,
    /// Port of the API server; the default instance takes 6443, others a free one
    #[arg(long, env = "MINKE_PORT")]
    pub port: Option<u16>,
    /// Write the administrator's kubeconfig here too
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubelet's root, with `pods/UID`; /var/lib/kubelet for the default instance, the data directory for others
    #[arg(long, env = "MINKE_KUBELET_ROOT", value_name = "DIR")]
    pub kubelet_root: Option<PathBuf>,
    /// Where `pods/` and `containers/` hold the logs; /var/log for the default instance, the data directory for others
    #[arg(long, env = "MINKE_LOG_DIR", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Name of the node; the host's name unless given
    #[arg(long, env = "MINKE_NODE_NAME")]
    pub node_name: Option<String>,
    /// Control plane only; needs no root
    #[arg(long)]
    pub no_node: bool,
    /// Address families that the node and Pods show: `ipv4` (the default) or `dual`; Pods can speak both either way
    #[arg(long, env = "MINKE_IP_FAMILY", value_parser = ["ipv4", "dual"])]
    pub ip_family: Option<String>,
    #[command(flatten)]
    pub kubelet: Kubelet,
}

/// How the node's kubelet works, in upstream's flags; remembered in the data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default, rename_all = "camelCase")]
pub struct Kubelet {
    /// Run the static Pods that this URL names, beside those in DIR/manifests; asked every 20 s
    #[arg(long, env = "MINKE_MANIFEST_URL", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_url: Option<String>,
    /// Header to ask the manifest URL with; may be given several times
    #[arg(long, value_name = "NAME:VALUE", requires = "manifest_url")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifest_url_header: Vec<String>,
    /// A container's log is rotated when it is longer, e.g. `10Mi` (the default)
    #[arg(long, value_name = "QUANTITY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_max_size: Option<String>,
    /// So many files of a container's log are kept (5 unless given, at least 2)
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_max_files: Option<String>,
    /// Unused images go when their file system is used to this percentage (unless given 85, and less than 2 GiB free)
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_gc_high_threshold: Option<String>,
    /// Unused images go until their file system is down to this percentage (80 unless given)
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_gc_low_threshold: Option<String>,
    /// Unused images younger than this stay, e.g. `2m` (the default)
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_image_ttl_duration: Option<String>,
    /// Evict Pods at once when less is left (unless given `memory.available<100Mi,nodefs.available<10%,…`, of disks at
    /// most 1 GiB)
    #[arg(long, value_name = "SIGNAL<AMOUNT,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_hard: Option<String>,
    /// Evict Pods when less is left for longer than the grace period
    #[arg(long, value_name = "SIGNAL<AMOUNT,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_soft: Option<String>,
    #[arg(long, value_name = "SIGNAL=DURATION,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_soft_grace_period: Option<String>,
    /// So much more must be there again before the pressure is over
    #[arg(long, value_name = "SIGNAL=AMOUNT,…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_minimum_reclaim: Option<String>,
    /// How long a condition of pressure stays after the pressure, e.g. `5m` (the default)
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_pressure_transition_period: Option<String>,
    /// Seconds that Pods have at most when a soft threshold evicts them (0 unless given)
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_max_pod_grace_period: Option<String>,
}

impl Kubelet {
    /// Each flag with what was given for it.
    pub fn flags(&self) -> Vec<(&'static str, Vec<&str>)> {
        let single = [
            ("--manifest-url", &self.manifest_url),
            ("--container-log-max-size", &self.container_log_max_size),
            ("--container-log-max-files", &self.container_log_max_files),
            ("--image-gc-high-threshold", &self.image_gc_high_threshold),
            ("--image-gc-low-threshold", &self.image_gc_low_threshold),
            ("--minimum-image-ttl-duration", &self.minimum_image_ttl_duration),
            ("--eviction-hard", &self.eviction_hard),
            ("--eviction-soft", &self.eviction_soft),
            ("--eviction-soft-grace-period", &self.eviction_soft_grace_period),
            ("--eviction-minimum-reclaim", &self.eviction_minimum_reclaim),
            ("--eviction-pressure-transition-period", &self.eviction_pressure_transition_period),
            ("--eviction-max-pod-grace-period", &self.eviction_max_pod_grace_period),
        ];
        let single = single.map(|(flag, value)| (flag, value.iter().map(String::as_str).collect()));
        let headers = self.manifest_url_header.iter().map(String::as_str).collect();
        single.into_iter().chain([("--manifest-url-header", headers)]).collect()
    }
}

#[derive(Debug, Args)]
pub struct Agent {
    #[command(flatten)]
    pub instance: Instance,
    /// Where the API server answers
    #[arg(long, env = "MINKE_SERVER", value_name = "https://HOST:PORT")]
    pub server: String,
    /// What `minke token` printed; needed once
    #[arg(long, env = "MINKE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Name of the node; the host's name unless given
    #[arg(long, env = "MINKE_NODE_NAME")]
    pub node_name: Option<String>,
    #[command(flatten)]
    pub kubelet: Kubelet,
}

#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    pub instance: Instance,
    /// How long nodes can join with it
    #[arg(long, value_parser = duration, default_value = "24h")]
    pub ttl: Duration,
}

#[derive(Debug, Args)]
pub struct Down {
    #[command(flatten)]
    pub instance: Instance,
    /// Also remove everything it ever made: processes, mounts, cgroups, links, files
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub instance: Instance,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    pub output: Option<String>,
}

#[derive(Debug, Args)]
pub struct Why {
    /// `pod/NAME`
    #[arg(value_name = "KIND/NAME")]
    pub object: String,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Of any cluster; `KUBECONFIG`, then this instance's, unless given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub instance: Instance,
    /// Exit with 3 when something is wrong
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    /// A manifest file, a directory of them, a URL, or `-` for standard input
    #[arg(short, long, required = true, value_name = "FILE|DIR|URL|-")]
    pub filename: Vec<String>,
    /// Import this image archive first (OCI or docker)
    #[arg(long, value_name = "FILE")]
    pub image_archive: Vec<PathBuf>,
    /// Give up after this time (exit code 124), e.g. `90s`, `5m`
    #[arg(long, value_parser = duration)]
    pub timeout: Option<Duration>,
    /// What ends it: all Pods `ready`, all `done` that can be, or a condition of all Pods (`Initialized`,
    /// `Ready=false`); with a command, when that begins (`ready` unless given)
    #[arg(long, value_name = "ready|done|CONDITION")]
    pub until: Option<Until>,
    /// Run this with KUBECONFIG set; its exit code counts
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A state that all applied Pods are to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// Ready, or ended well.
    Ready,
    /// Ended, if it can.
    Done,
    Condition {
        kind: String,
        status: String,
    },
}

impl FromStr for Until {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "ready" => Self::Ready,
            "done" => Self::Done,
            condition => {
                let (kind, status) = condition.split_once('=').unwrap_or((condition, "true"));
                Self::Condition { kind: kind.to_owned(), status: status.to_owned() }
            }
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Import OCI or docker archives; `-` reads one from standard input
    Import {
        #[command(flatten)]
        instance: Instance,
        #[arg(required = true, value_name = "FILE|-")]
        archives: Vec<PathBuf>,
    },
    /// Pull an image from its registry
    Pull {
        #[command(flatten)]
        instance: Instance,
        image: String,
    },
    /// List images
    Ls {
        #[command(flatten)]
        instance: Instance,
    },
    /// Remove images
    Rm {
        #[command(flatten)]
        instance: Instance,
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// `90s`, `5m`, `1h30m`
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("not a duration: {error}"))?;
    Duration::try_from(span).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("soon").is_err());
    }
}
