//! Validation of containers (upstream `validateContainerCommon` and what calls it).

use super::validate::{Lenient, host_port_conflicts};
use super::volumes::{self, Known};
use super::{is_sidecar, mounts, probes, requirements, security};
use crate::names;
use crate::tree::Tree;
use schema::field::{ErrorList, Path, duplicate, forbidden, invalid, not_found, not_supported, required, too_many};
use serde_json::Value;
use std::collections::BTreeSet;

/// All that the checks of one Pod's containers share.
pub(super) struct Containers<'a> {
    pub(super) spec: &'a Value,
    pub(super) volumes: &'a Known<'a>,
    pub(super) lenient: Lenient,
}

/// What an ephemeral container may not have, in the order of Go's struct.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

impl Containers<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.int_opt("terminationGracePeriodSeconds")
    }

    /// `validateContainers`.
    pub(super) fn main(&self, path: &Path) -> ErrorList {
        let containers = self.spec.list("containers");
        if containers.is_empty() {
            return vec![required(path, "")];
        }
        let mut found = ErrorList::new();
        let mut seen = BTreeSet::new();
        for (i, container) in containers.iter().enumerate() {
            let at = path.index(i);
            found.extend(self.common(container, &at));
            if !seen.insert(container.text("name")) {
                found.push(duplicate(&at.child("name"), container.text("name")));
            }
            found.extend(probes::lifecycle_and_probes(container, self.grace(), self.spec, &at));
            found.extend(restart_policy(container, &at));
        }
        found.extend(host_port_conflicts(containers.iter().enumerate(), path));
        found
    }

    /// `validateInitContainers`.
    pub(super) fn init(&self, path: &Path) -> ErrorList {
        let mut found = ErrorList::new();
        let mut seen: BTreeSet<&str> = self.spec.list("containers").iter().map(|c| c.text("name")).collect();
        for (i, container) in self.spec.list("initContainers").iter().enumerate() {
            let at = path.index(i);
            found.extend(self.common(container, &at));
            if container.has("restartPolicy") {
                found.extend(restart_policy(container, &at));
            } else if !container.list("restartPolicyRules").is_empty() {
                let text = "must specify restartPolicy when restart rules are used";
                found.push(required(&at.child("restartPolicy"), text));
            }
            let name = container.text("name");
            if seen.contains(name) {
                found.push(duplicate(&at.child("name"), name));
            } else if !name.is_empty() {
                seen.insert(name);
            }
            // Upstream counts from the list's start here, whichever container it is.
            found.extend(host_port_conflicts(std::iter::once((0, container)), path));
            if is_sidecar(container) {
                found.extend(probes::lifecycle_and_probes(container, self.grace(), self.spec, &at));
                continue;
            }
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(field) {
                    let text = "may not be set for init containers without restartPolicy=Always";
                    found.push(forbidden(&at.child(field), text));
                }
            }
            if !self.lenient.restart_container_of_init {
                for (j, policy) in container.list("resizePolicy").iter().enumerate() {
                    if policy.text("restartPolicy") == "RestartContainer" {
                        let at = at.child("resizePolicy").index(j).child("restartPolicy");
                        let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                        found.push(invalid(&at, "RestartContainer", text));
                    }
                }
            }
        }
        found
    }

    /// `validateEphemeralContainers`.
    pub(super) fn ephemeral(&self, path: &Path) -> ErrorList {
        let mut found = ErrorList::new();
        let lists = ["containers", "initContainers"];
        let others: BTreeSet<&str> = lists.iter().flat_map(|l| self.spec.list(l)).map(|c| c.text("name")).collect();
        let mut seen = others.clone();
        for (i, container) in self.spec.list("ephemeralContainers").iter().enumerate() {
            let at = path.index(i);
            found.extend(self.common(container, &at));
            found.extend(image_spaces(container, &at));
            if !seen.insert(container.text("name")) {
                found.push(duplicate(&at.child("name"), container.text("name")));
            }
            let target = container.text("targetContainerName");
            if !target.is_empty() && !others.contains(target) {
                found.push(not_found(&at.child("targetContainerName"), target));
            }
            let text = "cannot be set for an Ephemeral Container";
            for field in NOT_EPHEMERAL.iter().filter(|f| container.has(f)) {
                let empty_struct = *field == "resources" && container[*field].as_object().is_some_and(|r| r.is_empty());
                if !empty_struct {
                    found.push(forbidden(&at.child(field), text));
                }
            }
            for (j, mount) in container.list("volumeMounts").iter().enumerate() {
                for field in ["subPath", "subPathExpr"] {
                    if !mount.text(field).is_empty() {
                        found.push(forbidden(&at.child("volumeMounts").index(j).child(field), text));
                    }
                }
            }
        }
        found
    }

    /// `validateContainerCommon`.
    fn common(&self, container: &Value, path: &Path) -> ErrorList {
        let mut found = ErrorList::new();
        match container.text("name") {
            "" => found.push(required(&path.child("name"), "")),
            name => found.extend(names::errors(&path.child("name"), name, names::dns_label(name))),
        }
        if container.text("image").is_empty() {
            found.push(required(&path.child("image"), ""));
        }
        let policies = ["File", "FallbackToLogsOnError"];
        let at = path.child("terminationMessagePolicy");
        match container.text("terminationMessagePolicy") {
            "" => found.push(required(&at, "")),
            policy if policies.contains(&policy) => {}
            policy => found.push(not_supported(&at, policy, &policies)),
        }
        found.extend(ports(container.list("ports"), &path.child("ports")));
        found.extend(env(container.list("env"), &path.child("env")));
        found.extend(env_from(container.list("envFrom"), &path.child("envFrom")));
        found.extend(mounts::mounts(container, self.volumes, &path.child("volumeMounts")));
        found.extend(mounts::devices(container, self.volumes, &path.child("volumeDevices")));
        found.extend(pull_policy(container.text("imagePullPolicy"), &path.child("imagePullPolicy")));
        let claims: Vec<&str> = requirements::claim_names(self.spec);
        let at = path.child("resources");
        found.extend(requirements::container(&container["resources"], &claims, &at, self.lenient));
        found.extend(self.resize_policy(container, &path.child("resizePolicy")));
        let host_users = self.spec.flag_opt("hostUsers") != Some(false);
        let at = path.child("securityContext");
        found.extend(security::container(&container["securityContext"], &at, host_users, self.lenient));
        found
    }

    /// `validateResizePolicy`.
    fn resize_policy(&self, container: &Value, path: &Path) -> ErrorList {
        let mut found = ErrorList::new();
        let mut seen = BTreeSet::new();
        for (i, policy) in container.list("resizePolicy").iter().enumerate() {
            let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
            if !seen.insert(resource) {
                found.push(duplicate(&path.index(i), resource));
            }
            for (value, allowed) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
                match value {
                    "" => found.push(required(path, "")),
                    value if allowed.contains(&value) => {}
                    value => found.push(not_supported(path, value, &allowed)),
                }
            }
            if self.spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
                found.push(invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"));
            }
        }
        found
    }
}

