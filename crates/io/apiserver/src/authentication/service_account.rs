//! Names of service accounts as users (apiserver `authentication/serviceaccount`).

const USER_PREFIX: &str = "system:serviceaccount:";

pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of a service account's user name.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    let valid = is_label(namespace) && !name.contains(':') && name.len() <= 253 && name.split('.').all(is_label_part);
    valid.then_some((namespace, name))
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_part(text)
}

/// A DNS label of any length.
fn is_label_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}
