//! How an ended container is told of in the status.

use crate::pod::Exit;
use crate::status::time;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateTerminated;

/// The reason of a container whose end nobody saw.
pub const UNKNOWN: &str = "ContainerStatusUnknown";
/// The exit code of one that was never started (containerd's).
const START_ERROR_CODE: i32 = 128;

/// `Completed`, `Error`, `OOMKilled`, or `ContainerStatusUnknown` with 137. `scheme` names the runtime in the container's id.
pub fn exited(exit: &Exit, id: &str) -> ContainerStateTerminated {
    if exit.unknown {
        return unknown();
    }
    let reason = match (exit.oom_killed, exit.code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    ContainerStateTerminated {
        container_id: Some(crate::status::container_id(id)),
        exit_code: exit.code,
        finished_at: Some(time(exit.finished_at)),
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        reason: Some(reason.to_owned()),
        signal: Some(exit.signal).filter(|signal| *signal != 0),
        started_at: exit.started_at.map(time),
    }
}

/// A container that was created and could not be started.
pub fn not_started(message: &str, id: &str, now: Timestamp) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(crate::status::container_id(id)),
        exit_code: START_ERROR_CODE,
        finished_at: Some(time(now)),
        message: Some(message.to_owned()),
        reason: Some("StartError".to_owned()),
        signal: None,
        started_at: Some(time(Timestamp::UNIX_EPOCH)),
    }
}

/// One that ought to have run and of which there is no trace.
pub fn unknown() -> ContainerStateTerminated {
    untraced(UNKNOWN, "The container could not be located when the pod was terminated")
}

/// One that was seen running and then was gone at the runtime.
pub fn lost() -> ContainerStateTerminated {
    untraced(UNKNOWN, "The container could not be located when the pod was deleted.  The container used to be Running")
}

/// An init container of which there is no trace, while what comes after it has run.
pub fn surely_completed() -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some("Completed".to_owned()),
        message: Some(
            "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                .to_owned(),
        ),
        ..ContainerStateTerminated::default()
    }
}

/// One that was removed so that the whole Pod starts anew (KEP-5532).
pub fn restarting_all() -> ContainerStateTerminated {
    untraced(RESTARTING_ALL, RESTARTING_ALL_MESSAGE)
}

/// The reason of containers that wait for the whole Pod to start anew.
pub const RESTARTING_ALL: &str = "RestartingAllContainers";
/// The message that goes with [`RESTARTING_ALL`].
pub const RESTARTING_ALL_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

fn untraced(reason: &str, message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    }
}
