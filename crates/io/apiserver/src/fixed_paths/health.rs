//! `/healthz`, `/livez`, `/readyz` and their single checks.

use crate::body::Body;
use crate::errors::{self, Result};
use crate::query::Query;
use crate::respond::response;
use crate::server::ApiServer;
use http::Response;

const TEXT: &str = "text/plain; charset=utf-8";
/// The checks by name, in upstream's order.
const CHECKS: [&str; 4] = ["ping", "log", "etcd", "informer-sync"];

pub(super) async fn answer(server: &ApiServer, path: &str, query: &Query) -> Result<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or_default();
    if let Some(check) = parts.next().filter(|c| !c.is_empty()) {
        if !CHECKS.contains(&check) {
            return Err(errors::page_not_found());
        }
        return Ok(match run(server, check).await {
            Ok(()) => response(200, TEXT, &b"ok"[..]),
            Err(why) => response(500, TEXT, format!("internal server error: {why}\n")),
        });
    }
    let mut lines = String::new();
    let mut failed = false;
    let excluded: Vec<&str> = query.all("exclude").collect();
    for check in CHECKS {
        if excluded.contains(&check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
            continue;
        }
        match run(server, check).await {
            Ok(()) => lines.push_str(&format!("[+]{check} ok\n")),
            Err(_) => {
                failed = true;
                lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
            }
        }
    }
    if failed {
        return Ok(response(500, TEXT, format!("{lines}{endpoint} check failed\n")));
    }
    if query.find("verbose").is_some() {
        return Ok(response(200, TEXT, format!("{lines}{endpoint} check passed\n")));
    }
    Ok(response(200, TEXT, &b"ok"[..]))
}

/// One check. `etcd` is the store, whatever it is.
async fn run(server: &ApiServer, check: &str) -> std::result::Result<(), String> {
    match check {
        "etcd" => server.kv.revision().await.map(|_| ()).map_err(|e| e.to_string()),
        "informer-sync" => server.caches.fresh().await.map(|_| ()).map_err(|e| e.message),
        _ => Ok(()),
    }
}
