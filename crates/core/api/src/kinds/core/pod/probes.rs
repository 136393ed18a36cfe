//! Validation of probes and hooks (upstream `validateProbe`, `validateHandler`, `validateLifecycle`).

use crate::names::{self, NEGATIVE};
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use serde_json::Value;

/// Hooks and the three probes of one container; `grace` is the Pod's grace period in seconds.
pub(super) fn lifecycle_and_probes(container: &Value, grace: Option<i64>, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if let Some(lifecycle) = container.field("lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.field(hook) {
                let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                found.extend(self::handler(handler, &kinds, grace, &path.child(hook)));
            }
        }
        if let Some(signal) = lifecycle.text_opt("stopSignal") {
            found.extend(stop_signal(signal, spec, &path.child("stopSignal")));
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.field(kind) else { continue };
        let path = path.child(kind);
        found.extend(self::probe(probe, grace, &path));
        if kind == "readinessProbe" {
            if let Some(grace) = probe.int_opt("terminationGracePeriodSeconds") {
                let at = path.child("terminationGracePeriodSeconds");
                found.push(invalid(&at, grace, "must not be set for readinessProbes"));
            }
        } else if probe.int("successThreshold") != 1 {
            found.push(invalid(&path.child("successThreshold"), probe.int("successThreshold"), "must be 1"));
        }
    }
    found
}

fn probe(probe: &Value, grace: Option<i64>, path: &Path) -> ErrorList {
    let mut found = handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, path);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if probe.int(field) < 0 {
            found.push(invalid(&path.child(field), probe.int(field), NEGATIVE));
        }
    }
    if let Some(grace) = probe.int_opt("terminationGracePeriodSeconds").filter(|g| *g <= 0) {
        found.push(invalid(&path.child("terminationGracePeriodSeconds"), grace, "must be greater than 0"));
    }
    found
}

fn handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut given = kinds.iter().filter_map(|kind| Some((*kind, handler.field(kind)?)));
    match given.next() {
        None => found.push(required(path, "must specify a handler type")),
        Some((kind, action)) => {
            let path = path.child(kind);
            match kind {
                "exec" if action.list("command").is_empty() => found.push(required(&path.child("command"), "")),
                "httpGet" => found.extend(http_get(action, &path)),
                "tcpSocket" => found.extend(port(&action["port"], &path.child("port"))),
                "grpc" => {
                    let number = Value::from(action.int("port"));
                    found.extend(port(&number, &path.child("port")));
                    if let Some(mode) = action.text_opt("mode").filter(|m| !["Plaintext", "TLS"].contains(m)) {
                        found.push(not_supported(&path.child("mode"), mode, &["Plaintext", "TLS"]));
                    }
                }
                "sleep" => found.extend(sleep(action.int("seconds"), grace, &path)),
                _ => {}
            }
        }
    }
    found.extend(given.map(|(kind, _)| forbidden(&path.child(kind), "may not specify more than 1 handler type")));
    found
}

fn sleep(seconds: i64, grace: Option<i64>, path: &Path) -> Option<schema::field::FieldError> {
    let grace = grace.filter(|grace| seconds < 0 || seconds > *grace)?;
    let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    Some(invalid(path, seconds, &text))
}

fn http_get(get: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if get.text("path").is_empty() {
        found.push(required(&path.child("path"), ""));
    }
    found.extend(port(&get["port"], &path.child("port")));
    let scheme = get.text("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        found.push(not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in get.list("httpHeaders") {
        let name = header.text("name");
        found.extend(names::errors(&path.child("httpHeaders"), name, names::http_header_name(name)));
    }
    let at = path.child("protocol");
    match get.text_opt("protocol") {
        None | Some("HTTP1") => {}
        Some("HTTP2") if scheme != "HTTP" => found.push(invalid(&at, "HTTP2", "is only supported with HTTP (H2C)")),
        Some("HTTP2") => {
            let host = get.text("host");
            if !host.is_empty() {
                found.push(invalid(&path.child("host"), host, "must be empty when `protocol` is \"HTTP2\""));
            }
        }
        Some(other) => found.push(not_supported(&at, other, &["HTTP1", "HTTP2"])),
    }
    found
}

/// `ValidatePortNumOrName`.
pub(super) fn port(port: &Value, path: &Path) -> ErrorList {
    match port.as_str() {
        Some(name) => names::errors(path, name, names::port_name(name)).collect(),
        None => {
            let number = port.as_i64().unwrap_or_default();
            names::port_number(number).iter().map(|message| invalid(path, number, message)).collect()
        }
    }
}

fn stop_signal(signal: &str, spec: &Value, path: &Path) -> Option<schema::field::FieldError> {
    let named = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL SIGPIPE \
        SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG \
        SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX";
    let mut signals: Vec<String> = match spec["os"].text("name") {
        "" => return Some(forbidden(path, "may not be set for containers with empty `spec.os.name`")),
        "windows" => vec!["SIGKILL".to_owned(), "SIGTERM".to_owned()],
        "linux" => {
            let mut signals: Vec<String> = named.split_whitespace().map(str::to_owned).collect();
            signals.extend((1..=15).map(|n| format!("SIGRTMIN+{n}")));
            signals.extend((1..=14).map(|n| format!("SIGRTMAX-{n}")));
            signals
        }
        _ => return None,
    };
    signals.sort();
    let listed: Vec<&str> = signals.iter().map(String::as_str).collect();
    (!listed.contains(&signal)).then(|| not_supported(path, signal, &listed))
}
