//! A program that cannot be started.

use super::{last_end, statuses};
use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, _: &[Event]) -> Option<Cause> {
    statuses(pod).find_map(|status| {
        let end = last_end(status).filter(|end| end.reason.as_deref() == Some("StartError"))?;
        let message = end.message.as_deref().unwrap_or_default();
        let fix = if message.contains("not found") || message.contains("no such file") {
            "correct `command` (it replaces the image's ENTRYPOINT), or use an image that holds the program"
        } else if message.contains("permission denied") {
            "make the file executable in the image, or start it with its interpreter"
        } else {
            "correct `command` and `workingDir`"
        };
        let what = format!("container `{}` cannot start its program: {message}", status.name);
        let evidence = vec![format!("{}: StartError, exit code {}", status.name, end.exit_code)];
        Some(Cause { what, evidence, fix: fix.to_owned() })
    })
}
