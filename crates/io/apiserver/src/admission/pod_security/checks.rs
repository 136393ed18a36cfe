//! The Pod Security Standards, check by check, in upstream's words (`pod-security-admission/policy`).

use crate::admission::pod::{all_containers, items, text};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    Baseline,
    Restricted,
}

/// A reason and its detail.
type Found = Option<(String, String)>;

/// What the checks see.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    version: u32,
}

/// Every violation, by the name of its check.
pub(super) fn run(level: Level, version: u32, metadata: &Value, spec: &Value) -> Vec<(String, String)> {
    let pod = Pod { metadata, spec, version };
    let restricted = level == Level::Restricted;
    let since = |from: u32| restricted && version >= from;
    let found = [
        on(&pod, since(8), Pod::privilege_escalation),
        on(&pod, true, Pod::app_armor),
        on(&pod, !since(22), Pod::capabilities_baseline),
        on(&pod, since(22), Pod::capabilities_restricted),
        on(&pod, true, Pod::host_namespaces),
        on(&pod, !restricted, Pod::host_path),
        on(&pod, true, Pod::host_ports),
        on(&pod, version >= 34, Pod::probe_hosts),
        on(&pod, true, Pod::privileged),
        on(&pod, version < 35 || restricted || !pod.in_user_namespace(), Pod::proc_mount),
        on(&pod, restricted, Pod::volumes),
        on(&pod, restricted && !pod.relaxed(), Pod::non_root),
        on(&pod, since(23) && !pod.relaxed(), Pod::user),
        on(&pod, true, Pod::se_linux),
        on(&pod, !since(19), Pod::seccomp_baseline),
        on(&pod, since(19), Pod::seccomp_restricted),
        on(&pod, true, Pod::sysctls),
        on(&pod, true, Pod::windows_host_process),
    ];
    found.into_iter().flatten().collect()
}

fn on<'a>(pod: &Pod<'a>, wanted: bool, check: fn(&Pod<'a>) -> Found) -> Found {
    if wanted { check(pod) } else { None }
}

fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `containers "a", "b"`
fn named(what: &str, names: &[&str]) -> String {
    format!("{} {}", plural(what, names.len()), quoted(names))
}

fn found(reason: &str, detail: String) -> Found {
    Some((reason.to_owned(), detail))
}

impl<'a> Pod<'a> {
    fn in_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// Root inside a user namespace is nobody outside (since 1.35).
    fn relaxed(&self) -> bool {
        self.version >= 35 && self.in_user_namespace()
    }

    fn is_windows(&self) -> bool {
        self.version >= 25 && text(&self.spec["os"], "name") == "windows"
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        all_containers(self.spec)
    }

