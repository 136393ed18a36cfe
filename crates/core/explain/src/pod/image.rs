//! An image that cannot be had.

use super::{statuses, waiting};
use crate::Cause;
use k8s_openapi::api::core::v1::{Event, Pod};

pub(super) fn rule(pod: &Pod, _: &[Event]) -> Option<Cause> {
    statuses(pod).find_map(|status| {
        let (reason, message) = waiting(status)?;
        let (name, image) = (&status.name, &status.image);
        let (what, fix) = match reason {
            "ErrImagePull" | "ImagePullBackOff" => pull(name, image, message),
            "ErrImageNeverPull" => (
                format!("container `{name}` may not pull `{image}` (imagePullPolicy Never), and it is not on the node"),
                format!(
                    "import it (minke image import ARCHIVE), or set imagePullPolicy to IfNotPresent; image: {image}"
                ),
            ),
            "InvalidImageName" => (
                format!("container `{name}` names its image `{image}`, which no registry can have"),
                "write it as [HOST/]PATH[:TAG][@DIGEST], the path in lower case".to_owned(),
            ),
            _ => return None,
        };
        Some(Cause { what, evidence: vec![format!("{name}: {reason}: {message}")], fix })
    })
}

fn pull(name: &str, image: &str, message: &str) -> (String, String) {
    let says = message.to_lowercase();
    if says.contains("unauthorized") || says.contains("denied") || says.contains("authorization") {
        let what = format!("container `{name}`: the registry does not let this Pod pull `{image}`");
        return (
            what,
            "check the name; if the image is private, add an imagePullSecret to the Pod or its ServiceAccount".into(),
        );
    }
    if says.contains("not found") || says.contains("manifest unknown") {
        let what = format!("container `{name}`: the registry has no image `{image}`");
        return (what, "correct the image's name or tag".into());
    }
    let what = format!("container `{name}`: `{image}` cannot be pulled");
    (what, "make the registry reachable from this machine, or import the image: minke image import ARCHIVE".into())
}
