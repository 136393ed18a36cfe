//! Links to containers' logs for collectors that read `/var/log/containers` (upstream `legacyLogSymlink`).

use crate::config::Config;
use crate::container::log_directory;
use k8s_openapi::api::core::v1::Pod;
use std::io::ErrorKind;
use std::path::Path;

/// Longest file name that upstream makes; longer ones are cut before the ending.
const NAME_BYTES: usize = 251;

/// Makes the link of a started container. Without it the container runs as well: a failure is only logged.
pub(crate) fn add(config: &Config, pod: &Pod, container: &str, id: &str, attempt: u32) {
    let Some(directory) = &config.container_logs else { return };
    let meta = &pod.metadata;
    let (name, namespace) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
    let link = directory.join(file_name(name, namespace, container, id));
    let log = log_directory(&config.pod_logs, pod).join(container).join(format!("{attempt}.log"));
    if let Err(error) = std::os::unix::fs::symlink(&log, &link)
        && error.kind() != ErrorKind::AlreadyExists
    {
        tracing::warn!(path = %link.display(), %error, "no link to the log");
    }
}

fn file_name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    let mut name = format!("{pod}_{namespace}_{container}-{id}");
    // Names are ASCII.
    name.truncate(NAME_BYTES);
    name + ".log"
}

/// Takes away the links into a Pod's log directory.
pub(crate) fn remove(config: &Config, logs: &Path) {
    let Some(directory) = &config.container_logs else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(logs))
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "link to a log not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_before_the_ending() {
        assert_eq!(file_name("p", "ns", "c", "0a"), "p_ns_c-0a.log");
        let long = file_name(&"p".repeat(253), "ns", "c", "0a");
        assert_eq!((long.len(), long.ends_with("ppp.log")), (NAME_BYTES + 4, true));
    }
}
