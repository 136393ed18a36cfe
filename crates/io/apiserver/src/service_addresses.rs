//! Addresses and node ports of Services: drawn from the ranges, none twice (upstream `registry/core/service/storage/alloc.go`).
//!
//! What is taken is read from the watch cache, which shows every finished write; what writes in flight hold is kept
//! here until they are done. (`IPAddress` objects, with which several servers would agree, are not made yet.)

mod cidr;

pub(crate) use cidr::first_address;

use crate::cache::Entry;
use crate::call::Call;
use crate::errors::{self, Result};
use crate::respond;
use api::kinds::core::service;
use cidr::{Cidr, family_of};
use schema::field::{self, ErrorList, FieldError, Path};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;
const NODE_PORT_OF_DRY_RUNS: i64 = 32769;

/// What writes in flight hold.
#[derive(Debug, Default)]
struct InFlight {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<i64>,
}

/// Gives addresses to Services.
pub(crate) struct Allocator {
    cidrs: Vec<Cidr>,
    in_flight: Arc<Mutex<InFlight>>,
}

/// Held for a write; given back when it is done, by then the cache shows what it stored.
pub(crate) struct Held {
    in_flight: Arc<Mutex<InFlight>>,
    addresses: Vec<IpAddr>,
    ports: Vec<i64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &self.addresses {
            in_flight.addresses.remove(address);
        }
        for port in &self.ports {
            in_flight.ports.remove(port);
        }
    }
}

impl Allocator {
    pub(crate) fn new(cidrs: &[String]) -> Self {
        Self { cidrs: cidrs.iter().filter_map(|cidr| Cidr::parse(cidr)).collect(), in_flight: Arc::default() }
    }

