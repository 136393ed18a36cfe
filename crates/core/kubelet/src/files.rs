//! What a Pod's `/etc/hosts` and `/etc/resolv.conf` say (upstream `kubelet_pods.go` ensureHostsFile, `network/dns/dns.go`).

use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;

/// Limits of `resolv.conf` that upstream keeps (`MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`,
/// `DNS1123SubdomainMaxLength`).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LINE_BYTES: usize = 2048;
const MAX_SEARCH_BYTES: usize = 253;
/// `utsname` of Linux.
const MAX_FQDN_BYTES: usize = 64;
const MAX_HOSTNAME_CHARS: usize = 63;

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
        // A host name that replaces all has no domain (upstream `GeneratePodHostNameAndDomain`).
        let spec = pod.spec.as_ref().filter(|spec| spec.hostname_override.is_none());
        let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|sub| !sub.is_empty());
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

/// The Pod's host name: its name unless set, cut to what the kernel takes (upstream `GeneratePodHostNameAndDomain`).
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let set = spec.and_then(|spec| spec.hostname_override.clone().or_else(|| spec.hostname.clone()));
    let name = set.filter(|name| !name.is_empty()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let name: String = name.chars().take(MAX_HOSTNAME_CHARS).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// What the kernel is told: with `setHostnameAsFQDN` the name with its domain (upstream `GetNodenameForKernel`).
///
/// # Errors
/// It is longer than the kernel takes: no sandbox can be made.
pub fn kernel_hostname(pod: &Pod, domain: &str) -> Result<String, String> {
    let (name, spec) = (hostname(pod), pod.spec.as_ref());
    let asks = spec.filter(|spec| spec.set_hostname_as_fqdn == Some(true) && spec.hostname_override.is_none());
    let subdomain = asks.and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty());
    let Some(subdomain) = subdomain else { return Ok(name) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let full = format!("{name}.{subdomain}.{namespace}.svc.{domain}");
    if full.len() > MAX_FQDN_BYTES {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MAX_FQDN_BYTES} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The lines of a `resolv.conf`, merged by the Pod's `dnsPolicy` and `dnsConfig`.
#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The file, and what had to be left out of it, worded for a `DNSConfigForming` event.
pub fn resolv_conf(pod: &Pod, node: &str, cluster_dns: &[IpAddr], domain: &str) -> (String, Vec<String>) {
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
        append(&mut resolver.nameservers, config.nameservers.iter().flatten().cloned());
        append(&mut resolver.searches, config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            set_option(
                &mut resolver.options,
                match option.value.as_deref() {
                    Some(value) if !value.is_empty() => format!("{name}:{value}"),
                    _ => name,
                },
            );
        }
    }
    let problems = fit(&mut resolver);
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
    if text.is_empty() {
        // As containerd: nothing to say means the node's own.
        node.clone_into(&mut text);
    }
    (text, problems)
}

/// Leaves out what is beyond the limits (upstream `formDNSConfigFitsLimits`).
fn fit(resolver: &mut Resolver) -> Vec<String> {
    let mut problems = Vec::new();
    if resolver.nameservers.len() > MAX_NAMESERVERS {
        resolver.nameservers.truncate(MAX_NAMESERVERS);
        problems.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            resolver.nameservers.join(" ")
        ));
    }
    let searches = &mut resolver.searches;
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_SEARCH_BYTES);
    while searches.join(" ").len() > MAX_SEARCH_LINE_BYTES {
        searches.pop();
    }
    if searches.len() < before {
        problems.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            searches.join(" ")
        ));
    }
    problems
}

/// The last one of a name counts.
fn set_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    options.retain(|set| name(set) != name(&option));
    options.push(option);
}

