//! What came of fetching a container's image.

use super::take::RETRY;
use super::{PodMachine, Turned};
use crate::backoff::go_seconds;
use crate::container::{ContainerState, Hindrance, Image};
use crate::pod::{Action, ContainerName, PodEvent, PullFailure};
use std::time::Duration;

impl PodMachine {
    pub(super) fn take_image(
        &mut self,
        name: &ContainerName,
        id: String,
        reference: String,
        present: bool,
        event: impl FnOnce(&str) -> String,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let path = self.containers[i].field_path();
        let container = &mut self.containers[i];
        let ContainerState::Pulling { image_name } = &container.state else { return };
        let image = Image { name: image_name.clone(), id, reference };
        if !present {
            container.image_backoff.reset();
        }
        let event = PodEvent { warning: false, reason: "Pulled".into(), message: event(&image.name), field_path: path };
        let wanted = self.pod.spec.as_ref().and_then(|spec| container.spec(spec)).map(|spec| spec.image);
        if wanted.is_some_and(|wanted| wanted != image.name) {
            container.state = ContainerState::Idle;
            return;
        }
        // A pull has taken time and is told of at once; an image that was there is told of when it is used.
        let event = if present {
            Some(event)
        } else {
            turned.act(Action::Event(event));
            None
        };
        container.state = ContainerState::Pulled { image, event };
    }

    /// `volume`: the image of a volume that the container mounts.
    pub(super) fn take_image_failure(
        &mut self,
        name: &ContainerName,
        volume: Option<String>,
        failure: PullFailure,
        turned: &mut Turned,
    ) {
        let Some(i) = self.find(name) else { return };
        let retry_at = turned.now.mono + self.lengthened(RETRY);
        let (now, path) = (turned.now.mono, self.containers[i].field_path());
        let container = &mut self.containers[i];
        let ContainerState::Pulling { image_name } = &container.state else { return };
        let image = volume.unwrap_or_else(|| image_name.clone());
        let (reason, message, hindrance) = match failure {
            PullFailure::Pull(error) => {
                turned.event(path.clone(), true, "Failed", format!("Failed to pull image \"{image}\": {error}"));
                container.image_backoff.tried(now, now);
                let wait = container.image_backoff.period(now).unwrap_or(RETRY);
                let (look_at, until) = (retry_at, now + wait);
                ("ErrImagePull", error.clone(), Hindrance::Image { image_name: image, error, look_at, until })
            }
            PullFailure::Never => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                turned.event(path.clone(), true, "ErrImageNeverPull", message.clone());
                ("ErrImageNeverPull", message, Hindrance::Start { retry_at })
            }
            PullFailure::InvalidName(error) => {
                let message = format!("Failed to apply default image tag \"{image}\": {error}");
                turned.event(path.clone(), true, "InspectFailed", message.clone());
                ("InvalidImageName", message, Hindrance::Start { retry_at })
            }
        };
        turned.event(path, true, "Failed", format!("Error: {reason}"));
        container.history.hinder(reason, &message);
        container.state = ContainerState::Hindered { hindrance };
    }
}

/// What an event tells of an image that is there now.
pub fn pulled(name: &str, present: bool, size_bytes: u64, took: Duration, waited: Duration) -> String {
    if present {
        return format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
    }
    let (took, waited) = (go_millis(took), go_millis(waited));
    format!(
        "Successfully pulled image \"{name}\" in {took} ({waited} including waiting). Image size: {size_bytes} bytes."
    )
}

/// As Go prints a duration that was cut to milliseconds: `0s`, `81ms`, `1.204s`, `1m2.5s`.
fn go_millis(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let fraction = format!("{:03}", ms % 1000);
    let fraction = fraction.trim_end_matches('0');
    let seconds = go_seconds(Duration::from_secs(duration.as_secs()));
    let whole = seconds.trim_end_matches('s');
    if fraction.is_empty() { seconds } else { format!("{whole}.{fraction}s") }
}
