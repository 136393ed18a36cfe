//! exec and attach: from a container's names to the runtime's streams.

use super::{Body, Query, text};
use crate::Shared;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use runtime::streaming::command::{self, Call};
use runtime::types::ExecConfig;

pub(super) fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    call: Call,
    [namespace, pod, container]: [&str; 3],
    query: &Query,
) -> Response<Body> {
    let config = ExecConfig {
        command: query.all("command"),
        stdin: query.flag("input") || query.flag("stdin"),
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: query.flag("error") || query.flag("stderr"),
        tty: query.flag("tty"),
    };
    let id = shared.pods.find(namespace, pod).and_then(|entry| entry.containers.get(container).cloned());
    let Some(id) = id else {
        return text(StatusCode::NOT_FOUND, &format!("container not found (\"{container}\")"));
    };
    let (runtime, wanted) = (shared.runtime.clone(), config.clone());
    let open = async move {
        match call {
            Call::Exec => runtime.exec(&id, wanted).await,
            Call::Attach => runtime.attach(&id, wanted).await,
        }
    };
    command::answer(&shared.tasks, request, call, &config, open)
}
