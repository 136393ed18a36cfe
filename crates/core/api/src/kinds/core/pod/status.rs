//! What a status may say (upstream `ValidatePodStatusUpdate`).

use super::resources::is_hugepages;
use super::update::annotation_updates;
use super::validate::Lenient;
use crate::addresses;
use crate::internal;
use crate::names::{self, IMMUTABLE};
use crate::tree::{Tree, quantity};
use schema::field::{
    ErrorList, Path, duplicate, forbidden, internal as internal_error, invalid, not_found, not_supported, required,
    too_long,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const LISTS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// `ValidatePodStatusUpdate` behind its `ValidateObjectMetaUpdate`.
pub fn status_update(new: &Value, old: &Value) -> ErrorList {
    let mut found = annotation_updates(new, old, Lenient::towards(old));
    let (status, before) = (&new["status"], &old["status"]);
    let path = Path::new("status");
    found.extend(conditions(status.list("conditions"), &path.child("conditions")));
    let nominated = status.text("nominatedNodeName");
    let at = path.child("nominatedNodeName");
    if !nominated.is_empty() && nominated != before.text("nominatedNodeName") {
        found.extend(names::errors(&at, nominated, names::dns_subdomain(nominated)));
        if !old["spec"].text("nodeName").is_empty() {
            found.push(forbidden(&at, "may not be set on pods that are already bound to a node"));
        }
    }
    negative_generation(status, &path, &mut found);
    if status.text("qosClass") != before.text("qosClass") {
        found.push(invalid(&path.child("qosClass"), status.text("qosClass"), IMMUTABLE));
    }
    for list in LISTS {
        let lists = (status.list(list), before.list(list));
        found.extend(transitions(lists, list, &old["spec"], &path.child(list)));
    }
    found.extend(claim_statuses(status, &new["spec"], &path.child("resourceClaimStatuses")));
    found.extend(extended_claim(status, &new["spec"], &path.child("extendedResourceClaimStatus")));
    found.extend(node_claims(status, &new["spec"], &path.child("nodeAllocatableResourceClaimStatuses")));
    found.extend(volume_health(status, &new["spec"], &path.child("volumeHealth")));
    found.extend(pod_ips(status, before, &path.child("podIPs")));
    found.extend(host_ips(status, before, &path.child("hostIPs")));
    for list in LISTS {
        found.extend(users(status.list(list), new["spec"]["os"].text("name"), &path.child(list)));
    }
    for (list, containers) in [(LISTS[0], "containers"), (LISTS[1], "initContainers")] {
        let containers = new["spec"].list(containers);
        found.extend(allocated(status, status.list(list), containers, &path.child(list)));
    }
    for (i, container) in status.list(LISTS[2]).iter().enumerate() {
        if !container.list("allocatedResourcesStatus").is_empty() {
            let at = path.child(LISTS[2]).index(i).child("allocatedResourcesStatus");
            found.push(forbidden(&at, "must not be specified in container status"));
        }
    }
    found
}

fn negative_generation(status: &Value, path: &Path, found: &mut ErrorList) {
    let generation = status.int("observedGeneration");
    if generation < 0 {
        found.push(invalid(&path.child("observedGeneration"), generation, "must be a non-negative integer"));
    }
}

fn conditions(conditions: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        negative_generation(condition, &at, &mut found);
        let of = condition.text("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&of) {
            found.extend(names::errors(&at.child("Type"), of, names::qualified_name(of)));
        }
    }
    found
}

