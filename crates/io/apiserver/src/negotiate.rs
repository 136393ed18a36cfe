//! Content negotiation: how an answer is written, and as what (upstream `endpoints/handlers/negotiation`).

use crate::errors::{self, Result};

/// The encodings that resources are served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub(crate) fn of_content_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What an object is turned into before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Itself,
    /// `meta.k8s.io` in this version.
    Table(String),
    Partial(String),
    PartialList(String),
}

/// The answer's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub encoding: Encoding,
    pub target: Target,
    pub pretty: bool,
}

impl Negotiated {
    pub(crate) fn plain_json() -> Self {
        Self { encoding: Encoding::Json, target: Target::Itself, pretty: false }
    }
}

/// One clause of an `Accept` header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause {
    pub media_type: String,
    pub parameters: Vec<(String, String)>,
    quality: f64,
}

impl Clause {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// The clauses of `Accept`, best first; those of equal worth in their order.
pub(crate) fn clauses(accept: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = accept
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media_type = pieces.next().filter(|m| !m.is_empty())?.to_ascii_lowercase();
            let mut clause = Clause { media_type, parameters: Vec::new(), quality: 1.0 };
            for (key, value) in pieces.filter_map(|p| p.split_once('=')) {
                if key == "q" {
                    clause.quality = value.parse().unwrap_or(1.0);
                } else {
                    clause.parameters.push((key.to_owned(), value.to_owned()));
                }
            }
            Some(clause)
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// What may be asked for besides the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversions {
    /// Table and PartialObjectMetadata.
    Resource,
    /// None: subresources that connect, reviews.
    None,
}

/// Upstream's router refuses an `Accept` none of whose media types it knows by name, before anybody negotiates.
pub(crate) fn check_produces(accept: &str) -> Result<()> {
    let known = |media_type: &str| media_type == "*/*" || Encoding::of_content_type(media_type).is_some();
    if accept.trim().is_empty() || clauses(accept).iter().any(|clause| known(&clause.media_type)) {
        return Ok(());
    }
    Err(errors::router_not_acceptable())
}

/// Chooses the form of the answer; `Err` is upstream's 406.
pub(crate) fn negotiate(accept: &str, conversions: Conversions, pretty: bool) -> Result<Negotiated> {
    if accept.trim().is_empty() {
        return Ok(Negotiated { pretty, ..Negotiated::plain_json() });
    }
    for clause in clauses(accept) {
        let encoding = match clause.media_type.as_str() {
            "*/*" | "application/*" => Encoding::Json,
            other => match Encoding::of_content_type(other) {
                Some(encoding) => encoding,
                None => continue,
            },
        };
        let pretty = pretty || clause.parameter("pretty") == Some("1");
        if let Some(target) = target(&clause, encoding, conversions) {
            return Ok(Negotiated { encoding, target, pretty });
        }
    }
    Err(errors::only_media_types())
}

fn target(clause: &Clause, encoding: Encoding, conversions: Conversions) -> Option<Target> {
    let Some(kind) = clause.parameter("as") else {
        return Some(Target::Itself);
    };
    let version = clause.parameter("v").filter(|v| matches!(*v, "v1" | "v1beta1"))?;
    if clause.parameter("g") != Some("meta.k8s.io") || conversions == Conversions::None {
        return None;
    }
    match kind {
        "Table" if encoding != Encoding::Protobuf => Some(Target::Table(version.to_owned())),
        "PartialObjectMetadata" => Some(Target::Partial(version.to_owned())),
        "PartialObjectMetadataList" => Some(Target::PartialList(version.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accepts() {
        let form = |accept: &str| negotiate(accept, Conversions::Resource, false).map(|n| (n.encoding, n.target)).ok();
        assert_eq!(form(""), Some((Encoding::Json, Target::Itself)));
        assert_eq!(form("text/html"), None);
        assert_eq!(form("text/html,application/yaml;q=0.5"), Some((Encoding::Yaml, Target::Itself)));
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io"),
            Some((Encoding::Json, Target::Table("v1".into())))
        );
        assert_eq!(form("application/json;as=Table;v=v1;g=nope"), None);
        assert_eq!(form("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"), None);
        assert_eq!(form("application/json;q=0.1,application/yaml;q=0.2").unwrap().0, Encoding::Yaml);
    }
}
