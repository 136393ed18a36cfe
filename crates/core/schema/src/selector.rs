//! Label and field selectors: parsing with upstream's messages, matching.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

mod parse;

/// A parsed label selector (apimachinery `labels.Parse`): `a=b,c!=d,e in (f,g),h,!i,n>1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches nothing whatever the requirements say (a selector field that is not set).
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Equals,
    /// `==`: the same, written back as it came.
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// Why a selector cannot be parsed, in upstream's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl LabelSelector {
    /// # Errors
    /// `unable to parse requirement: …`, `found ',', expected: identifier after ','`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { requirements: parse::parse(text)?, nothing: false })
    }

    /// A `metav1.LabelSelector` as it stands in an object: absent or `null` matches nothing, an empty one everything
    /// (`LabelSelectorAsSelector`).
    ///
    /// # Errors
    /// What is wrong with an expression, in upstream's words.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        let Value::Object(selector) = selector else { return Ok(Self { requirements: Vec::new(), nothing: true }) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement::new(key.clone(), Operator::Equals, vec![text(value)])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match text(&expression["operator"]).as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let quoted = crate::field::go_quote(other);
                    return Err(SelectorError(format!("{quoted} is not a valid label selector operator")));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten().map(text).collect();
            requirements.push(Requirement::new(text(&expression["key"]), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Matches exactly these labels, unchecked, as a Service or ReplicationController selects.
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let exact = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self { requirements: labels.into_iter().map(exact).collect(), nothing: false }
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
}

/// As upstream writes a selector, e.g. in `status.selector` of a scale.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let Requirement { key, operator, values } = requirement;
            let comma = if i == 0 { "" } else { "," };
            let list = values.join(",");
            match operator {
                Operator::In => write!(f, "{comma}{key} in ({list})")?,
                Operator::NotIn => write!(f, "{comma}{key} notin ({list})")?,
                Operator::Equals => write!(f, "{comma}{key}={list}")?,
                Operator::DoubleEquals => write!(f, "{comma}{key}=={list}")?,
                Operator::NotEquals => write!(f, "{comma}{key}!={list}")?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::DoesNotExist => write!(f, "{comma}!{key}")?,
                Operator::GreaterThan => write!(f, "{comma}{key}>{list}")?,
                Operator::LessThan => write!(f, "{comma}{key}<{list}")?,
            }
        }
        Ok(())
    }
}

impl Requirement {
    fn new(key: String, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        parse::check(&key, operator, &values)?;
        values.sort();
        Ok(Self { key, operator, values })
    }

    fn matches(&self, label: Option<&str>) -> bool {
        let has = |label: &str| self.values.iter().any(|v| v == label);
        let number = |text: &str| text.parse::<i64>().ok();
        let wanted = || number(self.values.first()?);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(has),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => label.and_then(number).zip(wanted()).is_some_and(|(is, than)| is > than),
            Operator::LessThan => label.and_then(number).zip(wanted()).is_some_and(|(is, than)| is < than),
        }
    }
}

