//! Who may use the kubelet's API: what a request is to the authorizer (upstream `pkg/kubelet/server/auth.go`, KEP-2862).

/// The subresources of the Node by any of which the path may be allowed, the finest first.
pub fn subresources(path: &str) -> Vec<&'static str> {
    let fine = match path {
        path if is_below(path, "/pods") || is_below(path, "/runningpods") => Some("pods"),
        path if is_below(path, "/healthz") => Some("healthz"),
        path if is_below(path, "/configz") => Some("configz"),
        _ => None,
    };
    let coarse = match path {
        path if is_below(path, "/stats") => "stats",
        path if is_below(path, "/metrics") => "metrics",
        path if is_below(path, "/logs") => "log",
        path if is_below(path, "/checkpoint") => "checkpoint",
        path if is_below(path, "/statusz") => "statusz",
        path if is_below(path, "/flagz") => "configz",
        _ => "proxy",
    };
    fine.into_iter().chain([coarse]).collect()
}

/// The API's verb for a method; empty for one that has none.
pub fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Upstream's words for a refusal.
pub fn forbidden(user: &str, verb: &str, subresources: &[&str]) -> String {
    let list = subresources.join(" ");
    format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n")
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_what_allows_them() {
        for (path, wanted) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/pods/", &["pods", "proxy"]),
            ("/podsandmore", &["proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz", &["healthz", "proxy"]),
            ("/healthz/log", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/stats/summary", &["stats"]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/logs/", &["log"]),
            ("/checkpoint/ns/pod/c", &["checkpoint"]),
            ("/statusz", &["statusz"]),
            ("/flagz", &["configz"]),
            ("/exec/ns/pod/c", &["proxy"]),
            ("/containerLogs/ns/pod/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_refusal_names_user_verb_and_subresources() {
        assert_eq!(
            forbidden("jane", verb("GET"), &subresources("/pods")),
            "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
        );
    }
}
