//! Which servers are asked for a registry's images: `HOST/hosts.toml` in containerd's form, or the registry itself.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// A server to ask, with how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// `https`, `http`.
    pub(crate) scheme: String,
    /// `registry-1.docker.io`, `127.0.0.1:5000`.
    pub(crate) authority: String,
    /// Where the API begins: `/v2`, or another path with `override_path`.
    pub(crate) path: String,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) skip_verify: bool,
    /// PEM files.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key, in one PEM file or two.
    pub(crate) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) header: Vec<(String, String)>,
    pub(crate) dial_timeout: Option<Duration>,
    /// Whether it is asked under another name than the image's and must be told that name (`?ns=`).
    pub(crate) mirror: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HostsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Malformed { path: PathBuf, source: toml::de::Error },
    #[error("{path}: {what}")]
    Invalid { path: PathBuf, what: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
    /// In the file's order, which is the order they are asked in.
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Files(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

/// The servers for `domain` (as in an image's name), the first to ask first.
pub(crate) fn hosts(registries_dir: Option<&Path>, domain: &str) -> Result<Vec<Host>, HostsError> {
    if let Some(dir) = registries_dir {
        for path in candidates(dir, domain) {
            match std::fs::read_to_string(&path) {
                Ok(text) => return parse(&text, &path, domain),
                Err(error)
                    if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
                Err(source) => return Err(HostsError::Read { path, source }),
            }
        }
    }
    Ok(vec![origin(domain)])
}

/// As containerd looks: `host:port`, `host_port_`, `_default`.
fn candidates(dir: &Path, domain: &str) -> Vec<PathBuf> {
    let underscored = domain.split_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [Some(domain.to_owned()), underscored, Some("_default".to_owned())];
    names.into_iter().flatten().map(|name| dir.join(name).join("hosts.toml")).collect()
}

/// The registry itself: over TLS, unless it is on this machine.
fn origin(domain: &str) -> Host {
    let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let is_loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let scheme = if is_loopback && !authority.ends_with(":443") { "http" } else { "https" };
    Host {
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path: "/v2".to_owned(),
        pull: true,
        resolve: true,
        skip_verify: false,
        ca: Vec::new(),
        client: Vec::new(),
        header: Vec::new(),
        dial_timeout: None,
        mirror: false,
    }
}

fn parse(text: &str, path: &Path, domain: &str) -> Result<Vec<Host>, HostsError> {
    let file: File = toml::from_str(text).map_err(|source| HostsError::Malformed { path: path.to_owned(), source })?;
    let mut listed: Vec<(Spanned<String>, Entry)> = file.host.into_iter().collect();
    listed.sort_by_key(|(url, _)| url.span().start);
    let invalid = |what: String| HostsError::Invalid { path: path.to_owned(), what };
    let mut hosts = Vec::new();
    for (url, entry) in listed {
        hosts.push(host(url.get_ref(), entry, path, domain).map_err(invalid)?);
    }
    let server = Entry {
        capabilities: file.capabilities,
        ca: file.ca,
        client: file.client,
        skip_verify: file.skip_verify,
        header: file.header,
        override_path: file.override_path,
        dial_timeout: file.dial_timeout,
    };
    let url = file.server.unwrap_or_else(|| {
        let Host { scheme, authority, .. } = origin(domain);
        format!("{scheme}://{authority}")
    });
    hosts.push(host(&url, server, path, domain).map_err(invalid)?);
    Ok(hosts)
}

fn host(url: &str, entry: Entry, file: &Path, domain: &str) -> Result<Host, String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_owned(), rest),
        None => (origin(url.split('/').next().unwrap_or(url)).scheme, url),
    };
    if scheme != "http" && scheme != "https" {
        return Err(format!("host {url:?}: unsupported scheme {scheme:?}"));
    }
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    if authority.is_empty() {
        return Err(format!("host {url:?} names no server"));
    }
    let path = path.trim_end_matches('/');
    let path = match (path.is_empty(), entry.override_path.unwrap_or(false)) {
        (true, true) => String::new(),
        (false, true) => format!("/{path}"),
        (true, false) => "/v2".to_owned(),
        (false, false) if path == "v2" || path.ends_with("/v2") => format!("/{path}"),
        (false, false) => format!("/{path}/v2"),
    };
    let mut capabilities = (false, false);
    match entry.capabilities {
        None => capabilities = (true, true),
        Some(list) => {
            for capability in list {
                match capability.as_str() {
                    "pull" => capabilities.0 = true,
                    "resolve" => capabilities.1 = true,
                    // Nothing is pushed and nothing listed from here.
                    "push" | "referrers" => {}
                    other => return Err(format!("host {url:?}: unknown capability {other:?}")),
                }
            }
        }
    }
    let file = |name: String| file.parent().unwrap_or(Path::new("")).join(name);
    let client = match entry.client {
        None => Vec::new(),
        Some(Clients::One(one)) => vec![(file(one), None)],
        Some(Clients::Files(files)) => files.into_iter().map(|name| (file(name), None)).collect(),
        Some(Clients::Pairs(pairs)) => pairs
            .into_iter()
            .map(|pair| match <[String; 2]>::try_from(pair) {
                Ok([certificate, key]) => Ok((file(certificate), Some(file(key)))),
                Err(pair) if pair.len() == 1 => Ok((file(pair.concat()), None)),
                Err(_) => Err(format!("host {url:?}: a client entry is a certificate and a key")),
            })
            .collect::<Result<_, _>>()?,
    };
    let mirror = origin(domain).authority != authority && authority != domain;
    let header = entry.header.unwrap_or_default().into_iter();
    Ok(Host {
        scheme,
        authority: authority.to_owned(),
        path,
        pull: capabilities.0,
        resolve: capabilities.1,
        skip_verify: entry.skip_verify.unwrap_or(false),
        ca: entry.ca.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(file).collect(),
        client,
        header: header
            .flat_map(|(name, values)| values.into_vec().into_iter().map(move |v| (name.clone(), v)))
            .collect(),
        dial_timeout: entry.dial_timeout.as_deref().map(parse_duration).transpose()?,
        mirror,
    })
}