/// A parsed field selector (apimachinery `fields.ParseSelector`): `spec.nodeName=a,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, value, and whether they must be equal.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// # Errors
    /// `invalid selector: 'a'; can't understand 'a'`, or a wrong escape.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let understood = part.char_indices().find_map(|(at, _)| {
                let rest = &part[at..];
                let operator = ["!=", "==", "="].into_iter().find(|o| rest.starts_with(o))?;
                Some((&part[..at], operator, &rest[operator.len()..]))
            });
            let Some((field, operator, value)) = understood else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push((field.to_owned(), unescape(value)?, operator != "!="));
        }
        Ok(Self { terms })
    }

    /// The value that a field must have, if the selector asks for one (`RequiresExactMatch`).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(name, _, equal)| name == field && *equal).map(|(_, value, _)| value.as_str())
    }

    /// `value_of` gives a field's value, empty where it has none.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|(field, value, equal)| (value_of(field) == value) == *equal)
    }
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut text = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        match c {
            '\\' | ',' | '=' if escaped => {
                text.push(c);
                escaped = false;
            }
            _ if escaped => {
                return Err(SelectorError(format!("invalid field selector: invalid escape sequence: \\{c}")));
            }
            '\\' => escaped = true,
            // Go prints the rune as a number here.
            ',' | '=' => {
                let rune = u32::from(c);
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {rune}")));
            }
            _ => text.push(c),
        }
    }
    if escaped {
        return Err(SelectorError("invalid field selector: invalid escape sequence: \\".to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use expect_test::{Expect, expect};

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn labels_match() {
        let cases = [
            ("", "a=1", true),
            ("a", "a=1", true),
            ("!a", "a=1", false),
            ("a=1", "a=1", true),
            ("a==2", "a=1", false),
            ("a!=2", "b=1", true),
            ("a in (1,2)", "a=2", true),
            ("a notin (1,2)", "b=2", true),
            ("a notin (1,2)", "a=2", false),
            ("n>1", "n=2", true),
            ("n<1", "n=2", false),
            ("n>1", "n=x", false),
            ("n in ()", "n=", true),
            ("n in (,b)", "n=", true),
            (" l = 1 ", "l=1", true),
            ("in in (in,notin)", "in=notin", true),
            ("a=1,b", "a=1", false),
        ];
        for (selector, set, expected) in cases {
            assert_eq!(LabelSelector::parse(selector).unwrap().matches(&labels(set)), expected, "{selector} on {set}");
        }
    }

    fn refused(selector: &str, expected: Expect) {
        expected.assert_eq(&LabelSelector::parse(selector).unwrap_err().0);
    }

    #[test]
    fn labels_refused() {
        refused("n in (a", expect!["unable to parse requirement: found '', expected: ',' or ')'"]);
        refused("=x", expect!["found '=', expected: !, identifier, or 'end of string'"]);
        refused("a b=c", expect!["unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"]);
        refused("l=1,,n=a", expect!["found ',', expected: identifier after ','"]);
        refused("l=1,", expect!["found '', expected: identifier after ','"]);
        refused("l=1 m", expect!["found 'm', expected: ',' or 'end of string'"]);
        refused(
            "n>x",
            expect![[
                r#"unable to parse requirement: values[0]: Invalid value: "x": for 'Gt', 'Lt' operators, the value must be an integer"#
            ]],
        );
        refused(
            "a=-",
            expect![[
                r#"unable to parse requirement: values[0][a]: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#
            ]],
        );
        refused(
            "-=a",
            expect![[
                r#"unable to parse requirement: <nil>: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#
            ]],
        );
        refused("a in b", expect!["unable to parse requirement: found 'b' expected: '('"]);
    }

    #[test]
    fn objects() {
        let selector = |text: &str| LabelSelector::from_value(&serde_json::from_str(text).unwrap());
        assert!(!selector("null").unwrap().matches(&BTreeMap::new()));
        assert!(selector("{}").unwrap().matches(&BTreeMap::new()));
        let both = r#"{"matchLabels":{"b":"1"},"matchExpressions":[{"key":"a","operator":"In","values":["2","1"]}]}"#;
        assert_eq!(selector(both).unwrap().to_string(), "a in (1,2),b=1");
        assert_eq!(
            selector(r#"{"matchExpressions":[{"key":"a","operator":"in"}]}"#).unwrap_err().0,
            r#""in" is not a valid label selector operator"#
        );
    }

    #[test]
    fn fields() {
        let terms = |text| FieldSelector::parse(text).unwrap().terms;
        assert_eq!(terms("b=c,a!=1"), [("a".into(), "1".into(), false), ("b".into(), "c".into(), true)]);
        assert_eq!(terms(r"a=b\,c\=d"), [("a".into(), "b,c=d".into(), true)]);
        assert_eq!(terms("a==b"), [("a".into(), "b".into(), true)]);
        assert_eq!(terms("=a"), [(String::new(), "a".into(), true)]);
        for (text, error) in [
            ("nonsense", "invalid selector: 'nonsense'; can't understand 'nonsense'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().0, error);
        }
    }
}
