//! Files of variables that a container wrote for others (KEP-3721, upstream `pkg/kubelet/util/env`).

/// Not a file of `KEY='value'` lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The value of `key` in a file of `KEY='value'` lines: values stand in single quotes and may go
/// over several lines; what comes after the key is not looked at. `None`: it is not there, or empty.
///
/// # Errors
/// A line before the key's is none of these.
pub(crate) fn value(content: &str, key: &str) -> Result<Option<String>, Malformed> {
    let mut rest = content;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim_end_matches('\r').trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            rest = after;
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(Malformed)?;
        if name.is_empty() || name.ends_with([' ', '\t']) {
            return Err(Malformed);
        }
        if value.starts_with([' ', '\t']) {
            // As a shell has it: the variable is empty.
            if name == key {
                return Ok(None);
            }
            rest = after;
            continue;
        }
        // From here on lines no longer count, until the value's end.
        let start = rest.find('=').ok_or(Malformed)? + 1;
        let value = rest[start..].strip_prefix('\'').ok_or(Malformed)?;
        let (value, behind) = value.split_once('\'').ok_or(Malformed)?;
        let (behind, next) = behind.split_once('\n').unwrap_or((behind, ""));
        let behind = behind.trim_end_matches('\r').trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(Malformed);
        }
        if name == key {
            return Ok(Some(value.replace("\r\n", "\n")).filter(|value| !value.is_empty()));
        }
        rest = next;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{Malformed, value};

    /// The cases of upstream's table.
    #[test]
    fn values() {
        for (content, key, expected) in [
            ("   A='1'\n\t\tB='2'\nC='3'\n", "B", Ok(Some("2"))),
            ("# c\n\nA='foo'\n   # another\n\nB='bar'\n", "B", Ok(Some("bar"))),
            ("A = '1'\nB='2'\n", "B", Err(Malformed)),
            ("A='1'\nB =  '2'\n", "A", Ok(Some("1"))),
            ("A= '1'\nB='2'\n", "A", Ok(None)),
            ("A= '1'\nB='2'\n", "B", Ok(Some("2"))),
            ("A='foo'\n", "C", Ok(None)),
            ("A='foo#no'\n", "A", Ok(Some("foo#no"))),
            ("A='  foo bar  ' # yes\n", "A", Ok(Some("  foo bar  "))),
            ("A='one\ntwo=''\n", "A", Err(Malformed)),
            ("A='one\n  two'\nB='3'", "A", Ok(Some("one\n  two"))),
            ("A='one\nB=2'\nB='3'", "B", Ok(Some("3"))),
            ("A='one", "A", Err(Malformed)),
            ("A='one' two", "A", Err(Malformed)),
            ("A=\"one\"", "A", Err(Malformed)),
            ("A=one", "A", Err(Malformed)),
            ("A", "A", Err(Malformed)),
            ("='1'", "A", Err(Malformed)),
            ("A=''\r\nB='2'\r\n", "B", Ok(Some("2"))),
            ("A=''", "A", Ok(None)),
        ] {
            assert_eq!(
                value(content, key).map(|value| value.as_deref().map(str::to_owned)),
                expected.map(|value| value.map(str::to_owned)),
                "{content:?} {key}"
            );
        }
    }
}
