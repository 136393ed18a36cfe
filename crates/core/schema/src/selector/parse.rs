//! The grammar of label selectors (apimachinery `labels.Parse`), token by token as upstream reads them.

use super::{Operator, Requirement, SelectorError};
use crate::field::{ErrorList, Path, invalid};
use crate::labels;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Identifier,
    /// `in`, `notin`: names, too, where a value is expected.
    Word,
    /// One of `) , ! == = > < != (`.
    Symbol(&'static str),
    Wrong,
    End,
}

const SYMBOLS: [&str; 9] = [")", ",", "!", "==", "=", ">", "<", "!=", "("];

fn is_special(c: char) -> bool {
    "=!(),><".contains(c)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn scan(text: &str) -> Vec<(Token, String)> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next().filter(|c| *c != '\0') {
        let (item, length) = if is_special(first) {
            symbol(rest)
        } else {
            let length = rest.find(|c| is_special(c) || is_space(c) || c == '\0').unwrap_or(rest.len());
            let word = &rest[..length];
            let token = if matches!(word, "in" | "notin") { Token::Word } else { Token::Identifier };
            ((token, word.to_owned()), length)
        };
        items.push(item);
        rest = rest[length..].trim_start_matches(is_space);
    }
    items.push((Token::End, String::new()));
    items
}

/// The longest symbol that the text begins with, and how far upstream reads for it.
fn symbol(text: &str) -> ((Token, String), usize) {
    let run: String = text.chars().take_while(|c| is_special(*c)).collect();
    let mut last = None;
    for end in 1..=run.len() {
        match SYMBOLS.iter().find(|s| **s == &run[..end]) {
            Some(symbol) => last = Some((*symbol, end)),
            None if last.is_some() => break,
            None => {}
        }
    }
    match last {
        Some((symbol, end)) => ((Token::Symbol(symbol), symbol.to_owned()), end),
        None => ((Token::Wrong, format!("error expected: keyword found '{run}'")), run.len()),
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { items: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.look() {
            (Token::Identifier | Token::Word | Token::Symbol("!"), _) => {
                let requirement =
                    parser.requirement().map_err(|e| wrong(format!("unable to parse requirement: {e}")))?;
                requirements.push(requirement);
                match parser.next() {
                    (Token::End, _) => break,
                    (Token::Symbol(","), _) => {
                        let (token, literal) = parser.look();
                        if !matches!(token, Token::Identifier | Token::Word | Token::Symbol("!")) {
                            return Err(wrong(format!("found '{literal}', expected: identifier after ','")));
                        }
                    }
                    (_, literal) => {
                        return Err(wrong(format!("found '{literal}', expected: ',' or 'end of string'")));
                    }
                }
            }
            (Token::End, _) => break,
            (_, literal) => {
                return Err(wrong(format!("found '{literal}', expected: !, identifier, or 'end of string'")));
            }
        }
    }
    requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
    Ok(requirements)
}

fn wrong(text: String) -> SelectorError {
    SelectorError(text)
}

struct Parser {
    items: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    fn look(&self) -> (Token, String) {
        self.items.get(self.at).cloned().unwrap_or((Token::End, String::new()))
    }

    fn next(&mut self) -> (Token, String) {
        let item = self.look();
        self.at += 1;
        item
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.next();
        let absent = token == Token::Symbol("!");
        if absent {
            (token, key) = self.next();
        }
        if !matches!(token, Token::Identifier | Token::Word) {
            return Err(wrong(format!("found '{key}', expected: identifier")));
        }
        let messages = labels::key_errors(&key);
        if !messages.is_empty() {
            return Err(wrong(invalid(&Path::default(), key, &messages.join("; ")).to_string()));
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look().0, Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            (Token::Word, word) if word == "in" => Operator::In,
            (Token::Word, _) => Operator::NotIn,
            (Token::Symbol("="), _) => Operator::Equals,
            (Token::Symbol("=="), _) => Operator::DoubleEquals,
            (Token::Symbol("!="), _) => Operator::NotEquals,
            (Token::Symbol(">"), _) => Operator::GreaterThan,
            (Token::Symbol("<"), _) => Operator::LessThan,
            (_, literal) => {
                return Err(wrong(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt")));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        Requirement::new(key, operator, values.into_iter().collect())
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.look().0, Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier | Token::Word, literal) => Ok(literal),
            (_, literal) => Err(wrong(format!("found '{literal}', expected: identifier"))),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let (token, literal) = self.next();
        if token != Token::Symbol("(") {
            return Err(wrong(format!("found '{literal}' expected: '('")));
        }
        match self.look() {
            (Token::Symbol(")"), _) => {
                self.next();
                Ok(BTreeSet::from([String::new()]))
            }
            (Token::Identifier | Token::Word | Token::Symbol(","), literal) => {
                let values = self.identifiers()?;
                if self.next().0 == Token::Symbol(")") {
                    Ok(values)
                } else {
                    Err(wrong(format!("found '{literal}', expected: ')'")))
                }
            }
            (_, literal) => Err(wrong(format!("found '{literal}', expected: ',', ')' or identifier"))),
        }
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier | Token::Word, literal) => {
                    values.insert(literal);
                    match self.look() {
                        (Token::Symbol(","), _) => {}
                        (Token::Symbol(")"), _) => return Ok(values),
                        (_, literal) => return Err(wrong(format!("found '{literal}', expected: ',' or ')'"))),
                    }
                }
                (Token::Symbol(","), _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    let (token, _) = self.look();
                    if matches!(token, Token::Symbol(")" | ",")) {
                        values.insert(String::new());
                    }
                    if token == Token::Symbol(")") {
                        return Ok(values);
                    }
                }
                (_, literal) => return Err(wrong(format!("found '{literal}', expected: ',', or identifier"))),
            }
        }
    }
}

/// What is wrong with a requirement, as `NewRequirement` says it.
pub(super) fn check(key: &str, operator: Operator, values: &[String]) -> Result<(), SelectorError> {
    let mut errors: ErrorList = Vec::new();
    let messages = labels::key_errors(key);
    if !messages.is_empty() {
        errors.push(invalid(&Path::new("key"), key, &messages.join("; ")));
    }
    let path = Path::new("values");
    let shown = || serde_json::Value::from(values.to_vec());
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            errors.push(invalid(&path, shown(), "for 'in', 'notin' operators, values set can't be empty"));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            errors.push(invalid(&path, shown(), "values set must be empty for exists and does not exist"));
        }
        Operator::GreaterThan | Operator::LessThan => {
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(invalid(&path.index(i), value.as_str(), detail));
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let messages = labels::value_errors(value);
        if !messages.is_empty() {
            errors.push(invalid(&path.index(i).key(key), value.as_str(), &messages.join("; ")));
        }
    }
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.dedup();
    match &texts[..] {
        [] => Ok(()),
        [one] => Err(wrong(one.clone())),
        many => Err(wrong(format!("[{}]", many.join(", ")))),
    }
}