    /// Names of the containers that are so.
    fn where_(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is(container)).map(|container| text(container, "name")).collect()
    }

    /// `pod and container "c"`: who sets something, by its security context.
    fn setters(&self, is: impl Fn(&Value) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if is(&self.spec["securityContext"]) {
            setters.push("pod".to_owned());
        }
        let names = self.where_(|container| is(&container["securityContext"]));
        if !names.is_empty() {
            setters.push(named("container", &names));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }

    /// Values of a field of all security contexts that are not allowed.
    fn values(&self, read: impl Fn(&Value) -> Option<String>) -> BTreeSet<String> {
        let contexts = self.containers().map(|container| &container["securityContext"]);
        contexts.chain([&self.spec["securityContext"]]).filter_map(read).collect()
    }

    fn privilege_escalation(&self) -> Found {
        if self.is_windows() {
            return None;
        }
        let names = self.where_(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named("container", &names));
        (!names.is_empty()).then_some(())?;
        found("allowPrivilegeEscalation != false", detail)
    }

    fn app_armor(&self) -> Found {
        const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
        let bad = |context: &Value| {
            let of = context["appArmorProfile"]["type"].as_str()?;
            (!matches!(of, "RuntimeDefault" | "Localhost")).then(|| of.to_owned())
        };
        let mut values: Vec<String> = self.values(bad).into_iter().collect();
        let annotations = self.metadata["annotations"].as_object().into_iter().flatten();
        let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        let forbidden: Vec<String> = annotations
            .filter(|(key, value)| key.starts_with(ANNOTATION) && !allowed(value.as_str().unwrap_or_default()))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut setters: Vec<String> = self.setters(|context| bad(context).is_some()).into_iter().collect();
        if !forbidden.is_empty() {
            setters.push(plural("annotation", forbidden.len()));
        }
        values.extend(forbidden);
        (!setters.is_empty()).then_some(())?;
        let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
        found(&plural("forbidden AppArmor profile", values.len()), detail)
    }

    fn capabilities_baseline(&self) -> Found {
        const ALLOWED: [&str; 13] = [
            "AUDIT_WRITE",
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ];
        let detail = self.added(|capability| ALLOWED.contains(&capability))?;
        found("non-default capabilities", detail)
    }

    fn added(&self, allowed: impl Fn(&str) -> bool) -> Option<String> {
        let bad = |container: &'a Value| -> Vec<&'a str> {
            let added = items(&container["securityContext"]["capabilities"], "add").filter_map(Value::as_str);
            added.filter(|capability| !allowed(capability)).collect()
        };
        let all: BTreeSet<&str> = self.containers().flat_map(bad).collect();
        let names: Vec<&str> =
            self.containers().filter(|c| !bad(c).is_empty()).map(|container| text(container, "name")).collect();
        let (names_told, all) = (named("container", &names), quoted(all));
        (!names.is_empty()).then(|| format!("{names_told} must not include {all} in securityContext.capabilities.add"))
    }

    fn capabilities_restricted(&self) -> Found {
        if self.is_windows() {
            return None;
        }
        let keeps = self.where_(|container| {
            !items(&container["securityContext"]["capabilities"], "drop").any(|capability| capability == "ALL")
        });
        let mut details = Vec::new();
        if !keeps.is_empty() {
            let names = named("container", &keeps);
            details.push(format!("{names} must set securityContext.capabilities.drop=[\"ALL\"]"));
        }
        details.extend(self.added(|capability| capability == "NET_BIND_SERVICE"));
        (!details.is_empty()).then_some(())?;
        found("unrestricted capabilities", details.join("; "))
    }

    fn host_namespaces(&self) -> Found {
        let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
            .into_iter()
            .filter(|field| self.spec[*field] == true)
            .map(|field| format!("{field}=true"))
            .collect();
        (!shared.is_empty()).then_some(())?;
        found("host namespaces", shared.join(", "))
    }

    fn host_path(&self) -> Found {
        let volumes = items(self.spec, "volumes").filter(|volume| volume.get("hostPath").is_some());
        let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
        (!names.is_empty()).then_some(())?;
        found("hostPath volumes", named("volume", &names))
    }

    fn host_ports(&self) -> Found {
        let ports = |container: &Value| -> Vec<i64> {
            items(container, "ports").filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
        };
        let names = self.where_(|container| !ports(container).is_empty());
        (!names.is_empty()).then_some(())?;
        // Upstream sorts the numbers as text.
        let all: BTreeSet<String> = self.containers().flat_map(ports).map(|port| port.to_string()).collect();
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let (count, all) = (all.len(), all.into_iter().collect::<Vec<_>>().join(", "));
        found("hostPort", format!("{} {uses} {} {all}", named("container", &names), plural("hostPort", count)))
    }

    fn probe_hosts(&self) -> Found {
        let hosts = |container: &Value| -> Vec<String> {
            let lifecycle = &container["lifecycle"];
            let handlers = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
            let handlers = handlers.into_iter().chain([&lifecycle["postStart"], &lifecycle["preStop"]]);
            let all =
                handlers.flat_map(|handler| [text(&handler["httpGet"], "host"), text(&handler["tcpSocket"], "host")]);
            all.filter(|host| !host.is_empty()).map(str::to_owned).collect()
        };
        let mut names = self.where_(|container| !hosts(container).is_empty());
        (!names.is_empty()).then_some(())?;
        names.sort_unstable();
        let all: BTreeSet<String> = self.containers().flat_map(hosts).collect();
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("probe or lifecycle host", all.len());
        found("probe or lifecycle host", format!("{} {uses} {what} {}", named("container", &names), quoted(all)))
    }

    fn privileged(&self) -> Found {
        let names = self.where_(|container| container["securityContext"]["privileged"] == true);
        (!names.is_empty()).then_some(())?;
        found("privileged", format!("{} must not set securityContext.privileged=true", named("container", &names)))
    }

    fn proc_mount(&self) -> Found {
        let bad = |container: &Value| {
            let mount = container["securityContext"]["procMount"].as_str()?;
            (mount != "Default").then(|| mount.to_owned())
        };
        let names = self.where_(|container| bad(container).is_some());
        (!names.is_empty()).then_some(())?;
        let values: BTreeSet<String> = self.containers().filter_map(bad).collect();
        let detail =
            format!("{} must not set securityContext.procMount to {}", named("container", &names), quoted(values));
        found("procMount", detail)
    }

    fn volumes(&self) -> Found {
        const ALLOWED: [&str; 9] = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "image",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        let bad = items(self.spec, "volumes").filter(|volume| ALLOWED.iter().all(|kind| volume.get(kind).is_none()));
        let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
        for volume in bad {
            names.push(text(volume, "name"));
            let kind = volume.as_object().into_iter().flat_map(|fields| fields.keys()).find(|field| *field != "name");
            kinds.insert(kind.map_or("unknown", String::as_str));
        }
        (!names.is_empty()).then_some(())?;
        let uses = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("restricted volume type", kinds.len());
        found("restricted volume types", format!("{} {uses} {what} {}", named("volume", &names), quoted(kinds)))
    }

    fn non_root(&self) -> Found {
        const REASON: &str = "runAsNonRoot != true";
        if let Some(setters) = self.setters(|context| context["runAsNonRoot"] == false) {
            return found(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
        }
        if self.spec["securityContext"]["runAsNonRoot"] == true {
            return None;
        }
        let names = self.where_(|container| container["securityContext"]["runAsNonRoot"].is_null());
        (!names.is_empty()).then_some(())?;
        found(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named("container", &names)))
    }

    fn user(&self) -> Found {
        let setters = self.setters(|context| context["runAsUser"] == 0)?;
        found("runAsUser=0", format!("{setters} must not set runAsUser=0"))
    }

    fn se_linux(&self) -> Found {
        let engine = self.version >= 31;
        let bad_type = |context: &Value| {
            let of = text(&context["seLinuxOptions"], "type");
            let allowed = matches!(of, "" | "container_t" | "container_init_t" | "container_kvm_t");
            (!(allowed || (engine && of == "container_engine_t"))).then(|| of.to_owned())
        };
        let sets = |context: &Value, field: &str| !text(&context["seLinuxOptions"], field).is_empty();
        let setters =
            self.setters(|context| bad_type(context).is_some() || sets(context, "user") || sets(context, "role"))?;
        let mut details = Vec::new();
        let types = self.values(bad_type);
        if !types.is_empty() {
            details.push(format!("{} {}", plural("type", types.len()), quoted(types)));
        }
        for field in ["user", "role"] {
            if self.setters(|context| sets(context, field)).is_some() {
                details.push(format!("{field} may not be set"));
            }
        }
        let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", details.join("; "));
        found("seLinuxOptions", detail)
    }

    fn seccomp_baseline(&self) -> Found {
        let bad = |context: &Value| {
            let of = context["seccompProfile"]["type"].as_str()?;
            (!matches!(of, "RuntimeDefault" | "Localhost")).then(|| of.to_owned())
        };
        let setters = self.setters(|context| bad(context).is_some())?;
        let values = quoted(self.values(bad));
        found("seccompProfile", format!("{setters} must not set securityContext.seccompProfile.type to {values}"))
    }

    fn seccomp_restricted(&self) -> Found {
        if self.is_windows() {
            return None;
        }
        if let Some(violation) = self.seccomp_baseline() {
            return Some(violation);
        }
        let unset = |context: &Value| !context["seccompProfile"].is_object();
        if !unset(&self.spec["securityContext"]) {
            return None;
        }
        let names = self.where_(|container| unset(&container["securityContext"]));
        (!names.is_empty()).then_some(())?;
        let names = named("container", &names);
        let values = "\"RuntimeDefault\" or \"Localhost\"";
        found("seccompProfile", format!("pod or {names} must set securityContext.seccompProfile.type to {values}"))
    }

    fn sysctls(&self) -> Found {
        /// Names, and the version that they are safe from.
        const SAFE: [(&str, u32); 14] = [
            ("kernel.shm_rmid_forced", 0),
            ("net.ipv4.ip_local_port_range", 0),
            ("net.ipv4.tcp_syncookies", 0),
            ("net.ipv4.ping_group_range", 0),
            ("net.ipv4.ip_unprivileged_port_start", 0),
            ("net.ipv4.ip_local_reserved_ports", 27),
            ("net.ipv4.tcp_keepalive_time", 29),
            ("net.ipv4.tcp_fin_timeout", 29),
            ("net.ipv4.tcp_keepalive_intvl", 29),
            ("net.ipv4.tcp_keepalive_probes", 29),
            ("net.ipv4.tcp_rmem", 32),
            ("net.ipv4.tcp_wmem", 32),
            ("net.ipv4.tcp_slow_start_after_idle", 37),
            ("net.ipv4.tcp_notsent_lowat", 37),
        ];
        let safe = |name: &str| SAFE.iter().any(|(known, from)| *known == name && self.version >= *from);
        let all = items(&self.spec["securityContext"], "sysctls").map(|sysctl| text(sysctl, "name"));
        let forbidden: Vec<&str> = all.filter(|name| !safe(name)).collect();
        (!forbidden.is_empty()).then_some(())?;
        found("forbidden sysctls", forbidden.join(", "))
    }

    fn windows_host_process(&self) -> Found {
        let setters = self.setters(|context| context["windowsOptions"]["hostProcess"] == true)?;
        found("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
    }
}
