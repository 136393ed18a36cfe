//! What a Pod's `/etc/hosts` and `/etc/resolv.conf` say (upstream `kubelet_pods.go` ensureHostsFile, `network/dns/dns.go`).

use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;

/// Limits of `resolv.conf` that upstream keeps (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// `node_hosts` is given for a Pod in the node's network, and then stands first.
pub fn hosts(pod: &Pod, hostname: &str, domain: &str, ips: &[IpAddr], node_hosts: Option<&str>) -> String {
    let mut text = match node_hosts {
        Some(hosts) => format!("# Kubernetes-managed hosts file (host network).\n{hosts}"),
        None => format!("# Kubernetes-managed hosts file.\n{LOCAL}"),
    };
    if node_hosts.is_none() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subdomain = pod.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).filter(|sub| !sub.is_empty());
        for ip in ips {
            let line = match subdomain {
                Some(sub) => writeln!(text, "{ip}\t{hostname}.{sub}.{namespace}.svc.{domain}\t{hostname}"),
                None => writeln!(text, "{ip}\t{hostname}"),
            };
            line.ok();
        }
    }
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let mut first = true;
    for alias in aliases {
        if std::mem::take(&mut first) {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        writeln!(text, "{}\t{}", alias.ip, alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"))
            .ok();
    }
    text
}

/// The lines of a `resolv.conf`, merged by the Pod's `dnsPolicy` and `dnsConfig`.
#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

pub fn resolv_conf(pod: &Pod, node: &str, cluster_dns: &[IpAddr], domain: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        Some("Default") => parse(node),
        Some("ClusterFirstWithHostNet") => cluster(pod, node, cluster_dns, domain),
        _ if host_network => parse(node),
        _ => cluster(pod, node, cluster_dns, domain),
    };
    if let Some(config) = &spec.dns_config {
        append(&mut resolver.nameservers, config.nameservers.iter().flatten());
        append(&mut resolver.searches, config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolver.options.retain(|set| set.split(':').next() != Some(&name));
            resolver.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    resolver.nameservers.truncate(MAX_NAMESERVERS);
    resolver.searches.truncate(MAX_SEARCHES);
    let mut text = String::new();
    if !resolver.searches.is_empty() {
        writeln!(text, "search {}", resolver.searches.join(" ")).ok();
    }
    for server in &resolver.nameservers {
        writeln!(text, "nameserver {server}").ok();
    }
    if !resolver.options.is_empty() {
        writeln!(text, "options {}", resolver.options.join(" ")).ok();
    }
    text
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse(node: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in node.lines() {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', ';']));
        let keyword = words.next();
        let words = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => resolver.nameservers.extend(words.take(1)),
            Some("search") => resolver.searches = words.collect(),
            Some("options") => resolver.options = words.collect(),
            _ => {}
        }
    }
    resolver
}

/// Without a cluster DNS, `ClusterFirst` falls back to the node's own (upstream warns with an event).
fn cluster(pod: &Pod, node: &str, cluster_dns: &[IpAddr], domain: &str) -> Resolver {
    let of_node = parse(node);
    if cluster_dns.is_empty() {
        return of_node;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    append(&mut searches, of_node.searches.iter());
    Resolver {
        nameservers: cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    const NODE: &str = "# by hand\nnameserver 192.0.2.1\nsearch lan example.com\noptions edns0\n";

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    fn resolv(spec: &Value) -> String {
        resolv_conf(&pod(spec), NODE, &["10.96.0.10".parse().unwrap()], "cluster.local")
    }

    #[test]
    fn dns_policies() {
        let cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local lan example.com\n\
            nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search lan example.com\nnameserver 192.0.2.1\noptions edns0\n";
        assert_eq!(resolv(&json!({"containers": [], "dnsPolicy": "ClusterFirst"})), cluster);
        assert_eq!(resolv(&json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true})), node);
        assert_eq!(resolv(&json!({"containers": [], "dnsPolicy": "Default"})), node);
        let config = json!({"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let none = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config});
        assert_eq!(resolv(&none), "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n");
        let both = json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        assert!(resolv(&both).ends_with("options ndots:2\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec = json!({"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "127.0.0.2", "hostnames": ["foo.local", "bar.local"]}]});
        let text = hosts(&pod(&spec), "p", "cluster.local", &["10.0.0.5".parse().unwrap()], None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        let end = "10.0.0.5\tp.sub.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n127.0.0.2\tfoo.local\tbar.local\n";
        assert!(text.ends_with(end), "{text}");
    }
}
