//! Which credentials of a docker configuration are for which image (upstream `pkg/credentialprovider/keyring.go`).

use base64::Engine;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One registry login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credential {
    pub username: String,
    pub password: String,
    pub identity_token: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

#[derive(Deserialize)]
struct DockerConfigJson {
    auths: BTreeMap<String, Entry>,
}

/// The logins whose registry (and path prefix) fits `image`, the most specific first. What cannot be read gives none.
pub fn matching(config: &[u8], image: &str) -> Vec<Credential> {
    let entries = serde_json::from_slice::<DockerConfigJson>(config)
        .map(|config| config.auths)
        .or_else(|_| serde_json::from_slice::<BTreeMap<String, Entry>>(config))
        .unwrap_or_default();
    let (host, path) = repository(image);
    let mut found: Vec<_> = entries
        .into_iter()
        .map(|(registry, entry)| (normal(&registry), entry))
        .filter(|(registry, _)| fits(registry, &host, &path))
        .collect();
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found.into_iter().map(|(_, entry)| credential(entry)).collect()
}

/// `docker.io` stands for what it is called in docker's own files; scheme, `/v1/` and `/v2/` do not count.
fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        bare => bare.to_owned(),
    }
}

fn repository(image: &str) -> (String, String) {
    let name = image.split('@').next().unwrap_or_default();
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (normal(host), path.to_owned()),
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

/// Host labels may be globbed with `*`; the path is a prefix by whole components.
fn fits(registry: &str, host: &str, path: &str) -> bool {
    let (of_host, of_path) = registry.split_once('/').unwrap_or((registry, ""));
    let (name, port) = split_port(host);
    let (of_name, of_port) = split_port(of_host);
    let labels: Vec<_> = name.split('.').collect();
    let of_labels: Vec<_> = of_name.split('.').collect();
    let same = labels.len() == of_labels.len() && labels.iter().zip(&of_labels).all(|(a, b)| glob(b, a));
    let rest = path.strip_prefix(of_path);
    same && port == of_port
        && (of_path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':'])))
}

fn split_port(host: &str) -> (&str, &str) {
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))),
    }
}

fn credential(entry: Entry) -> Credential {
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(&entry.auth)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (entry.username, entry.password),
    };
    Credential { username, password, identity_token: entry.identitytoken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_match_by_host_glob_port_and_path() {
        for (registry, image, expected) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "me/app:1", true),
            ("quay.io", "quay.io/a/b", true),
            ("quay.io", "nginx", false),
            ("*.example.com", "a.example.com/x", true),
            ("*.example.com", "a.b.example.com/x", false),
            ("r.example.com:5000", "r.example.com:5000/x", true),
            ("r.example.com:5000", "r.example.com/x", false),
            ("quay.io/team", "quay.io/team/app:1", true),
            ("quay.io/team", "quay.io/teams/app", false),
        ] {
            let config = format!(r#"{{"auths":{{"{registry}":{{"auth":"dTpwOnc="}}}}}}"#);
            let expected = if expected {
                vec![Credential { username: "u".into(), password: "p:w".into(), identity_token: String::new() }]
            } else {
                vec![]
            };
            assert_eq!(matching(config.as_bytes(), image), expected, "{registry} {image}");
        }
    }
}
