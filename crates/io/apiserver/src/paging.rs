//! Continue tokens: where a list in pages goes on (apiserver `storage/continue.go`; the same form, so that tokens of
//! upstream's API servers on the same store work).

use crate::errors::{self, Result};
use crate::refusal::Refusal;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// As lenient as Go's `RawURLEncoding`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: i64,
    #[serde(default)]
    start: String,
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    /// 0: at the present revision (after the first one was compacted).
    pub revision: u64,
    /// The first key to show.
    pub start: String,
}

/// A token for the page behind `last`, a key below `prefix`; `revision` 0 makes an inconsistent one.
pub(crate) fn encode(prefix: &str, last: &str, revision: u64) -> String {
    let start = format!("{}\0", last.strip_prefix(prefix).unwrap_or(last));
    let revision = if revision == 0 { -1 } else { i64::try_from(revision).unwrap_or(i64::MAX) };
    let token = Token { version: "meta.k8s.io/v1".to_owned(), revision, start };
    BASE64.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// Reads a token for a list below `prefix`.
pub(crate) fn decode(text: &str, prefix: &str) -> Result<Continue> {
    let invalid =
        |why: String| Refusal::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = BASE64.decode(text).map_err(|e| invalid(illegal_base64(&e)))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid(not_json(&bytes)))?;
    if token.version != "meta.k8s.io/v1" {
        return Err(invalid(format!(
            "server does not recognize this encoded version {}",
            errors::quoted(&token.version)
        )));
    }
    if token.revision == 0 {
        return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned()));
    }
    if token.start.is_empty() {
        return Err(invalid("encoded start key empty (version meta.k8s.io/v1)".to_owned()));
    }
    // Nothing may lead out of the prefix.
    if token.start.split('/').any(|part| part == "..") || token.start.starts_with('/') {
        return Err(invalid(token.start));
    }
    Ok(Continue { revision: u64::try_from(token.revision).unwrap_or(0), start: format!("{prefix}{}", token.start) })
}

fn illegal_base64(error: &base64::DecodeError) -> String {
    let offset = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(at) => *at,
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {offset}")
}

/// Go's words for the first byte of what is no JSON.
fn not_json(bytes: &[u8]) -> String {
    match bytes.first() {
        None => "unexpected end of JSON input".to_owned(),
        Some(byte) if byte.is_ascii_graphic() => {
            format!("invalid character '{}' looking for beginning of value", char::from(*byte))
        }
        Some(byte) => format!("invalid character '\\u{byte:04x}' looking for beginning of value"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens() {
        let token = encode("/registry/pods/", "/registry/pods/a/x", 7);
        let read = decode(&token, "/registry/pods/").unwrap();
        assert_eq!(read, Continue { revision: 7, start: "/registry/pods/a/x\0".into() });
        let refused = decode("garbage", "/registry/pods/").unwrap_err();
        assert_eq!(
            refused.message,
            "invalid continue token: continue key is not valid: invalid character '\\u0081' looking for beginning of value"
        );
    }
}
