//! downwardAPI and projected volumes (upstream `validateProjectionSources`).

use super::{default_mode, field_ref, file_mode, key_to_path, non_reserved, resource_field_ref, user};
use crate::internal;
use crate::kinds::core::pod::validate::Lenient;
use crate::meta::validate_label_selector;
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, forbidden, invalid, not_supported, required, too_long};
use serde_json::Value;
use std::collections::BTreeSet;

const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// A downwardAPI volume. Upstream names the volume, not the item, in errors of items.
pub(super) fn downward_api(source: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    default_mode(&mut found, source, path);
    for item in source.list("items") {
        found.extend(downward_item(item, path));
    }
    found
}

fn downward_item(item: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    if item.text("path").is_empty() {
        found.push(required(&path.child("path"), ""));
    }
    found.extend(non_reserved(item.text("path"), &path.child("path")));
    if let Some(reference) = item.field("fieldRef") {
        found.extend(field_ref(reference, &DOWNWARD_FIELDS, &path.child("fieldRef")));
        if item.has("resourceFieldRef") {
            let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
            found.push(invalid(path, "resource", text));
        }
    } else if let Some(reference) = item.field("resourceFieldRef") {
        found.extend(resource_field_ref(reference, true, &path.child("resourceFieldRef")));
    } else {
        found.push(required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    found.extend(file_mode(item, "mode", path));
    found.extend(user(item, "user", path));
    found
}

/// The paths that the sources of one volume write.
#[derive(Default)]
struct Paths<'a>(BTreeSet<&'a str>);

impl<'a> Paths<'a> {
    /// `shown` is what upstream prints for a path that another source writes too.
    fn add(&mut self, target: &'a str, shown: &str, volume: &Path, found: &mut ErrorList) {
        if !self.0.insert(target) {
            found.push(invalid(volume, shown, "conflicting duplicate paths"));
        }
    }
}

pub(super) fn projected(source: &Value, path: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    default_mode(&mut found, source, path);
    let mut paths = Paths::default();
    for (i, one) in source.list("sources").iter().enumerate() {
        let at = path.child("sources").index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(keys) = one.field(kind) else { continue };
            count += 1;
            let at = at.child(kind);
            if keys.text("name").is_empty() {
                found.push(required(&at.child("name"), ""));
            }
            for (j, item) in keys.list("items").iter().enumerate() {
                found.extend(key_to_path(item, &at.child("items").index(j)));
                if !item.text("path").is_empty() {
                    paths.add(item.text("path"), keys.text("name"), path, &mut found);
                }
            }
        }
        if let Some(downward) = one.field("downwardAPI") {
            count += 1;
            for item in downward.list("items") {
                found.extend(downward_item(item, &at.child("downwardAPI")));
                if !item.text("path").is_empty() {
                    paths.add(item.text("path"), item.text("path"), path, &mut found);
                }
            }
        }
        if let Some(token) = one.field("serviceAccountToken") {
            count += 1;
            found.extend(account_token(token, &at.child("serviceAccountToken"), path, lenient));
        }
        if let Some(bundle) = one.field("clusterTrustBundle") {
            count += 1;
            found.extend(trust_bundle(bundle, &at.child("clusterTrustBundle")));
            paths.add(bundle.text("path"), bundle.text("path"), path, &mut found);
        }
        if let Some(certificate) = one.field("podCertificate") {
            count += 1;
            found.extend(pod_certificate(certificate, &at.child("podCertificate")));
            let mut any = false;
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let target = certificate.text(field);
                if !target.is_empty() {
                    any = true;
                    found.extend(non_reserved(target, &at.child("podCertificate").child(field)));
                    paths.add(target, target, path, &mut found);
                }
            }
            if !any {
                let text = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
                found.push(required(&at.child("podCertificate"), text));
            }
        }
        if count > 1 {
            found.push(forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
    found
}

fn account_token(token: &Value, path: &Path, volume: &Path, lenient: Lenient) -> ErrorList {
    let mut found = ErrorList::new();
    let at = path.child("expirationSeconds");
    match token.int_opt("expirationSeconds") {
        None => found.push(required(&at, "")),
        Some(seconds) if seconds < 600 => {
            found.push(invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        Some(seconds) if seconds > 1 << 32 => {
            found.push(invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        Some(_) => {}
    }
    if token.text("path").is_empty() {
        found.push(required(&volume.child("path"), ""));
    } else if !lenient.token_paths {
        found.extend(non_reserved(token.text("path"), &volume.child("path")));
    }
    found.extend(user(token, "user", path));
    found
}

fn trust_bundle(bundle: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    match (bundle.text_opt("name"), bundle.text_opt("signerName")) {
        (Some(_), Some(_)) => {
            let text = "only one of name and signerName may be used";
            found.push(internal::invalid(path, "ClusterTrustBundleProjection", bundle, text));
        }
        (Some(name), None) => {
            if name.is_empty() {
                found.push(required(&path.child("name"), "must be a valid object name"));
            }
            let signer = name.rsplit_once(':').map_or(String::new(), |(signer, _)| signer.replace(':', "/"));
            for message in names::cluster_trust_bundle_name(&signer, name, false) {
                let text = format!("not a valid clustertrustbundlename: {message}");
                found.push(invalid(&path.child("name"), name, &text));
            }
            if let Some(selector) = bundle.field("labelSelector") {
                let text = "labelSelector must be unset if name is specified";
                found.push(internal::invalid(&path.child("labelSelector"), "metav1.LabelSelector", selector, text));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                found.push(required(&path.child("signerName"), "must be a valid signer name"));
            }
            found.extend(names::signer_name(&path.child("signerName"), signer));
            found.extend(validate_label_selector(bundle.field("labelSelector"), &path.child("labelSelector")));
        }
        (None, None) => found.push(required(path, "either name or signerName must be specified")),
    }
    if bundle.text("path").is_empty() {
        found.push(required(&path.child("path"), ""));
    }
    found.extend(user(bundle, "user", path));
    found.extend(non_reserved(bundle.text("path"), &path.child("path")));
    found
}

/// All of a podCertificate source but its paths.
fn pod_certificate(certificate: &Value, path: &Path) -> ErrorList {
    let signer = certificate.text("signerName");
    let mut found = names::signer_name(&path.child("signerName"), signer);
    let at = path.child("userAnnotations");
    let mut bytes = 0;
    for (key, value) in certificate.pairs("userAnnotations") {
        bytes += key.len() + value.len();
        let key = key.to_lowercase();
        if key.is_empty() {
            found.push(required(&at, ""));
            continue;
        }
        let messages = names::qualified_name(&key);
        if messages.is_empty() && !key.contains('/') {
            found.push(invalid(&at, key.clone(), "must be a domain-prefixed key (such as \"acme.io/foo\")"));
        }
        found.extend(names::errors(&at, &key, messages));
    }
    if bytes > 256 * 1024 {
        found.push(too_long(&at, 256 * 1024));
    }
    found.extend(user(certificate, "user", path));
    let kinds = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    if !kinds.contains(&certificate.text("keyType")) {
        found.push(not_supported(&path.child("keyType"), certificate.text("keyType"), &kinds));
    }
    if let Some(seconds) = certificate.int_opt("maxExpirationSeconds") {
        let at = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            found.push(invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        // A day for upstream's own signers, 91 days for others.
        let max = if names::is_kubernetes_signer(signer) { 86400 } else { 91 * 86400 };
        if seconds > max {
            found.push(invalid(&at, seconds, &format!("if provided, maxExpirationSeconds must be <= {max}")));
        }
    }
    found
}
