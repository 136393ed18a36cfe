//! `pods/log` (upstream `registry/core/pod/strategy.go` `LogLocation`).

use super::connect::{container, pod};
use super::{kubelet, log_socket, tunnel};
use crate::body::Body;
use crate::call::{Answer, Call};
use crate::errors::{self, Result};
use crate::query::Query;
use crate::refusal::Refusal;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use schema::field::{self, ErrorList, Path};

/// What the kubelet understands; everything else in the query is not passed on.
const OPTIONS: [&str; 10] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "insecureSkipTLSVerifyBackend",
    "stream",
    "pretty",
];

/// More is not read of what a kubelet says when it refuses.
const MAX_WORDS_BYTES: usize = 10_000;

pub(super) async fn log(call: &Call<'_>) -> Result<Answer> {
    let found = validate(call.query)?;
    if !found.is_empty() {
        return Err(errors::invalid("", "PodLogOptions", &call.info.name, &found));
    }
    let pod = pod(call).await?;
    let container = container(&pod, &call.info.name, call.query.get("container"))?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // Not scheduled yet: nothing has been written.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(Answer::Response(response));
    }
    let endpoint = kubelet::Endpoint::of_node(call, node)?;
    let mut target = format!("/containerLogs/{}/{}/{container}", call.info.namespace, call.info.name);
    let mut separator = '?';
    for option in OPTIONS {
        if let Some(value) = call.query.find(option) {
            target.push(separator);
            target.push_str(option);
            target.push('=');
            target.push_str(&super::connect::escape(value));
            separator = '&';
        }
    }
    let answer = endpoint.send(call, &target, false).await?;
    if answer.status() != StatusCode::OK {
        return Err(refused(call, answer).await);
    }
    if log_socket::is_wanted(call.headers) {
        return log_socket::answer(call, answer);
    }
    let mut response = tunnel::answer(call, answer)?;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(Answer::Response(response))
}

/// The kubelet's plain words as a Status (upstream `GenericHttpResponseChecker`).
async fn refused(call: &Call<'_>, answer: Response<Incoming>) -> Refusal {
    let status = answer.status();
    let body = match Limited::new(answer.into_body(), MAX_WORDS_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Refusal::internal(error.to_string()),
    };
    let words = String::from_utf8_lossy(&body).into_owned();
    match status {
        StatusCode::BAD_REQUEST => Refusal::bad_request(words),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( pods {})", call.info.name);
            Refusal { message, ..Refusal::not_found("", "pods", &call.info.name) }
        }
        _ => Refusal::internal(words),
    }
}

/// Upstream `ValidatePodLogOptions`; numbers that are none are refused as the query is decoded.
fn validate(query: &Query) -> Result<ErrorList> {
    let mut found = ErrorList::new();
    let at_least = |name: &str, least: i64, what: &str, found: &mut ErrorList| -> Result<()> {
        if let Some(value) = query.int(name)?
            && value < least
        {
            found.push(field::invalid(&Path::new(name), value, what));
        }
        Ok(())
    };
    at_least("tailLines", 0, "must be greater than or equal to 0", &mut found)?;
    at_least("limitBytes", 1, "must be greater than 0", &mut found)?;
    let (seconds, time) = (query.int("sinceSeconds")?, query.find("sinceTime").filter(|t| !t.is_empty()));
    match (seconds, time) {
        (Some(_), Some(_)) => found
            .push(field::forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified")),
        (Some(seconds), None) if seconds < 1 => {
            found.push(field::invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0"));
        }
        (None, Some(time)) if time.parse::<jiff::Timestamp>().is_err() => {
            return Err(Refusal::bad_request(format!(
                "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
                errors::quoted(time)
            )));
        }
        _ => {}
    }
    if query.find("stream").is_some_and(|s| !s.is_empty()) {
        found.push(field::forbidden(&Path::new("stream"), "may not be specified"));
    }
    Ok(found)
}