/// `validatePullPolicy`.
pub(super) fn pull_policy(policy: &str, path: &Path) -> Option<schema::field::FieldError> {
    match policy {
        "Always" | "IfNotPresent" | "Never" => None,
        "" => Some(required(path, "")),
        other => Some(not_supported(path, other, &["Always", "IfNotPresent", "Never"])),
    }
}

/// `validateContainerOnlyForPod`.
pub(super) fn image_spaces(container: &Value, path: &Path) -> Option<schema::field::FieldError> {
    let image = container.text("image");
    (image.trim() != image)
        .then(|| invalid(&path.child("image"), image, "must not have leading or trailing whitespace"))
}

/// `validateContainerRestartPolicy`.
fn restart_policy(container: &Value, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let rules = container.list("restartPolicyRules");
    let at = path.child("restartPolicy");
    match container.text_opt("restartPolicy") {
        None if rules.is_empty() => return found,
        None => found.push(required(&at, "must specify restartPolicy when restart rules are used")),
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => found.push(not_supported(&at, other, &["Always", "Never", "OnFailure"])),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > 20 {
        found.push(too_many(&at, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&rule.text("action")) {
            found.push(not_supported(&at.child("action"), rule.text("action"), &actions));
        }
        let at = at.child("exitCodes");
        let Some(codes) = rule.field("exitCodes") else {
            found.push(required(&at, "must be specified"));
            continue;
        };
        if !["In", "NotIn"].contains(&codes.text("operator")) {
            found.push(not_supported(&at.child("operator"), codes.text("operator"), &["In", "NotIn"]));
        }
        if codes.list("values").len() > 255 {
            found.push(too_many(&at.child("values"), codes.list("values").len(), 255));
        }
    }
    found
}

/// `validateContainerPorts`.
fn ports(ports: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() {
                if !seen.insert(name) {
                    found.push(duplicate(&at.child("name"), name));
                }
            } else {
                found.extend(names::errors(&at.child("name"), name, messages));
            }
        }
        match port.int("containerPort") {
            0 => found.push(required(&at.child("containerPort"), "")),
            number => number_errors(&mut found, &at.child("containerPort"), number),
        }
        if port.int("hostPort") != 0 {
            number_errors(&mut found, &at.child("hostPort"), port.int("hostPort"));
        }
        match port.text("protocol") {
            "" => found.push(required(&at.child("protocol"), "")),
            "TCP" | "UDP" | "SCTP" => {}
            other => found.push(not_supported(&at.child("protocol"), other, &["SCTP", "TCP", "UDP"])),
        }
    }
    found
}