    /// Fills in what a Service lacks; other objects pass. `old` is the stored Service on update.
    pub(crate) fn allocate(
        &self,
        call: &Call<'_>,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Held> {
        let mut held = Held { in_flight: self.in_flight.clone(), addresses: Vec::new(), ports: Vec::new() };
        if !call.resource.group.is_empty() || call.resource.plural != "services" || call.subresource.is_some() {
            return Ok(held);
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let entries = call
            .server
            .caches
            .of(call.resource)
            .map(|cache| cache.list(&call.resource.key("", "")).0)
            .unwrap_or_default();
        let random = call.server.world.random();
        let mut found = ErrorList::new();
        self.families(object, old, &mut found);
        if found.is_empty() {
            self.addresses(object, old, &entries, random, dry_run, &mut held, &mut found);
        }
        if found.is_empty() {
            self.ports(object, old, &entries, random, dry_run, &mut held, &mut found);
        }
        if found.is_empty() { Ok(held) } else { Err(errors::invalid("", "Service", &name, &found)) }
    }

    /// `ipFamilies` and `ipFamilyPolicy`, as far as the Service leaves them open.
    fn families(&self, service: &mut Value, old: Option<&Value>, found: &mut ErrorList) {
        if kind(service) == "ExternalName" {
            return;
        }
        let spec = &mut service["spec"];
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty)
            && spec["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
        {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
        // What is wrong in itself is told before what this cluster lacks.
        found.extend(service::cluster_ips(service, old.unwrap_or(&Value::Null)));
        if !found.is_empty() {
            return;
        }
        let spec = &mut service["spec"];
        let both = self.cidrs.len() > 1;
        let headless = spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None";
        let selectorless = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
        let primary = self.cidrs.first().map_or("IPv4", Cidr::family);
        let secondary = if primary == "IPv4" { "IPv6" } else { "IPv4" };
        let mut families: Vec<String> =
            spec["ipFamilies"].as_array().into_iter().flatten().filter_map(|f| f.as_str().map(str::to_owned)).collect();
        if families.is_empty() {
            let given = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            families.extend(given.filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|ip| family_of(ip).to_owned()));
        }
        if spec["ipFamilyPolicy"].is_null() {
            let policy = if families.len() > 1 || (headless && selectorless && families.is_empty()) {
                "RequireDualStack"
            } else {
                "SingleStack"
            };
            spec["ipFamilyPolicy"] = policy.into();
        }
        let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default().to_owned();
        let path = Path::new("spec");
        if !(headless && selectorless) {
            if policy == "RequireDualStack" && !both {
                let why = "this cluster is not configured for dual-stack services";
                found.push(field::invalid(&path.child("ipFamilyPolicy"), policy.as_str(), why));
            }
            for (index, family) in families.iter().enumerate() {
                let known = matches!(family.as_str(), "IPv4" | "IPv6");
                if known && !self.cidrs.iter().any(|c| c.family() == family) {
                    let why = "not configured on this cluster";
                    found.push(field::invalid(&path.child("ipFamilies").index(index), family.as_str(), why));
                }
            }
        }
        if families.is_empty() {
            families.push(primary.to_owned());
        }
        let wants_two =
            (policy == "RequireDualStack") || (policy == "PreferDualStack" && (both || (headless && selectorless)));
        if families.len() == 1 && wants_two {
            let other = if families[0] == primary { secondary } else { primary };
            families.push(other.to_owned());
        }
        spec["ipFamilies"] = json!(families);
    }

    #[allow(clippy::too_many_arguments)] // One step of `allocate`, apart for its length only.
    fn addresses(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        entries: &[Arc<Entry>],
        random: u64,
        dry_run: bool,
        held: &mut Held,
        found: &mut ErrorList,
    ) {
        if kind(service) == "ExternalName" {
            return;
        }
        let spec = &mut service["spec"];
        let mut ips: Vec<String> = spec["clusterIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.as_str().map(str::to_owned))
            .collect();
        if ips.first().is_some_and(|ip| ip == "None") {
            return;
        }
        let kept: Vec<&str> = old
            .and_then(|old| old["spec"]["clusterIPs"].as_array())
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let families: Vec<String> =
            spec["ipFamilies"].as_array().into_iter().flatten().filter_map(|f| f.as_str().map(str::to_owned)).collect();
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |ip: IpAddr, in_flight: &InFlight| {
            in_flight.addresses.contains(&ip) || entries.iter().any(|e| holds(e, ip))
        };
        for ip in ips.iter().filter(|ip| !kept.contains(&ip.as_str())) {
            // What is no address is the validation's business.
            let Ok(address) = ip.parse::<IpAddr>() else { continue };
            let Some(cidr) = self.cidrs.iter().find(|c| c.family() == family_of(address)) else { continue };
            let why = if !cidr.contains(address) {
                format!(
                    "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                    cidr.text()
                )
            } else if taken(address, &in_flight) {
                format!("failed to allocate IP {ip}: provided IP is already allocated")
            } else {
                if !dry_run {
                    in_flight.addresses.insert(address);
                    held.addresses.push(address);
                }
                continue;
            };
            found.push(field::invalid(&Path::new("spec").child("clusterIPs"), json!(ips), &why));
            return;
        }
        for family in families.iter().skip(ips.len()) {
            let Some(cidr) = self.cidrs.iter().find(|c| c.family() == family) else { continue };
            let Some(address) = cidr.choose(random, |ip| taken(ip, &in_flight)) else {
                found.push(field::internal(
                    &Path::new("spec").child("clusterIPs"),
                    "failed to allocate a serviceIP: range is full",
                ));
                return;
            };
            if !dry_run {
                in_flight.addresses.insert(address);
                held.addresses.push(address);
            }
            ips.push(address.to_string());
        }
        if let Some(first) = ips.first() {
            spec["clusterIP"] = first.as_str().into();
            spec["clusterIPs"] = json!(ips);
        }
    }

    #[allow(clippy::too_many_arguments)] // As above.
    fn ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        entries: &[Arc<Entry>],
        random: u64,
        dry_run: bool,
        held: &mut Held,
        found: &mut ErrorList,
    ) {
        let kind = kind(service).to_owned();
        let wanted =
            kind == "NodePort" || (kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] != false);
        if !wanted && kind != "LoadBalancer" {
            return;
        }
        let own = old.map(node_ports).unwrap_or_default();
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken: BTreeSet<i64> = in_flight.ports.clone();
        for entry in entries.iter().filter(|e| {
            e.fields.iter().any(|(f, v)| *f == "spec.type" && matches!(v.as_str(), "NodePort" | "LoadBalancer"))
        }) {
            if let Ok(tree) = respond::tree_of(&entry.object) {
                taken.extend(node_ports(&tree));
            }
        }
        let mut mine: BTreeSet<(String, i64)> = BTreeSet::new();
        let mut shared = given_by_port(service);
        let mut next = random;
        let mut draw = |taken: &BTreeSet<i64>| {
            let size = NODE_PORTS.end() - NODE_PORTS.start() + 1;
            let offset = i64::try_from(next % u64::try_from(size).unwrap_or(1)).unwrap_or(0);
            next = next.rotate_right(17);
            (0..size).map(|i| NODE_PORTS.start() + (offset + i) % size).find(|port| !taken.contains(port))
        };
        let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
        for index in 0..count {
            let path = Path::new("spec").child("ports").index(index).child("nodePort");
            let port = &mut service["spec"]["ports"][index];
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let number = port["port"].as_i64().unwrap_or(0);
            if wanted
                && port["nodePort"].as_i64().unwrap_or(0) == 0
                && let Some(common) = shared.get(&number)
            {
                port["nodePort"] = (*common).into();
                mine.insert((protocol, *common));
                continue;
            }
            let given = port["nodePort"].as_i64().unwrap_or(0);
            if given != 0 {
                // One number serves several protocols of one Service.
                let again = mine.iter().any(|(p, n)| *n == given && *p != protocol);
                if own.contains(&given) || again || dry_run {
                    mine.insert((protocol, given));
                    continue;
                }
                if !NODE_PORTS.contains(&given) {
                    found.push(field::invalid(
                        &path,
                        given,
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    ));
                    return;
                }
                if taken.contains(&given) {
                    // Twice in one Service is told by the validation.
                    if !mine.contains(&(protocol, given)) {
                        found.push(field::invalid(&path, given, "provided port is already allocated"));
                        return;
                    }
                    continue;
                }
                hold(given, &mut in_flight, held, &mut taken);
                mine.insert((protocol, given));
            } else if wanted {
                // A dry run takes none: it counts up from beyond the range (upstream `PortAllocationOperation`).
                let beyond = || mine.iter().map(|(_, port)| port + 1).max().unwrap_or(NODE_PORT_OF_DRY_RUNS);
                let Some(chosen) = (if dry_run { Some(beyond()) } else { draw(&taken) }) else {
                    found.push(field::internal(&path, "failed to allocate a nodePort: range is full"));
                    return;
                };
                port["nodePort"] = chosen.into();
                shared.insert(number, chosen);
                taken.insert(chosen);
                if !dry_run {
                    hold(chosen, &mut in_flight, held, &mut taken);
                }
                mine.insert((protocol, chosen));
            }
        }
        let checks = kind == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local";
        if checks && service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
            if let Some(chosen) = draw(&taken) {
                service["spec"]["healthCheckNodePort"] = chosen.into();
                if !dry_run {
                    hold(chosen, &mut in_flight, held, &mut taken);
                }
            }
        } else if checks {
            let given = service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0);
            if !own.contains(&given) && taken.contains(&given) {
                let error = FieldError {
                    error_type: field::ErrorType::Internal,
                    path: "spec.healthCheckNodePort".to_owned(),
                    message: format!(
                        "Internal error: failed to allocate requested HealthCheck NodePort {given}: provided port is already allocated"
                    ),
                };
                found.push(error);
            }
        }
    }
}

