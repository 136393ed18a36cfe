//! Image names as people write them, normalised as Docker and containerd do (`github.com/distribution/reference`).

use std::fmt;

/// A normalised image name: `docker.io/library/busybox:1.37`, `host:5000/a/b@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Not an image name; `Display` has upstream's words, without the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("unsupported digest algorithm")]
    Algorithm,
    #[error("invalid checksum digest length")]
    DigestLength,
}

const DEFAULT_DOMAIN: &str = "docker.io";
const MAX_NAME_CHARS: usize = 255;

impl Reference {
    /// Reads `name` and fills in what it leaves out: `docker.io`, `library/`, and `:latest` where there is neither
    /// tag nor digest.
    pub fn parse(name: &str) -> Result<Reference, InvalidReference> {
        let mut reference = Reference::parse_untagged(name)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some("latest".to_owned());
        }
        Ok(reference)
    }

    /// Like [`Reference::parse`], without adding `:latest`.
    pub fn parse_untagged(name: &str) -> Result<Reference, InvalidReference> {
        if name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidReference::Id(name.to_owned()));
        }
        let (domain, mut rest) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase() =>
            {
                (first, rest.to_owned())
            }
            _ => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        if domain == DEFAULT_DOMAIN && !rest.contains('/') {
            rest = format!("library/{rest}");
        }
        // Up to the first colon, digest or not: so upstream words it.
        let repository = rest.split(':').next().unwrap_or_default();
        if repository != repository.to_lowercase() {
            return Err(InvalidReference::Uppercase(repository.to_owned()));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest.to_owned(), Some(check_digest(digest)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path.to_owned(), Some(tag.to_owned())),
            Some(_) => return Err(InvalidReference::Format),
            None => (rest, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_component) {
            return Err(InvalidReference::Format);
        }
        if path.len() > MAX_NAME_CHARS {
            return Err(InvalidReference::TooLong);
        }
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The form that is stored and printed: a name with both tag and digest means its digest.
    pub fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, Some(tag)) => format!("{}:{tag}", self.repository()),
            (None, None) => self.repository(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 128
        && word(bytes[0])
        && bytes.iter().all(|c| word(*c) || matches!(c, b'.' | b'-'))
}

/// Lower-case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .filter(|part| !part.is_empty())
        .all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|c| c == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let hex = |c: char| c.is_ascii_hexdigit() || c == ':';
            if address.is_empty() || !address.chars().all(hex) {
                return false;
            }
            ("ipv6", rest)
        }
        None => match domain.find(':') {
            Some(at) => domain.split_at(at),
            None => (domain, ""),
        },
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    port_ok
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        })
}

fn check_digest(digest: &str) -> Result<String, InvalidReference> {
    let (algorithm, hex) = digest.split_once(':').ok_or(InvalidReference::Format)?;
    let algorithm_ok = algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|c| c.is_ascii_alphanumeric())
    });
    if !algorithm_ok || hex.len() < 32 || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(InvalidReference::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(InvalidReference::Algorithm),
    };
    if hex.len() != length {
        return Err(InvalidReference::DigestLength);
    }
    if hex.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(InvalidReference::Format);
    }
    Ok(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let hex = "ab".repeat(32);
        let with_digest = format!("busybox:1@sha256:{hex}");
        let digest_out = format!("docker.io/library/busybox@sha256:{hex}");
        for (name, canonical) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.37", "docker.io/library/busybox:1.37"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b_c__d-e---f.g:T_1", "localhost:5000/a/b_c__d-e---f.g:T_1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a:latest"),
            ("Foo/bar", "Foo/bar:latest"),
            (&with_digest, &digest_out),
        ] {
            assert_eq!(Reference::parse(name).map(|r| r.canonical()), Ok(canonical.to_owned()), "{name}");
        }
    }

    #[test]
    fn bad_names_get_upstreams_words() {
        let id = "0123456789abcdef".repeat(4);
        let id_words = format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings");
        let odd = format!("a@md5:{}", "a".repeat(32));
        let short = format!("a@sha256:{}", "a".repeat(63));
        for (name, words) in [
            ("Busy Box:1", "invalid reference format: repository name (library/Busy Box) must be lowercase"),
            ("busyBox", "invalid reference format: repository name (library/busyBox) must be lowercase"),
            ("", "invalid reference format"),
            ("busy box", "invalid reference format"),
            ("a:", "invalid reference format"),
            (":1", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("-a/b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a@b", "invalid reference format"),
            ("https://a.b/c", "invalid reference format"),
            ("host.x:port/a", "invalid reference format"),
            (&odd, "unsupported digest algorithm"),
            (&short, "invalid checksum digest length"),
            (&id, &id_words),
        ] {
            assert_eq!(Reference::parse(name).map_err(|e| e.to_string()), Err(words.to_owned()), "{name}");
        }
    }
}
