//! The filter of system calls: none, the runtime's default, or a profile file in the format Docker and OCI share.

use super::process;
use crate::types::{RuntimeError, Seccomp, SecurityContext};
use serde::Deserialize;
use shim::seccomp::{Action, Compare, Condition, Profile, Rule, compile, default_profile};

/// The program for a container; empty: unconfined. A privileged one is, whatever it says.
pub(super) fn program(security: &SecurityContext) -> Result<Vec<u8>, RuntimeError> {
    if security.privileged {
        return Ok(Vec::new());
    }
    let bounding = process::capabilities(security)?.bounding;
    let profile = match &security.seccomp {
        Seccomp::Unconfined => return Ok(Vec::new()),
        Seccomp::RuntimeDefault => default_profile(bounding),
        Seccomp::Localhost(path) => {
            let failed = |e: &dyn std::fmt::Display| {
                RuntimeError::Failed(format!("cannot load seccomp profile {:?}: {e}", path.display().to_string()))
            };
            let text = std::fs::read(path).map_err(|e| failed(&e))?;
            parse(&text, bounding).map_err(|e| failed(&e))?
        }
    };
    compile(&profile).map_err(RuntimeError::Failed)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProfile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<RawArch>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawArch {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<RawCondition>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCondition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Docker's conditions on a rule.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: String,
}

fn parse(text: &[u8], bounding: u64) -> Result<Profile, String> {
    let raw: RawProfile = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if !raw.listener_path.is_empty() {
        return Err("listenerPath is not supported".into());
    }
    // There is one thread to filter: this one changes nothing.
    if let Some(flag) = raw.flags.iter().flatten().find(|flag| *flag != "SECCOMP_FILTER_FLAG_TSYNC") {
        return Err(format!("flag {flag} is not supported"));
    }
    let mapped = raw.arch_map.iter().flatten().filter(|map| map.architecture == "SCMP_ARCH_X86_64");
    let mut arches =
        mapped.flat_map(|map| map.sub_architectures.iter().flatten()).chain(raw.architectures.iter().flatten());
    let x86 = arches.any(|arch| arch == "SCMP_ARCH_X86");
    let default_errno = raw.default_errno_ret.unwrap_or(libc::EPERM as u16);
    let mut rules = Vec::new();
    for rule in raw.syscalls.into_iter().flatten() {
        if rule.includes.applies(bounding, true) && !rule.excludes.applies(bounding, false) {
            rules.push(rule.parse()?);
        }
    }
    Ok(Profile { default: action(&raw.default_action, Some(default_errno))?, rules, x86 })
}

impl Filter {
    /// Whether a condition of it is met; with none, `empty`.
    fn applies(&self, bounding: u64, empty: bool) -> bool {
        let has = |name: &String| shim::capabilities::bit(name).is_some_and(|bit| bounding & bit != 0);
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let list = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
        let (caps, arches) = (list(&self.caps), list(&self.arches));
        let mut met = Vec::new();
        met.extend(caps.map(|caps| if empty { caps.iter().all(has) } else { caps.iter().any(has) }));
        met.extend(arches.map(|arches| arches.iter().any(|a| a == arch)));
        if !self.min_kernel.is_empty() {
            met.push(kernel_is_at_least(&self.min_kernel));
        }
        // An inclusion needs all that it names, an exclusion one.
        if empty { met.iter().all(|m| *m) } else { met.iter().any(|m| *m) }
    }
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let parse = |text: &str| -> Vec<u32> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        vec![parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
    };
    parse(&rustix::system::uname().release().to_string_lossy()) >= parse(wanted)
}

impl RawRule {
    fn parse(self) -> Result<Rule, String> {
        let mut names = self.names.unwrap_or_default();
        if !self.name.is_empty() {
            names.push(self.name);
        }
        let conditions = self.args.into_iter().flatten().map(RawCondition::parse);
        Ok(Rule {
            names,
            action: action(&self.action, self.errno_ret)?,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }
}

impl RawCondition {
    fn parse(self) -> Result<Condition, String> {
        let compare = match self.op.as_str() {
            "SCMP_CMP_NE" => Compare::NotEqual,
            "SCMP_CMP_LT" => Compare::Less,
            "SCMP_CMP_LE" => Compare::LessOrEqual,
            "SCMP_CMP_EQ" => Compare::Equal,
            "SCMP_CMP_GE" => Compare::GreaterOrEqual,
            "SCMP_CMP_GT" => Compare::Greater,
            "SCMP_CMP_MASKED_EQ" => Compare::MaskedEqual,
            other => return Err(format!("operator {other:?} is not known")),
        };
        if self.index > 5 {
            return Err(format!("a call has no argument {}", self.index));
        }
        Ok(Condition { index: self.index, compare, value: self.value, value_two: self.value_two })
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    let errno = errno.unwrap_or(libc::EPERM as u16);
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRACE" => Action::Trace(errno),
        other => return Err(format!("action {other:?} is not supported")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn profiles_are_read_as_docker_writes_them() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":null},
              {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]},
               "args":[{"index":0,"value":5,"op":"SCMP_CMP_MASKED_EQ"}]},
              {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.1"}},
              {"name":"open","action":"SCMP_ACT_ERRNO","errnoRet":13,"includes":{"minKernel":"4.8"}}]}"#;
        let names = |profile: &Profile| profile.rules.iter().map(|r| r.names.join(",")).collect::<Vec<_>>();
        let plain = parse(text, 0).unwrap();
        assert_eq!(plain.default, Action::Errno(38));
        assert!(plain.x86);
        assert_eq!(names(&plain), ["read,write", "clone", "open"]);
        assert_eq!(plain.rules[2].action, Action::Errno(13));
        let admin = parse(text, shim::capabilities::bit("SYS_ADMIN").unwrap()).unwrap();
        assert_eq!(names(&admin), ["read,write", "mount", "open"]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let cases: [(&str, &str); 4] = [
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#, "SECCOMP_FILTER_FLAG_LOG"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
                "argument 6",
            ),
        ];
        for (text, word) in cases {
            let error = parse(text.as_bytes(), 0).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
