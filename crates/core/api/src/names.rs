//! Checks of names, with upstream's messages (apimachinery `util/validation`, `api/validation`, `api/validate/content`).
//!
//! Every check returns what is wrong, in upstream's order; nothing wrong is an empty list.

use schema::field::{ErrorList, Path, invalid, required, too_long};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_TEXT: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";

fn pattern(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let examples = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    format!("{text} (e.g. {examples}regex used for validation is '{regex}')")
}

fn max_bytes(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// Older checks of upstream count "characters" (and mean bytes).
fn max_characters(length: usize) -> String {
    format!("must be no more than {length} characters")
}

pub fn in_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Begins and ends with `edge`, and has only `inner` between.
fn edged(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| inner(*b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    edged(text, lower_alnum, |b| lower_alnum(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified_part(text: &str) -> bool {
    edged(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `IsDNS1123Label`.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push(max_characters(63));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            messages.push("must not contain dots".to_owned());
        } else {
            let text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            messages.push(pattern(text, LABEL, &["my-name", "123-abc"]));
        }
    }
    messages
}

fn subdomain(value: &str, max: fn(usize) -> String) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max(253));
    }
    if !is_subdomain(value) {
        messages.push(pattern(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"]));
    }
    messages
}

/// `IsDNS1123Subdomain`.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    subdomain(value, max_characters)
}

/// `IsDNS1123SubdomainWithUnderscore`.
pub fn dns_subdomain_underscore(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max_characters(253));
    }
    let label = |text: &str| {
        edged(text.strip_prefix('_').unwrap_or(text), lower_alnum, |b| lower_alnum(b) || matches!(b, b'-' | b'_'))
    };
    if !value.split('.').all(label) {
        let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let regex = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        messages.push(pattern(text, regex, &["example.com"]));
    }
    messages
}