/// Go's durations as far as a timeout needs them: `30s`, `1m30s`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("dial_timeout {text:?} is no duration");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write;

    fn check(domain: &str, text: &str, expected: Expect) {
        let mut out = String::new();
        match parse(text, Path::new("/r/hosts.toml"), domain) {
            Err(error) => out = error.to_string(),
            Ok(hosts) => {
                for h in hosts {
                    let flags: Vec<&str> = [
                        (h.pull, "pull"),
                        (h.resolve, "resolve"),
                        (h.skip_verify, "skip_verify"),
                        (h.mirror, "mirror"),
                    ]
                    .into_iter()
                    .filter_map(|(on, name)| on.then_some(name))
                    .collect();
                    writeln!(
                        out,
                        "{}://{}{} {} ca={:?} header={:?}",
                        h.scheme,
                        h.authority,
                        h.path,
                        flags.join(","),
                        h.ca,
                        h.header
                    )
                    .unwrap();
                }
            }
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn files_are_read_as_containerd_reads_them() {
        check(
            "docker.io",
            "",
            expect![[r#"
            https://registry-1.docker.io/v2 pull,resolve ca=[] header=[]
        "#]],
        );
        check(
            "docker.io",
            "server = \"https://docker.io\"\n[host.\"https://z.example\"]\ncapabilities = [\"pull\"]\nca = \"ca.pem\"\n\
             [host.\"http://a.example:81/prefix\"]\nskip_verify = true\n[host.\"https://b/x/y\"]\noverride_path = true\n\
             [host.\"https://b/x/y\".header]\nx-a = [\"1\", \"2\"]\n",
            expect![[r#"
                https://z.example/v2 pull,mirror ca=["/r/ca.pem"] header=[]
                http://a.example:81/prefix/v2 pull,resolve,skip_verify,mirror ca=[] header=[]
                https://b/x/y pull,resolve,mirror ca=[] header=[("x-a", "1"), ("x-a", "2")]
                https://docker.io/v2 pull,resolve ca=[] header=[]
            "#]],
        );
        check(
            "a.b",
            "[host.\"https://x\"]\ncapabilities = [\"fly\"]\n",
            expect![[r#"/r/hosts.toml: host "https://x": unknown capability "fly""#]],
        );
        check("a.b", "[host.\"ftp://x\"]\n", expect![[r#"/r/hosts.toml: host "ftp://x": unsupported scheme "ftp""#]]);
    }

    #[test]
    fn the_registry_itself() {
        let url = |domain| {
            let host = origin(domain);
            format!("{}://{}", host.scheme, host.authority)
        };
        assert_eq!(url("docker.io"), "https://registry-1.docker.io");
        assert_eq!(url("localhost:5000"), "http://localhost:5000");
        assert_eq!(url("127.0.0.1:443"), "https://127.0.0.1:443");
        assert_eq!(url("[::1]:5000"), "http://[::1]:5000");
        assert_eq!(url("registry.k8s.io"), "https://registry.k8s.io");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("5").is_err() && parse_duration("").is_err());
    }
}
