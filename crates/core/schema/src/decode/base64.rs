//! Standard base64 as Go's `encoding/base64` reads it, with the position of what is wrong.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text as Go writes the decoded bytes again.
///
/// # Errors
/// `illegal base64 data at input byte N`.
pub(super) fn normal(text: &str) -> Result<String, String> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        // Go does not mind bits left over in the last character.
        Err(base64::DecodeError::InvalidLastSymbol(..)) => lenient(&compact),
        Err(_) => Err(format!("illegal base64 data at input byte {}", fault(text.as_bytes()))),
    }
}

fn lenient(compact: &str) -> Result<String, String> {
    use base64::alphabet;
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    let engine =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let bytes = engine.decode(compact).map_err(|_| "illegal base64 data at input byte 0".to_owned())?;
    Ok(STANDARD.encode(bytes))
}

/// The offset that Go's `decodeQuantum` reports: of the first bad character, or where the quantum that ends too early began.
fn fault(input: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < 4 {
            let Some(&byte) = input.get(at) else {
                // The input ends inside a quantum: Go points to its start.
                return if filled == 0 { at } else { at - filled };
            };
            at += 1;
            match byte {
                b'\r' | b'\n' => continue,
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => filled += 1,
                b'=' if filled >= 2 => {
                    let newline = |at: &usize| matches!(input.get(*at), Some(b'\r' | b'\n'));
                    while newline(&at) {
                        at += 1;
                    }
                    if filled == 2 {
                        match input.get(at) {
                            None => return input.len(),
                            Some(b'=') => at += 1,
                            Some(_) => return at,
                        }
                        while newline(&at) {
                            at += 1;
                        }
                    }
                    return at;
                }
                _ => return at - 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        for (text, expected) in [
            ("YQ==", Ok("YQ==")),
            ("YWJj\n", Ok("YWJj")),
            ("YR==", Ok("YQ==")),
            ("", Ok("")),
            ("!!!", Err(0)),
            ("not base64!", Err(3)),
            ("YQ", Err(0)),
            ("YWJjY", Err(4)),
            ("YQ=", Err(3)),
            ("YQ==x", Err(4)),
        ] {
            let expected = match expected {
                Ok(text) => Ok(text.to_owned()),
                Err(at) => Err(format!("illegal base64 data at input byte {at}")),
            };
            assert_eq!(normal(text), expected, "{text}");
        }
    }
}