fn hold(port: i64, in_flight: &mut InFlight, held: &mut Held, taken: &mut BTreeSet<i64>) {
    taken.insert(port);
    in_flight.ports.insert(port);
    held.ports.push(port);
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn node_ports(service: &Value) -> BTreeSet<i64> {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_i64());
    ports.chain(spec["healthCheckNodePort"].as_i64()).filter(|p| *p != 0).collect()
}

/// Whether a stored Service has the address; its second one is looked up only where there are two families.
fn holds(entry: &Entry, ip: IpAddr) -> bool {
    let first = entry.fields.iter().find(|(f, _)| *f == "spec.clusterIP").map(|(_, v)| v.as_str()).unwrap_or_default();
    match first.parse::<IpAddr>() {
        Ok(first) if family_of(first) == family_of(ip) => first == ip,
        Ok(_) => respond::tree_of(&entry.object).is_ok_and(|tree| {
            tree["spec"]["clusterIPs"].as_array().into_iter().flatten().any(|other| other == ip.to_string().as_str())
        }),
        Err(_) => false,
    }
}
/// Ports of one number share their node port, a given one before a drawn one (upstream `initNodePorts`).
fn given_by_port(service: &Value) -> BTreeMap<i64, i64> {
    let mut shared = BTreeMap::new();
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        if let Some(given) = port["nodePort"].as_i64().filter(|given| *given != 0) {
            shared.entry(port["port"].as_i64().unwrap_or(0)).or_insert(given);
        }
    }
    shared
}
