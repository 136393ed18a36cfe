//! `WWW-Authenticate`: what a registry wants to know before it answers (RFC 9110, distribution's token specification).

use std::collections::BTreeMap;

/// One challenge: `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case.
    pub(crate) scheme: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Reads the challenges of one header value; what cannot be read ends the list.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (token, after) = take_token(rest);
        if token.is_empty() {
            break;
        }
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=') {
            let Some(challenge) = challenges.last_mut() else { break };
            let (value, after) = take_value(value.trim_start());
            challenge.parameters.insert(token.to_ascii_lowercase(), value);
            rest = after;
        } else {
            challenges.push(Challenge { scheme: token.to_ascii_lowercase(), parameters: BTreeMap::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn take_token(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    text.split_at(end)
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        for (header, expected) in [
            (r#"Basic realm="x y""#, "basic realm=x y"),
            (
                r#"Bearer realm="https://a/token",service="a",scope="repository:b:pull,push""#,
                "bearer realm=https://a/token scope=repository:b:pull,push service=a",
            ),
            (
                r#"Basic realm="a", Bearer realm=b , error="insufficient_scope""#,
                "basic realm=a; bearer error=insufficient_scope realm=b",
            ),
            (r#"Negotiate, Basic realm="a\"b""#, "negotiate; basic realm=a\"b"),
            (r#"Basic realm="unfinished"#, "basic realm=unfinished"),
            ("", ""),
            (r#"="x""#, ""),
        ] {
            let shown: Vec<String> = parse(header)
                .into_iter()
                .map(|c| c.parameters.iter().fold(c.scheme, |all, (k, v)| format!("{all} {k}={v}")))
                .collect();
            assert_eq!(shown.join("; "), expected, "{header}");
        }
    }
}
