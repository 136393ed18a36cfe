//! YAML text to a [`Tree`], resolved as go-yaml v2 does (YAML 1.1: `yes` is a boolean, `0644` octal) and with the keys in
//! order, because upstream converts YAML to JSON first.

use super::{DecodeError, MAX_DEPTH};
use crate::tree::Tree;
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::collections::BTreeMap;

/// The first document, and what a strict converter says of duplicate keys.
pub(super) fn parse(bytes: &[u8]) -> Result<(Tree, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| fail("invalid leading UTF-8 octet"))?;
    let document = compose(text)?;
    let mut expander =
        Expander { document: &document, decoded: 0, aliased: 0, alias_depth: 0, open: Vec::new(), doubles: Vec::new() };
    let tree = match document.root {
        Some(root) => expander.node(root, 0)?,
        None => Tree::Null,
    };
    let strict = if expander.doubles.is_empty() {
        Vec::new()
    } else {
        vec![format!("yaml: unmarshal errors:\n  {}", expander.doubles.join("\n  "))]
    };
    Ok((tree, strict))
}

fn fail(message: &str) -> DecodeError {
    DecodeError(format!("yaml: {message}"))
}

struct Document {
    nodes: Vec<Node>,
    root: Option<usize>,
    anchors: BTreeMap<usize, usize>,
}

struct Node {
    line: usize,
    kind: Kind,
}

enum Kind {
    Scalar {
        text: String,
        plain: bool,
        tag: Option<String>,
    },
    List(Vec<usize>),
    /// Keys and values in turn.
    Map(Vec<usize>),
    Alias(usize),
}

/// Upstream's words for what the scanner finds, where they are known.
fn scan_error(error: &granit_parser::ScanError) -> DecodeError {
    use granit_parser::ErrorKind as K;
    let message = match error.kind() {
        K::UnexpectedCharacter { .. } | K::TabNotAllowed | K::TabInBlockIndentation | K::TabInIndentation => {
            "found character that cannot start any token".to_owned()
        }
        K::MappingValueNotAllowed => "mapping values are not allowed in this context".to_owned(),
        K::SimpleKeyExpected | K::InvalidSimpleKey => "could not find expected ':'".to_owned(),
        K::ExpectedBlockMappingKey => "did not find expected key".to_owned(),
        K::ExpectedBlockSequenceEntry => "did not find expected '-' indicator".to_owned(),
        K::ExpectedFlowSequenceSeparator | K::UnexpectedEofFlowSequence => {
            "did not find expected ',' or ']'".to_owned()
        }
        K::ExpectedFlowMappingSeparator | K::UnexpectedEofFlowMapping => "did not find expected ',' or '}'".to_owned(),
        K::TabInPlainScalar => "found a tab character that violates indentation".to_owned(),
        K::UnclosedFlowCollection { open: '[' } => "did not find expected ',' or ']'".to_owned(),
        K::UnclosedFlowCollection { .. } => "did not find expected ',' or '}'".to_owned(),
        K::ExpectedNodeContent => "did not find expected node content".to_owned(),
        K::BlockSequenceEntryNotAllowed => "block sequence entries are not allowed in this context".to_owned(),
        K::UnclosedQuotedScalar => "found unexpected end of stream".to_owned(),
        K::UnknownQuotedScalarEscape => "found unknown escape character".to_owned(),
        _ => error.info(),
    };
    // go-yaml counts lines from 0, adds one for the scanner's errors and not for the parser's, and leaves a 0 out.
    let of_parser = message.starts_with("did not find expected");
    match error.marker().line().saturating_sub(usize::from(of_parser)) {
        0 => fail(&message),
        1 if !of_parser => fail(&message),
        line => fail(&format!("line {line}: {message}")),
    }
}

/// Reads the events of the first document into nodes.
fn compose(text: &str) -> Result<Document, DecodeError> {
    let mut document = Document { nodes: Vec::new(), root: None, anchors: BTreeMap::new() };
    let mut open: Vec<usize> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (Kind::Scalar { text: text.into_owned(), plain, tag: tag.map(|t| short_tag(&t)) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Kind::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => (Kind::Map(Vec::new()), anchor),
            Event::Alias(id) => (Kind::Alias(id), 0),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                continue;
            }
            Event::DocumentEnd => break,
            _ => continue,
        };
        let nests = matches!(kind, Kind::List(_) | Kind::Map(_));
        let id = add(&mut document, open.last().copied(), kind, span);
        if anchor != 0 {
            document.anchors.insert(anchor, id);
        }
        if nests {
            open.push(id);
            if open.len() > MAX_DEPTH {
                return Err(fail("exceeded max depth"));
            }
        }
    }
    Ok(document)
}