/// Without duplicates, of what was there before either.
fn append(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in std::mem::take(list).into_iter().chain(more) {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// As upstream's `parseResolvConf`: servers and options accumulate, of several search lines the last counts, and only a
/// line that begins with `#` is a comment.
fn parse(node: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in node.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let words = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => resolver.nameservers.extend(words.take(1)),
            Some("search") => {
                let domain = |word: String| word.strip_suffix('.').map(str::to_owned).unwrap_or(word);
                resolver.searches = words.filter(|word| word != ".").map(domain).collect();
            }
            Some("options") => words.for_each(|option| set_option(&mut resolver.options, option)),
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
    append(&mut searches, of_node.searches.into_iter());
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
        let (text, problems) = resolv_conf(&pod(spec), NODE, &["10.96.0.10".parse().unwrap()], "cluster.local");
        assert_eq!(problems, Vec::<String>::new());
        text
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
    fn with_host_net_the_cluster_answers_only_on_demand() {
        let policy = |policy| resolv(&json!({"containers": [], "dnsPolicy": policy, "hostNetwork": true}));
        assert_eq!(policy("Default"), policy("ClusterFirst"));
        assert!(policy("ClusterFirstWithHostNet").starts_with("search ns.svc.cluster.local "));
        assert!(policy("ClusterFirstWithHostNet").ends_with("nameserver 10.96.0.10\noptions ndots:5\n"));
    }

    #[test]
    fn the_nodes_file_is_read_as_upstream_reads_it() {
        let default = pod(&json!({"containers": [], "dnsPolicy": "Default"}));
        for (node, expected) in [
            ("nameserver 1.1.1.1 # one\n #nameserver 2.2.2.2\n", "nameserver 1.1.1.1\n"),
            ("search a.\nsearch b. . c\n", "search b c\n"),
            ("options ndots:1 edns0\noptions ndots:3\n", "options edns0 ndots:3\n"),
            // Nothing in it: it is the Pod's as it is.
            ("# none\n", "# none\n"),
        ] {
            assert_eq!(resolv_conf(&default, node, &[], "cluster.local").0, expected, "{node:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_and_told() {
        let config =
            json!({"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"], "searches": ["x".repeat(254), "y".repeat(250)]});
        let spec = json!({"containers": [], "dnsPolicy": "Default", "dnsConfig": config});
        let (text, problems) = resolv_conf(&pod(&spec), NODE, &[], "cluster.local");
        let searches = format!("lan example.com {}", "y".repeat(250));
        assert_eq!(
            text,
            format!("search {searches}\nnameserver 192.0.2.1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\noptions edns0\n")
        );
        assert_eq!(
            problems,
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                 192.0.2.1 1.1.1.1 2.2.2.2"
                    .to_owned(),
                format!(
                    "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: \
                     {searches}"
                ),
            ]
        );
        let long: Vec<String> = (0..10).map(|n| format!("{n}{}", "z".repeat(240))).collect();
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"searches": long}});
        let (text, problems) = resolv_conf(&pod(&spec), "", &[], "cluster.local");
        assert_eq!((text.trim_end().strip_prefix("search ").unwrap().len(), problems.len()), (8 * 242 - 1, 1));
    }

    #[test]
    fn the_kernels_name_has_a_domain_on_demand() {
        let of = |spec: Value| kernel_hostname(&pod(&spec), "cluster.local");
        let full = json!({"containers": [], "subdomain": "sub", "setHostnameAsFQDN": true});
        assert_eq!(of(full).unwrap(), "p.sub.ns.svc.cluster.local");
        for other in [
            json!({"containers": [], "setHostnameAsFQDN": true}),
            json!({"containers": [], "subdomain": "sub", "setHostnameAsFQDN": false}),
        ] {
            assert_eq!(of(other).unwrap(), "p");
        }
        let long = "s".repeat(50);
        let error = of(json!({"containers": [], "subdomain": long, "setHostnameAsFQDN": true})).unwrap_err();
        assert!(error.ends_with("is too long (64 characters is the max, 73 characters requested)"), "{error}");
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec = json!({"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "127.0.0.2", "hostnames": ["foo.local", "bar.local"]}]});
        let text = hosts(&pod(&spec), "p", "cluster.local", &["10.0.0.5".parse().unwrap()], None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        let end = "10.0.0.5\tp.sub.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n127.0.0.2\tfoo.local\tbar.local\n";
        assert!(text.ends_with(end), "{text}");
        // Both families, each on a line; a name that replaces all has no domain.
        let ips = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let spec = json!({"containers": [], "subdomain": "sub", "hostnameOverride": "h.example"});
        let text = hosts(&pod(&spec), "h.example", "cluster.local", &ips, None);
        assert!(text.ends_with("fe00::2\tip6-allrouters\n10.0.0.5\th.example\nfd00::5\th.example\n"), "{text}");
        // In the node's network the node's file stands first, and the aliases follow.
        let spec =
            json!({"containers": [], "hostNetwork": true, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}]});
        let text = hosts(&pod(&spec), "node", "cluster.local", &ips, Some("127.0.0.1 localhost\n"));
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries added by HostAliases.\n1.2.3.4\ta\n"
        );
    }
}
