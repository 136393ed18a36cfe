//! What mandatory access control asks for, where the node has it; refused by name where it cannot be had.

use super::c_string;
use crate::types::{AppArmor, RuntimeError, SecurityContext};
use std::ffi::CString;
use std::path::Path;

/// The profile that `RuntimeDefault` means. None is shipped: compiling one takes AppArmor's own tools.
const DEFAULT_PROFILE: &str = "minke-default";

/// What the node has of it.
struct Node {
    /// The loaded profiles; `None`: AppArmor is not enabled.
    profiles: Option<String>,
    selinux: bool,
}

impl Node {
    fn observe() -> Node {
        // As libcontainer's `apparmor.IsEnabled`.
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
            && Path::new("/sys/kernel/security/apparmor").exists();
        let profiles = enabled.then(|| std::fs::read_to_string("/sys/kernel/security/apparmor/profiles"));
        Node {
            profiles: profiles.map(Result::unwrap_or_default),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// The AppArmor profile to start under; empty: none.
///
/// # Errors
/// When the node cannot enforce what is asked for, in upstream's words (`pkg/security/apparmor/validate.go`, containerd).
pub(super) fn apparmor(security: &SecurityContext) -> Result<CString, RuntimeError> {
    if security.apparmor == AppArmor::Unconfined && security.selinux_label.is_empty() {
        return Ok(CString::default());
    }
    labels(security, &Node::observe()).map(c_string).map_err(RuntimeError::Unsupported)
}

fn labels(security: &SecurityContext, node: &Node) -> Result<String, String> {
    // Without SELinux a label means nothing, as upstream has it; with it, nothing here would enforce the label.
    if node.selinux && !security.selinux_label.is_empty() {
        return Err(format!("SELinux label {:?} cannot be applied by this runtime", security.selinux_label));
    }
    let profile = match &security.apparmor {
        AppArmor::Unconfined => return Ok(String::new()),
        AppArmor::RuntimeDefault => DEFAULT_PROFILE,
        AppArmor::Localhost(profile) => profile,
    };
    let Some(profiles) = &node.profiles else {
        return Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".into());
    };
    // `NAME (enforce)`; a name may hold spaces.
    if profiles.lines().filter_map(|line| line.rsplit_once(" (")).any(|(name, _)| name == profile) {
        return Ok(profile.to_owned());
    }
    Err(format!("apparmor profile not found {profile}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_profile_is_applied_or_refused_by_name() {
        let loaded = "docker-default (enforce)\nmy profile (complain)\n";
        let localhost = |name: &str| AppArmor::Localhost(name.to_owned());
        let disabled = Err("Cannot enforce AppArmor: AppArmor is not enabled on the host");
        let cases = [
            (AppArmor::Unconfined, None, Ok("")),
            (AppArmor::RuntimeDefault, None, disabled),
            (localhost("docker-default"), None, disabled),
            (AppArmor::Unconfined, Some(loaded), Ok("")),
            (localhost("docker-default"), Some(loaded), Ok("docker-default")),
            (localhost("my profile"), Some(loaded), Ok("my profile")),
            (localhost("docker"), Some(loaded), Err("apparmor profile not found docker")),
            (AppArmor::RuntimeDefault, Some(loaded), Err("apparmor profile not found minke-default")),
            (AppArmor::RuntimeDefault, Some("minke-default (enforce)"), Ok("minke-default")),
        ];
        for (apparmor, profiles, expected) in cases {
            let security = SecurityContext { apparmor, ..SecurityContext::default() };
            let node = Node { profiles: profiles.map(str::to_owned), selinux: false };
            let found = labels(&security, &node);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{:?} {profiles:?}", security.apparmor);
        }
    }

    #[test]
    fn a_label_counts_only_where_something_reads_it() {
        let security = SecurityContext { selinux_label: "::spc_t:".into(), ..SecurityContext::default() };
        assert_eq!(labels(&security, &Node { profiles: None, selinux: false }), Ok(String::new()));
        let error = labels(&security, &Node { profiles: None, selinux: true }).unwrap_err();
        assert_eq!(error, "SELinux label \"::spc_t:\" cannot be applied by this runtime");
    }
}