fn add(document: &mut Document, parent: Option<usize>, kind: Kind, span: Span) -> usize {
    let id = document.nodes.len();
    document.nodes.push(Node { line: span.start.line(), kind });
    match parent.map(|parent| &mut document.nodes[parent].kind) {
        Some(Kind::List(items) | Kind::Map(items)) => items.push(id),
        _ => document.root = Some(id),
    }
    id
}

/// `!!str`, `!local`.
fn short_tag(tag: &Tag) -> String {
    let whole = format!("{}{}", tag.handle(), tag.suffix());
    match whole.strip_prefix("tag:yaml.org,2002:") {
        Some(rest) => format!("!!{rest}"),
        None => whole,
    }
}

struct Expander<'d> {
    document: &'d Document,
    decoded: u64,
    aliased: u64,
    alias_depth: u32,
    /// The aliases being expanded.
    open: Vec<usize>,
    doubles: Vec<String>,
}

impl<'d> Expander<'d> {
    fn node(&mut self, id: usize, depth: usize) -> Result<Tree, DecodeError> {
        self.count()?;
        if depth > MAX_DEPTH {
            return Err(fail("exceeded max depth"));
        }
        let document: &'d Document = self.document;
        match &document.nodes[id].kind {
            Kind::Scalar { text, plain, tag } => scalar(text, *plain, tag.as_deref()),
            Kind::List(items) => {
                let items = items.iter().map(|item| self.node(*item, depth + 1)).collect::<Result<_, _>>()?;
                Ok(Tree::List(items))
            }
            Kind::Map(items) => {
                let mut map = BTreeMap::new();
                self.map(items, depth, &mut map)?;
                Ok(Tree::Map(map.into_iter().collect()))
            }
            Kind::Alias(anchor) => {
                let target = self.target(*anchor)?;
                self.open.push(target);
                self.alias_depth += 1;
                let tree = self.node(target, depth + 1)?;
                self.alias_depth -= 1;
                self.open.pop();
                Ok(tree)
            }
        }
    }

    fn target(&self, anchor: usize) -> Result<usize, DecodeError> {
        let target = *self.document.anchors.get(&anchor).ok_or_else(|| fail("unknown anchor referenced"))?;
        if self.open.contains(&target) { Err(fail("anchor value contains itself")) } else { Ok(target) }
    }

    /// go-yaml's guard against documents that are mostly aliases of aliases.
    fn count(&mut self) -> Result<(), DecodeError> {
        self.decoded += 1;
        if self.alias_depth > 0 {
            self.aliased += 1;
        }
        let allowed_percent = match self.decoded {
            ..=400_000 => 99,
            4_000_000.. => 10,
            more => 99 - 89 * (more - 400_000) / 3_600_000,
        };
        if self.aliased > 100 && self.decoded > 1000 && self.aliased * 100 > self.decoded * allowed_percent {
            return Err(fail("document contains excessive aliasing"));
        }
        Ok(())
    }

    fn map(&mut self, items: &[usize], depth: usize, map: &mut BTreeMap<String, Tree>) -> Result<(), DecodeError> {
        for pair in items.chunks(2) {
            let &[key, value] = pair else { continue };
            if self.is_merge(key) {
                self.merge(value, depth, map)?;
                continue;
            }
            let (name, shown) = key_text(&self.node(key, depth + 1)?)?;
            let tree = self.node(value, depth + 1)?;
            if map.insert(name, tree).is_some() {
                let line = self.document.nodes[value].line;
                self.doubles.push(format!("line {line}: key {shown} already set in map"));
            }
        }
        Ok(())
    }

    fn is_merge(&self, id: usize) -> bool {
        match &self.document.nodes[id].kind {
            Kind::Scalar { text, plain, tag } => {
                text == "<<" && (*plain && tag.is_none() || tag.as_deref() == Some("!!merge"))
            }
            _ => false,
        }
    }