/// A container that has ended for good does not run again.
fn transitions((new, old): (&[Value], &[Value]), list: &str, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let containers = match list {
        "containerStatuses" => Some(spec.list("containers")),
        "initContainerStatuses" => Some(spec.list("initContainers")),
        _ => None,
    };
    let restarts_all = ["initContainers", "containers"]
        .iter()
        .flat_map(|l| spec.list(l))
        .flat_map(|c| c.list("restartPolicyRules"))
        .any(|rule| rule.text("action") == "RestartAllContainers");
    if containers.is_some() && restarts_all {
        return found;
    }
    for (i, before) in old.iter().enumerate() {
        let Some(ended) = before["state"].field("terminated") else { continue };
        let name = before.text("name");
        let may_restart = containers.is_some_and(|containers| {
            let container = containers.iter().find(|c| c.text("name") == name);
            container.is_some_and(|c| should_restart(c, spec, ended.int("exitCode")))
        });
        let revived = new.iter().filter(|s| s.text("name") == name && !s["state"].has("terminated")).count();
        let times = if containers.is_some() { revived.min(1) } else { revived };
        for _ in (0..times).filter(|_| !may_restart) {
            let text = "may not be transitioned to non-terminated state";
            found.push(forbidden(&path.index(i).child("state"), text));
        }
    }
    found
}

/// `ContainerShouldRestart`.
pub fn should_restart(container: &Value, spec: &Value, exit_code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    };
    let Some(policy) = container.text_opt("restartPolicy") else { return by_policy(spec.text("restartPolicy")) };
    let matches = |rule: &&Value| {
        let codes = &rule["exitCodes"];
        let listed = codes.list("values").iter().any(|code| code.as_i64() == Some(exit_code));
        match codes.text("operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    match container.list("restartPolicyRules").iter().find(matches) {
        Some(rule) if matches!(rule.text("action"), "Restart" | "RestartAllContainers") => true,
        _ => match policy {
            "Always" | "OnFailure" | "Never" => by_policy(policy),
            _ => by_policy(spec.text("restartPolicy")),
        },
    }
}

fn claim_statuses(status: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, claim) in status.list("resourceClaimStatuses").iter().enumerate() {
        let at = path.index(i);
        let name = claim.text("name");
        if !spec.list("resourceClaims").iter().any(|c| c.text("name") == name) {
            let text = "must match the name of an entry in `spec.resourceClaims`";
            found.push(invalid(&at.child("name"), name, text));
        }
        if !seen.insert(name) {
            found.push(duplicate(&at.child("name"), name));
        }
        if let Some(name) = claim.text_opt("resourceClaimName") {
            found.extend(names::errors(&at.child("resourceClaimName"), name, names::dns_subdomain(name)));
        }
    }
    found
}

fn extended_claim(status: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let Some(claim) = status.field("extendedResourceClaimStatus") else { return found };
    let mappings = claim.list("requestMappings");
    let at = path.child("requestMappings");
    if mappings.is_empty() {
        found.push(required(&at, "at least one request mapping is required"));
    }
    let mut seen = BTreeSet::new();
    for (i, mapping) in mappings.iter().enumerate() {
        let at = at.index(i);
        let key = ["containerName", "resourceName", "requestName"].map(|f| (f, mapping.text(f)));
        let [(_, container), (_, resource), (_, request)] = key;
        let all = spec.list("containers").iter().chain(spec.list("initContainers"));
        match all.into_iter().find(|c| c.text("name") == container) {
            Some(c) if c["resources"]["requests"].has(resource) => {}
            Some(_) => {
                let text = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                found.push(invalid(&at.child("resourceName"), resource, text));
            }
            None => {
                let text = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                found.push(invalid(&at.child("containerName"), container, text));
            }
        }
        found.extend(names::errors(&path.child("requestName"), request, names::dns_label(request)));
        if !seen.insert(key) {
            found.extend(key.map(|(field, value)| duplicate(&at.child(field), value)));
        }
    }
    let at = path.child("resourceClaimName");
    match claim.text("resourceClaimName") {
        "" => found.push(required(&at, "")),
        name => found.extend(names::errors(&at, name, names::dns_subdomain(name))),
    }
    found
}

