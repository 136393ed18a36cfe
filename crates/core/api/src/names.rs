//! Checks of names, with upstream's messages (apimachinery `util/validation`, `api/validation`).

/// `NameIsDNSSubdomain`. With `prefix`, a trailing `-` is allowed (generateName).
pub fn dns_subdomain_name(_name: &str, _prefix: bool) -> Vec<String> {
    unimplemented!()
}
