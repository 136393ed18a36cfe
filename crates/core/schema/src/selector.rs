//! Label and field selectors: parsing with upstream's messages, matching.

use std::collections::BTreeMap;

/// A parsed label selector (apimachinery `labels.Parse`): `a=b,c!=d,e in (f,g),h,!i,n>1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
}

/// Why a selector cannot be parsed, in upstream's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl LabelSelector {
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        unimplemented!()
    }

    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        unimplemented!()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

/// A parsed field selector (apimachinery `fields.ParseSelector`): `spec.nodeName=a,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, value, and whether they must be equal.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        unimplemented!()
    }
}