fn node_claims(status: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let node_resource = |name: &str| name == "cpu" || name == "memory" || is_hugepages(name);
    for (i, claim) in status.list("nodeAllocatableResourceClaimStatuses").iter().enumerate() {
        let at = path.index(i);
        let name = claim.text("resourceClaimName");
        if name.is_empty() {
            continue;
        }
        let mut known = spec.list("resourceClaims").iter().chain(status.list("resourceClaimStatuses"));
        if !known.any(|c| c.text("resourceClaimName") == name) {
            found.push(invalid(&at.child("resourceClaimName"), name, "no mapping found in pod reference"));
        }
        for (list, amounts) in [("mapping", &["quantity"][..]), ("overhead", &["perPod", "perContainer"][..])] {
            for (j, item) in claim.list(list).iter().enumerate() {
                let at = at.child(list).index(j);
                if !node_resource(item.text("name")) {
                    let text = "must be a node allocatable resource name";
                    found.push(invalid(&at.child("name"), item.text("name"), text));
                }
                if list == "overhead" && !amounts.iter().any(|a| item.has(a)) {
                    found.push(invalid(&at, "", "at least one of perPod or perContainer must be set"));
                }
                for amount in amounts {
                    if let Some(q) = quantity(&item[*amount]).filter(|q| q.signum() < 0) {
                        found.push(invalid(&at.child(amount), q.canonical(), "must be non-negative"));
                    }
                }
            }
        }
    }
    found
}

fn volume_health(status: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, health) in status.list("volumeHealth").iter().enumerate() {
        let at = path.index(i);
        let name = health.text("name");
        if !name.is_empty() && !spec.list("volumes").iter().any(|v| v.text("name") == name) {
            found.push(not_found(&at.child("name"), name));
        }
        for (j, condition) in health.list("healthConditions").iter().enumerate() {
            let reason = condition.text("reason");
            if !reason.is_empty() {
                let at = at.child("healthConditions").index(j).child("reason");
                found.extend(names::errors(&at, reason, names::condition_reason(reason)));
            }
        }
    }
    found
}

/// One address of each family at most.
fn families(ips: &[Value], of: &str, path: &Path, found: &mut ErrorList) {
    if ips.len() < 2 {
        return;
    }
    let mut parsed = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        match addresses::parse_ip(ip.text("ip")) {
            Some(ip) => parsed.push(ip),
            None => {
                let text = format!("failed to check for dual stack with error:invalid IP[{i}]: {}", ip.text("ip"));
                found.push(internal_error(path, &text));
                break;
            }
        }
    }
    let dual = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6) && parsed.len() == ips.len();
    if !dual || ips.len() > 2 {
        let text = "may specify no more than one IP for each IP family";
        found.push(internal::invalid(path, of, &ips.to_vec().into(), text));
    }
}

fn each_ip(ips: &[Value], before: &[Value], path: &Path) -> ErrorList {
    let old: Vec<&str> = before.iter().map(|ip| ip.text("ip")).collect();
    ips.iter().enumerate().flat_map(|(i, ip)| addresses::legacy_ip(&path.index(i), ip.text("ip"), &old)).collect()
}

fn pod_ips(status: &Value, before: &Value, path: &Path) -> ErrorList {
    let ips = status.list("podIPs");
    let mut found = each_ip(ips, before.list("podIPs"), path);
    families(ips, "[SPodIP", path, &mut found);
    let single = status.text("podIP");
    match ips.first() {
        None if single.is_empty() => {}
        Some(first) if !single.is_empty() => {
            if first.text("ip") != single {
                found.push(invalid(&path.index(0).child("ip"), first.text("ip"), "must be equal to `podIP`"));
            }
        }
        _ => {
            let text = "podIP and podIPs must either both be set or both be unset";
            found.push(internal::invalid(path, "[SPodIP", &status["podIPs"], text));
        }
    }
    found
}

fn host_ips(status: &Value, before: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let ips = status.list("hostIPs");
    let Some(first) = ips.first() else { return found };
    if first.text("ip") != status.text("hostIP") {
        found.push(invalid(&path.index(0).child("ip"), first.text("ip"), "must be equal to `hostIP`"));
    }
    found.extend(each_ip(ips, before.list("hostIPs"), path));
    families(ips, "[SHostIP", path, &mut found);
    found
}