fn number_errors(found: &mut ErrorList, path: &Path, number: i64) {
    found.extend(names::port_number(number).iter().map(|message| invalid(path, number, message)));
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `ValidateEnv`.
fn env(variables: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        match variable.text("name") {
            "" => found.push(required(&at.child("name"), "")),
            name => found.extend(names::errors(&at.child("name"), name, names::env_var_name(name))),
        }
        if let Some(from) = variable.field("valueFrom") {
            found.extend(value_from(from, variable.text("value"), &at.child("valueFrom")));
        }
    }
    found
}

fn value_from(from: &Value, value: &str, path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    let mut sources = 0;
    if let Some(reference) = from.field("fieldRef") {
        sources += 1;
        found.extend(volumes::field_ref(reference, &ENV_FIELDS, &path.child("fieldRef")));
    }
    if let Some(reference) = from.field("resourceFieldRef") {
        sources += 1;
        found.extend(volumes::resource_field_ref(reference, false, &path.child("resourceFieldRef")));
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = from.field(kind) else { continue };
        sources += 1;
        let at = path.child(kind);
        let name = reference.text("name");
        found.extend(names::errors(&at.child("name"), name, names::dns_subdomain(name)));
        match reference.text("key") {
            "" => found.push(required(&at.child("key"), "")),
            key => found.extend(names::errors(&at.child("key"), key, names::config_map_key(key))),
        }
    }
    if let Some(reference) = from.field("fileKeyRef") {
        sources += 1;
        let at = path.child("fileKeyRef");
        match reference.text("key") {
            "" => found.push(required(&at.child("key"), "")),
            key => found.extend(names::errors(&at.child("key"), key, names::env_var_name(key))),
        }
        match reference.text("volumeName") {
            "" => found.push(required(&at.child("volumeName"), "")),
            name => found.extend(names::errors(&at.child("volumeName"), name, names::dns_label(name))),
        }
        match reference.text("path") {
            "" => found.push(required(&at.child("path"), "")),
            file => found.extend(volumes::no_backsteps(file, &at.child("path"))),
        }
    }
    let text = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return found,
        _ => "may not have more than one field specified at a time",
    };
    found.push(invalid(path, "", text));
    found
}

/// `ValidateEnvFrom`.
fn env_from(sources: &[Value], path: &Path) -> ErrorList {
    let mut found = ErrorList::new();
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            found.extend(names::errors(&at.child("prefix"), prefix, names::env_var_name(prefix)));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(reference) = source.field(kind) else { continue };
            count += 1;
            let at = at.child(kind).child("name");
            match reference.text("name") {
                "" => found.push(required(&at, "")),
                name => found.extend(names::errors(&at, name, names::dns_subdomain_name(name, true))),
            }
        }
        match count {
            0 => found.push(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => found.push(invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
    found
}