    fn merge(&mut self, id: usize, depth: usize, map: &mut BTreeMap<String, Tree>) -> Result<(), DecodeError> {
        let want = || fail("map merge requires map or sequence of maps as the value");
        self.count()?;
        if depth > MAX_DEPTH {
            return Err(fail("exceeded max depth"));
        }
        let document: &'d Document = self.document;
        match &document.nodes[id].kind {
            Kind::Map(items) => self.map(items, depth, map),
            Kind::Alias(anchor) => {
                let target = self.target(*anchor)?;
                if !matches!(document.nodes[target].kind, Kind::Map(_)) {
                    return Err(want());
                }
                self.open.push(target);
                self.alias_depth += 1;
                self.merge(target, depth + 1, map)?;
                self.alias_depth -= 1;
                self.open.pop();
                Ok(())
            }
            Kind::List(items) => {
                for item in items.iter().rev() {
                    if matches!(document.nodes[*item].kind, Kind::List(_) | Kind::Scalar { .. }) {
                        return Err(want());
                    }
                    self.merge(*item, depth + 1, map)?;
                }
                Ok(())
            }
            Kind::Scalar { .. } => Err(want()),
        }
    }
}

/// A key as text, and as Go prints it in the error about duplicates.
fn key_text(key: &Tree) -> Result<(String, String), DecodeError> {
    match key {
        Tree::String(text) => Ok((text.clone(), crate::field::go_quote(text))),
        Tree::Number(text) => Ok((text.clone(), text.clone())),
        Tree::Bool(value) => Ok((value.to_string(), value.to_string())),
        Tree::Null => Err(DecodeError("unsupported map key of type: %!s(<nil>)".to_owned())),
        Tree::List(_) | Tree::Map(_) => Err(fail("invalid map key")),
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Result<Tree, DecodeError> {
    match tag {
        None if !plain => return Ok(Tree::String(text.to_owned())),
        Some("!!str" | "!") => return Ok(Tree::String(text.to_owned())),
        Some("!!binary") => {
            use base64::Engine;
            let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(compact)
                .map_err(|_| fail("!!binary value contains invalid base64 data"))?;
            return Ok(Tree::String(String::from_utf8_lossy(&bytes).into_owned()));
        }
        None | Some("!!bool" | "!!int" | "!!float" | "!!null" | "!!timestamp") => {}
        Some(_) => return Ok(Tree::String(text.to_owned())),
    }
    if let Some(value) = not_finite(text) {
        return Err(DecodeError(format!("json: unsupported value: {value}")));
    }
    let resolved = resolve(text);
    let found = match &resolved {
        Tree::Null => "!!null",
        Tree::Bool(_) => "!!bool",
        Tree::Number(n) if n.bytes().all(|b| b.is_ascii_digit() || b == b'-') => "!!int",
        Tree::Number(_) => "!!float",
        _ => "!!str",
    };
    match tag {
        Some("!!timestamp") => Ok(Tree::String(text.to_owned())),
        Some(tag) if tag != found && !(tag == "!!float" && found == "!!int") => {
            Err(fail(&format!("cannot decode {found} `{text}` as a {tag}")))
        }
        _ => Ok(resolved),
    }
}

/// Floats that YAML has and JSON has not.
fn not_finite(text: &str) -> Option<&'static str> {
    Some(match text {
        ".nan" | ".NaN" | ".NAN" => "NaN",
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "+Inf",
        "-.inf" | "-.Inf" | "-.INF" => "-Inf",
        _ => return None,
    })
}

/// A plain scalar by go-yaml's table.
fn resolve(text: &str) -> Tree {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Tree::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Tree::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => Tree::Null,
        _ => match text.as_bytes()[0] {
            b'+' | b'-' | b'0'..=b'9' => {
                let compact = text.replace('_', "");
                integer(&compact).or_else(|| float(&compact)).unwrap_or_else(|| Tree::String(text.to_owned()))
            }
            b'.' => float(text).unwrap_or_else(|| Tree::String(text.to_owned())),
            _ => Tree::String(text.to_owned()),
        },
    }
}

/// Go's `ParseInt(text, 0, 64)`: decimal, `0x`, `0o`, `0b`, and a leading zero for octal.
fn integer(text: &str) -> Option<Tree> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    (value >= i128::from(i64::MIN)).then(|| Tree::Number(value.to_string()))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, written as JSON writes a float.
fn float(text: &str) -> Option<Tree> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|v: &f64| v.is_finite())?;
    Some(Tree::Number(crate::tree::float(value).to_string()))
}