fn users(statuses: &[Value], os: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, status) in statuses.iter().enumerate() {
        let Some(user) = status["user"].field("linux") else { continue };
        let at = path.index(i).child("user").child("linux");
        if os == "windows" {
            found.push(forbidden(&at, "cannot be set for a windows pod"));
            continue;
        }
        let (uid, gid) = (user.int("uid"), user.int("gid"));
        let max = i64::from(u32::MAX);
        if !(0..=max).contains(&uid) {
            found.push(invalid(&at.child("uid"), uid, &names::in_range(0, max)));
        }
        found.extend(names::user_id(gid).iter().map(|m| invalid(&at.child("gid"), gid, m)));
        for (j, group) in user.list("supplementalGroups").iter().enumerate() {
            let group = group.as_i64().unwrap_or_default();
            let at = at.child("supplementalGroups").index(j);
            found.extend(names::user_id(group).iter().map(|m| invalid(&at, group, m)));
        }
    }
    found
}

/// `validateContainerStatusAllocatedResourcesStatus`.
fn allocated(status: &Value, statuses: &[Value], containers: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, own) in statuses.iter().enumerate() {
        let container = containers.iter().find(|c| c.text("name") == own.text("name"));
        for (j, resource) in own.list("allocatedResourcesStatus").iter().enumerate() {
            let at = path.index(i).child("allocatedResourcesStatus").index(j);
            let name = resource.text("name");
            if let Some(text) = container.and_then(|c| unknown_resource(name, c, status)) {
                found.push(invalid(&at.child("name"), name, text));
            }
            let mut seen = BTreeSet::new();
            for (k, health) in resource.list("resources").iter().enumerate() {
                let at = at.child("resources").index(k);
                let states = ["Healthy", "Unhealthy", "Unknown"];
                if !states.contains(&health.text("health")) {
                    found.push(not_supported(&at.child("health"), health.text("health"), &states));
                }
                match health.text_opt("message") {
                    Some("") => found.push(required(&at.child("message"), "must be non-empty if specified")),
                    Some(message) if message.len() > 1024 => found.push(too_long(&at.child("message"), 1024)),
                    _ => {}
                }
                if !seen.insert(health.text("resourceID")) {
                    found.push(duplicate(&at.child("resourceID"), health.text("resourceID")));
                }
            }
        }
    }
    found
}

fn unknown_resource(name: &str, container: &Value, status: &Value) -> Option<&'static str> {
    let requests = &container["resources"]["requests"];
    let Some(reference) = name.strip_prefix("claim:") else {
        return (!requests.has(name)).then_some("must match one of the container's resource requests");
    };
    let own = |claim: &Value| match claim.text("request") {
        "" => reference == claim.text("name"),
        request => reference == format!("{}/{request}", claim.text("name")),
    };
    let extended = &status["extendedResourceClaimStatus"];
    let mapped = reference.split_once('/').is_some_and(|(claim, request)| {
        claim == extended.text("resourceClaimName")
            && !request.is_empty()
            && extended.list("requestMappings").iter().any(|m| {
                m.text("containerName") == container.text("name")
                    && m.text("requestName") == request
                    && quantity(&requests[m.text("resourceName")]).is_some_and(|q| !q.is_zero())
            })
    });
    let known = container["resources"].list("claims").iter().any(own) || mapped;
    (!known).then_some("must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty")
}

/// `WarningsOnUpdate` of `pods/status`.
pub(super) fn status_warnings(new: &Value) -> Vec<String> {
    let of = |list: &str| {
        let path = Path::new("status").child(list);
        let ips = new["status"].list(list).iter().enumerate();
        ips.filter_map(|(i, ip)| addresses::ip_warning(&path.index(i).child("ip"), ip.text("ip"))).collect::<Vec<_>>()
    };
    [of("podIPs"), of("hostIPs")].concat()
}
