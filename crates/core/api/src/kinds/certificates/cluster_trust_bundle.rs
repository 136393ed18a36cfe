//! `certificates.k8s.io/v1` ClusterTrustBundle.

use crate::kinds::rows;
use crate::meta;
use crate::names;
use crate::rules::Rules;
use crate::tree::Tree;
use schema::field::{ErrorList, Path};
use serde_json::Value;

pub static RULES: Rules = Rules {
    validate: name,
    validate_update: |new, _| name(new),
    // It follows the signer.
    validate_name: |_, _| Vec::new(),
    unconditional_update: false,
    ..rows::CLUSTER_TRUST_BUNDLE
};

fn name(bundle: &Value) -> ErrorList {
    let signer = bundle["spec"].text("signerName");
    let path = Path::new("metadata");
    let (own, base) = (meta::name(bundle), meta::generate_name(bundle));
    let mut found = ErrorList::new();
    if !base.is_empty() {
        let messages = names::cluster_trust_bundle_name(signer, base, true);
        found.extend(names::errors(&path.child("generateName"), base, messages));
    }
    if !own.is_empty() {
        let messages = names::cluster_trust_bundle_name(signer, own, false);
        found.extend(names::errors(&path.child("name"), own, messages));
    }
    found
}