/// `IsDNS1035Label`.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push(max_characters(63));
    }
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        let text = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        messages.push(pattern(text, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    messages
}

/// `IsWildcardDNS1123Subdomain`.
pub fn wildcard_dns_subdomain(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max_characters(253));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        let text = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        messages.push(pattern(text, &format!("\\*\\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    messages
}

/// `IsQualifiedName` (also called label key).
pub fn qualified_name(value: &str) -> Vec<String> {
    let parts: Vec<&str> = value.split('/').collect();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut messages = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(subdomain(prefix, max_bytes).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            let text = pattern(QUALIFIED_TEXT, QUALIFIED, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push(format!("name part {}", max_bytes(63)));
    }
    if !is_qualified_part(name) {
        messages.push(format!("name part {}", pattern(QUALIFIED_TEXT, QUALIFIED, &examples)));
    }
    messages
}

/// `IsValidLabelValue`.
pub fn label_value(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push(max_bytes(63));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        let text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        messages.push(pattern(text, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    messages
}

fn dot_dot(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// `IsRelaxedEnvVarName`: what 1.37 allows for environment variables.
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// `IsConfigMapKey`: keys of ConfigMaps and Secrets.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max_characters(253));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        messages.push(pattern(text, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    messages.extend(dot_dot(value));
    messages
}

/// `IsValidPortNum`.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![in_range(1, 65535)] }
}

/// `IsValidPortName`.
pub fn port_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > 15 {
        messages.push(max_characters(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower_alnum(b) || b == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// `IsValidUserID` and `IsValidGroupID`.
pub fn user_id(id: i64) -> Vec<String> {
    let max = i64::from(i32::MAX);
    if (0..=max).contains(&id) { Vec::new() } else { vec![in_range(0, max)] }
}

/// `IsValidPercent`.
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let text = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![pattern(text, "[0-9]+%", &["1%", "93%"])]
}

/// `IsHTTPHeaderName`.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let text = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern(text, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// `IsCIdentifier`.
pub fn c_identifier(value: &str) -> Vec<String> {
    let first = value.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Vec::new();
    }
    let text = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![pattern(text, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// `IsValidConditionReason`.
pub fn condition_reason(value: &str) -> Vec<String> {
    let first = value.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let last = value.bytes().next_back().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let inner = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':'));
    if first && inner && (value.len() == 1 || last) {
        return Vec::new();
    }
    let text = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![pattern(text, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}

/// `IsDecimalInteger`.
pub fn decimal_integer(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["must be non-empty".to_owned()];
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() && !digits.starts_with('0');
    if canonical || value == "0" {
        return Vec::new();
    }
    vec!["must be a valid decimal integer in canonical form".to_owned()]
}

/// `IsPathSegmentName`: names of kinds without stricter rules (RBAC, …).
pub fn path_segment_name(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A generateName may end in `-`, for something will follow.
fn without_trailing_dash(name: &str, prefix: bool) -> String {
    if prefix && name.len() > 1 && name.ends_with('-') {
        let kept: String = name.chars().take(name.chars().count() - 2).collect();
        return kept + "a";
    }
    name.to_owned()
}

/// `NameIsDNSSubdomain`. With `prefix`, a trailing `-` is allowed (generateName).
pub fn dns_subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    dns_subdomain(&without_trailing_dash(name, prefix))
}

/// Declarative `LongName`: as [`dns_subdomain_name`], but lengths are told in bytes, and nobody looks at `generateName`
/// (DeviceClass).
pub fn long_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix { Vec::new() } else { subdomain(name, max_bytes) }
}

/// `NameIsDNSLabel`: namespaces, services.
pub fn dns_label_name(name: &str, prefix: bool) -> Vec<String> {
    dns_label(&without_trailing_dash(name, prefix))
}

/// `NameIsDNS1035Label`.
pub fn dns_1035_label_name(name: &str, prefix: bool) -> Vec<String> {
    dns_1035_label(&without_trailing_dash(name, prefix))
}

/// `messages` as errors of `path`.
pub fn errors(path: &Path, value: &str, messages: Vec<String>) -> impl Iterator<Item = schema::field::FieldError> {
    messages.into_iter().map(move |message| invalid(path, value, &message))
}

/// `ValidateSignerName`.
pub fn signer_name(path: &Path, name: &str) -> ErrorList {
    let mut found = ErrorList::new();
    if name.is_empty() {
        return vec![required(path, "")];
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, tail] = segments[..] else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![invalid(path, name, text)];
    };
    if domain.len() > 253 {
        found.push(too_long(path, 253));
    }
    let mut labels = |part: &str, check: fn(&str) -> Vec<String>| {
        for label in part.split('.') {
            let messages = check(label);
            let bad = !messages.is_empty();
            found.extend(messages.iter().map(|m| invalid(path, part, &format!("validating label {label:?}: {m}"))));
            if bad {
                break;
            }
        }
        if std::ptr::eq(part, domain) && !part.contains('.') {
            found.push(invalid(path, part, "should be a domain with at least two segments separated by dots"));
        }
    };
    labels(domain, dns_label);
    labels(tail, dns_subdomain);
    if name.len() > 571 {
        found.push(too_long(path, 571));
    }
    found
}

/// `IsDomainPrefixedPath`: `acme.io/foo`.
pub fn domain_prefixed_path(path: &Path, value: &str) -> ErrorList {
    if value.is_empty() {
        return vec![required(path, "")];
    }
    let Some((host, rest)) = value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![invalid(path, value, detail)];
    };
    let mut found: ErrorList = errors(path, host, dns_subdomain(host)).collect();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/%!$&'()*+,;=:-._~".contains(&b);
    if !rest.bytes().all(fits) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        found.push(invalid(path, rest, detail));
    }
    found
}

/// `IsKubernetesSignerName`.
pub fn is_kubernetes_signer(name: &str) -> bool {
    let host = name.split('/').next().unwrap_or_default();
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

/// `ValidateClusterTrustBundleName`; `signer` is empty for bundles without one.
pub fn cluster_trust_bundle_name(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return dns_subdomain_name(name, prefix);
    }
    let wanted = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&wanted) {
        Some(rest) => dns_subdomain_name(rest, prefix),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}")],
    }
}

/// Go's `path.IsAbs`.
pub fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Valid and invalid names of one check, from upstream's own tables.
    fn table(check: fn(&str) -> Vec<String>, valid: &[&str], invalid: &[&str]) {
        for name in valid {
            assert_eq!(check(name), Vec::<String>::new(), "{name}");
        }
        for name in invalid {
            assert!(!check(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn labels_and_subdomains() {
        let long = "a".repeat(63);
        let valid = ["a", "ab", "abc", "a1", "a-1", "a--1--2--b", "0", "01", "012", "1a", "1-a", "1--a--b--2", &long];
        let invalid =
            ["", "A", "ABC", "aBc", "A1", "-", "a-", "-a", "1-", "_", "a_", "a_b", ".", "a.", "a.b", " ", "a b"];
        table(dns_label, &valid, &invalid);
        table(dns_label, &[], &[&"a".repeat(64)]);
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        table(dns_subdomain, &["a", "a.b", "0.1.a-b", &"a".repeat(253)], &["", "A", "a..b", ".a", "a.", "a.-b", "a_b"]);
        table(dns_subdomain, &[], &[&"a".repeat(254)]);
        table(dns_subdomain_underscore, &["_a.b", "a_b", "a.b_c"], &["__a", "a_", "A", "a..b"]);
        table(dns_1035_label, &["a", "a-1"], &["1a", "A", "-a", "a-", ""]);
        table(wildcard_dns_subdomain, &["*.a", "*.a.b"], &["*", "a.b", "*.", "*.A", "a.*"]);
    }

    #[test]
    fn qualified() {
        let valid = [
            "simple",
            "now-with-dashes",
            "1-starts-with-num",
            "1234",
            "example.com/simple",
            "1.2.3.4/5678",
            "A",
            "a_b.c",
        ];
        let invalid = ["", "/a", "a/", "a/b/c", "-a", "a-", "Example.com/a", "a b", "cantendwithadash-"];
        table(qualified_name, &valid, &invalid);
        table(
            qualified_name,
            &[&format!("{}/b", "a".repeat(253))],
            &[&"a".repeat(64), &format!("{}/b", "a".repeat(254))],
        );
        table(label_value, &["", "a", "1", "a_b.c-d", "A"], &["-a", "a-", "a b", "é", &"a".repeat(64)]);
    }

    #[test]
    fn words() {
        table(
            port_name,
            &["telnet", "re-mail-ck", "pop3", "a", "a-1", "1-a"],
            &["", "longerthan15characters", "12345", "-a", "a-", "a--b", "A"],
        );
        table(env_var_name, &["a", "1a", "a b", "-", "$()"], &["", "a=b", "é", "a\tb"]);
        table(config_map_key, &["a", "good.txt", "GOOD", "_", ".a"], &["", ".", "..", "..a", "a b", "a/b"]);
        table(percent, &["0%", "1%", "99%", "101%"], &["", "0", "%", "dog", "0%%", "-20%", "0.1%"]);
        table(http_header_name, &["Host", "X-Requested-With"], &["", ":authority", "Host:", "X Header"]);
        table(c_identifier, &["a", "_a", "A1"], &["", "1", "a.b", "a-b"]);
        table(condition_reason, &["a", "Ready", "A_b:C,d", "a1_"], &["", "1", "a-", "a,", "a b"]);
        table(decimal_integer, &["0", "1", "-1", "12345"], &["", "-", "00", "01", "-0", "+1", "1.0", "0x1"]);
    }

    #[test]
    fn generated_names_may_end_in_a_dash() {
        assert!(dns_subdomain_name("a-", true).is_empty());
        assert!(!dns_subdomain_name("a-", false).is_empty());
        assert!(dns_label_name("ab-", true).is_empty());
        assert!(!dns_label_name("a.b-", true).is_empty());
    }

    #[test]
    fn messages() {
        assert_eq!(
            label_value("-"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
    }
}
