//! Kernel switches below `/proc/sys`, changed so that they can be set back.

use crate::NetlinkError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What routing between Pods needs of the node, for the families it uses: name (`net/ipv4/ip_forward`) and value, in the
/// order to set them. Reads which interfaces take router advertisements. Blocks.
pub fn forwarding(ipv6: bool) -> Vec<(String, String)> {
    let mut wanted = vec![("net/ipv4/ip_forward".to_owned(), "1".to_owned())];
    if !ipv6 {
        return wanted;
    }
    // A router ignores router advertisements, unless told otherwise: the host would lose its default route.
    let interfaces = std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let mut names: Vec<String> = interfaces.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for name in names.into_iter().filter(|name| name != "all") {
        let key = format!("net/ipv6/conf/{name}/accept_ra");
        if get(&key).as_deref() == Some("1") {
            wanted.push((key, "2".to_owned()));
        }
    }
    wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned()));
    wanted
}

/// Whether new links of this network namespace can have IPv6 addresses.
pub fn has_ipv6() -> bool {
    ["all", "default"].iter().all(|which| get(&format!("net/ipv6/conf/{which}/disable_ipv6")).as_deref() == Some("0"))
}

/// Of `wanted`, what is otherwise now, with its value now: to be recorded before [`set`], and given back to it to undo.
pub fn differing(wanted: &[(String, String)]) -> BTreeMap<String, String> {
    let old = |(key, value): &(String, String)| Some((key.clone(), get(key).filter(|now| now != value)?));
    wanted.iter().filter_map(old).collect()
}

/// The value of a switch; `None`: there is none.
pub fn get(key: &str) -> Option<String> {
    std::fs::read_to_string(path(key)).ok().map(|text| text.trim().to_owned())
}

pub fn set(key: &str, value: &str) -> Result<(), NetlinkError> {
    let path = path(key);
    let error = |source| NetlinkError::Sysctl { path: path.display().to_string(), value: value.to_owned(), source };
    std::fs::write(&path, value).map_err(error)
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}
