//! What this machine does to a cluster's traffic, as far as files and nftables tell.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Sentences for `minke status`, each with what to do about it. Blocks.
pub(crate) fn observe() -> Vec<String> {
    let mut found = Vec::new();
    let forwards = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(forwards).is_ok_and(|value| value.trim() == "0") {
        found.push(format!("{forwards} is 0: Pods cannot reach beyond this node; `sysctl net.ipv4.ip_forward=1`"));
    }
    for (name, running) in [
        ("firewalld", Path::new("/run/firewalld.pid").exists() || Path::new("/run/firewalld").exists()),
        ("ufw", std::fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| ufw_is_on(&text))),
        ("Docker", Path::new("/run/docker.sock").exists()),
    ] {
        if running {
            found.push(format!("{name} runs here and keeps firewall rules of its own"));
        }
    }
    if let Ok(output) = Command::new("nft").args(["-j", "list", "chains"]).output()
        && let Ok(chains) = serde_json::from_slice(&output.stdout)
    {
        found.extend(dropping(&chains).into_iter().map(|chain| {
            format!("nftables chain {chain} drops forwarded packets that no rule of its accepts, Pods' among them")
        }));
    }
    found
}

fn ufw_is_on(text: &str) -> bool {
    text.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"))
}

/// Base chains of others that drop what is forwarded, of `nft -j list chains`.
fn dropping(listed: &Value) -> Vec<String> {
    let chains = listed["nftables"].as_array().into_iter().flatten().filter_map(|entry| entry.get("chain"));
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| chain["table"].as_str().is_none_or(|table| !table.starts_with("minke")))
        .map(|chain| ["family", "table", "name"].map(|field| chain[field].as_str().unwrap_or("?")).join(" "))
        .collect()
}

/// Memory (PSS) in bytes: of this server, and of the processes that serve its Pods, with how many these are.
pub(crate) fn memory(id: &str, directory: &Path) -> (u64, u64, usize) {
    let shims = runtime::embedded::shims(id, &directory.join("runtime")).unwrap_or_default();
    let each: Vec<u64> = shims.into_iter().filter_map(pss_bytes).collect();
    (pss_bytes(std::process::id().cast_signed()).unwrap_or_default(), each.iter().sum(), each.len())
}

fn pss_bytes(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn foreign_chains_that_drop_are_named() {
        let chain = |table: &str, hook: &str, policy: &str| json!({"chain": {"family": "ip", "table": table, "name": "FORWARD", "hook": hook, "policy": policy}});
        let listed = json!({"nftables": [
            {"metainfo": {}},
            chain("filter", "forward", "drop"),
            chain("other", "forward", "accept"),
            chain("third", "input", "drop"),
            chain("minke-1234", "forward", "drop"),
        ]});
        assert_eq!(dropping(&listed), ["ip filter FORWARD"]);
    }

    #[test]
    fn ufw_says_whether_it_is_on() {
        assert!(ufw_is_on("# comment\nENABLED=yes\n"));
        assert!(!ufw_is_on("ENABLED=no\n"));
    }

    #[test]
    fn our_own_memory_is_known() {
        assert!(pss_bytes(std::process::id().cast_signed()).unwrap() > 0);
    }
}
