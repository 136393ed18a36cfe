//! What a request path and method ask for (upstream `apiserver/pkg/endpoints/request` `RequestInfoFactory`).

use crate::query::Query;
use http::Method;

/// A request as authorization and routing see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Decoded, without the query.
    pub path: String,
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in
    /// lower case; empty for methods that mean nothing here.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: the path that a proxy forwards.
    pub rest: String,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, raw_path: &str, query: &Query) -> Self {
        let path = percent_decode(raw_path);
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let parts = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => {
                info.path = path;
                return info;
            }
        };
        info.is_resource = true;
        info.verb = resource_verb(method).to_owned();
        let mut parts = parts;
        let watch_path = parts[0] == "watch" && parts.len() > 1;
        if watch_path {
            info.verb = "watch".to_owned();
            parts = &parts[1..];
        }
        info.take_resource(parts);
        if info.name.is_empty() {
            if info.verb == "get" {
                info.verb = if query.flag("watch") { "watch".to_owned() } else { "list".to_owned() };
            } else if info.verb == "delete" {
                info.verb = "deletecollection".to_owned();
            }
        }
        info.path = path;
        info
    }

    fn take_resource(&mut self, parts: &[&str]) {
        let mut parts = parts;
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = parts[1].to_owned();
            // `status` and `finalize` are the namespace's own.
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        self.resource = parts[0].to_owned();
        self.name = parts.get(1).copied().unwrap_or_default().to_owned();
        self.subresource = parts.get(2).copied().unwrap_or_default().to_owned();
        if parts.len() > 3 {
            self.rest = parts[3..].join("/");
        }
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Undoes `%2F` and its like; what is no escape stays.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten();
        match escaped.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, uri: &str) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let i = RequestInfo::parse(method, path, &Query::parse(query));
        if !i.is_resource {
            return format!("{} {}", i.verb, i.path);
        }
        format!(
            "{} {}/{} ns={} {}/{}/{} {}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource, i.rest
        )
    }

    #[test]
    fn paths() {
        let cases = [
            (Method::GET, "/api/v1/namespaces/a/pods", "list /v1 ns=a pods// "),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=1", "watch /v1 ns=a pods// "),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods// "),
            (Method::HEAD, "/api/v1/namespaces/a", "get /v1 ns=a namespaces/a/ "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/a/finalize "),
            (Method::PUT, "/api/v1/namespaces/a/status", "update /v1 ns=a namespaces/a/status "),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 ns=a deployments// "),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments/x/scale",
                "create apps/v1 ns=a deployments/x/scale ",
            ),
            (Method::GET, "/api/v1/nodes/n/proxy/a/b", "get /v1 ns= nodes/n/proxy a/b"),
            (Method::GET, "/api/v1/namespaces/a%2Fb/pods", "get /v1 ns=a b/pods/ "),
            (Method::GET, "/api/v1", "get /api/v1"),
            (Method::GET, "/apis/apps/v1", "get /apis/apps/v1"),
            (Method::GET, "/healthz", "get /healthz"),
        ];
        for (method, uri, want) in cases {
            assert_eq!(parse(&method, uri), want, "{method} {uri}");
        }
    }
}
