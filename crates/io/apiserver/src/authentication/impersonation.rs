//! `Impersonate-*` headers: who one asks to be, and whether one may (upstream `endpoints/filters/impersonation`, KEP-5284).
//!
//! The constrained modes are asked first, in order, then the plain `impersonate` verb; when none allows, the client
//! reads the first mode's refusal.

use super::service_account::{groups as service_account_groups, split_user_name};
use super::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
use crate::authorization::{Attributes, Authorizer, forbidden};
use crate::lookup::Lookup;
use crate::refusal::Refusal;
use std::collections::BTreeMap;

const GROUP: &str = "authentication.k8s.io";
const EXTRA_HEADER: &str = "impersonate-extra-";
/// From so many values on, one question with a wildcard is asked before one per value.
const MANY: usize = 4;

/// The wanted user of a request's headers (names in lower case, in any order), `None` when nobody is impersonated.
///
/// # Errors
/// Groups, uid or extra without a user: 400.
pub fn wanted<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Option<User>, Refusal> {
    let mut user = User::default();
    let mut other = false;
    for (name, value) in headers {
        match name {
            "impersonate-user" if user.name.is_empty() => value.clone_into(&mut user.name),
            "impersonate-uid" if user.uid.is_empty() => {
                value.clone_into(&mut user.uid);
                other |= !value.is_empty();
            }
            "impersonate-group" => {
                user.groups.push(value.to_owned());
                other = true;
            }
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA_HEADER) {
                    user.extra.entry(unescape(&key.to_lowercase())).or_default().push(value.to_owned());
                    other = true;
                }
            }
        }
    }
    if user.name.is_empty() {
        return if other {
            Err(Refusal::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))))
        } else {
            Ok(None)
        };
    }
    Ok(Some(user))
}

/// The user that the requester becomes. `request` is the request's own question, with the requester as its user.
///
/// # Errors
/// No mode of impersonation is allowed: 403.
pub fn impersonate(
    wanted: &User,
    request: &Attributes<'_>,
    authorizer: &Authorizer,
    lookup: &dyn Lookup,
) -> Result<User, Refusal> {
    let check = Check { wanted, request, authorizer, lookup };
    let mut first = None;
    for mode in MODES {
        if !mode.applies(wanted, request.user) {
            continue;
        }
        match check.mode(mode) {
            Ok(user) => return Ok(user),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    Err(first.unwrap_or_else(|| Refusal::internal("all impersonation modes failed")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn applies(self, wanted: &User, requester: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let on = requester.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice);
                let is_account = split_user_name(&requester.name).is_some();
                only_name && is_account && matches!((on, node), (Some([on]), Some(node)) if on == node)
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && split_user_name(&wanted.name).is_some(),
            Self::UserInfo => node.is_none() && split_user_name(&wanted.name).is_none(),
            Self::Legacy => true,
        }
    }
}

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

struct Check<'a> {
    wanted: &'a User,
    request: &'a Attributes<'a>,
    authorizer: &'a Authorizer,
    lookup: &'a dyn Lookup,
}

impl Check<'_> {
    fn mode(&self, mode: Mode) -> Result<User, Refusal> {
        if mode != Mode::Legacy {
            let verb = format!("impersonate-on:{}:{}", mode.name(), self.request.verb);
            self.authorizer.check(&Attributes { verb: &verb, ..*self.request }, self.lookup)?;
        }
        let verb = if mode == Mode::Legacy { "impersonate".to_owned() } else { format!("impersonate:{}", mode.name()) };
        let mut user = self.wanted.clone();
        self.name(mode, &verb, &mut user)?;
        if !self.wanted.uid.is_empty() {
            self.ask(&verb, GROUP, "uids", "", "", &self.wanted.uid)?;
        }
        self.groups(mode, &verb)?;
        self.extra(mode, &verb)?;
        complete_groups(&mut user);
        Ok(user)
    }

    fn ask(
        &self,
        verb: &str,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        let version = "v1";
        let question = Attributes {
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::new(self.request.user, verb)
        };
        self.authorizer.check(&question, self.lookup)
    }

    fn name(&self, mode: Mode, verb: &str, user: &mut User) -> Result<(), Refusal> {
        let group = if mode == Mode::Legacy { "" } else { GROUP };
        if let Some((namespace, name)) = split_user_name(&self.wanted.name) {
            if self.wanted.groups.is_empty() {
                user.groups = service_account_groups(namespace);
            }
            return self.ask(verb, group, "serviceaccounts", "", namespace, name);
        }
        match node_name(&self.wanted.name) {
            Some(node) if mode != Mode::Legacy => {
                user.groups = vec!["system:nodes".to_owned()];
                let node = if mode == Mode::AssociatedNode { "*" } else { node };
                self.ask(verb, group, "nodes", "", "", node)
            }
            _ => self.ask(verb, group, "users", "", "", &self.wanted.name),
        }
    }

    fn groups(&self, mode: Mode, verb: &str) -> Result<(), Refusal> {
        let groups = &self.wanted.groups;
        let group = if mode == Mode::Legacy { "" } else { GROUP };
        if mode != Mode::Legacy {
            let refuse = |name: &str, why: &str| {
                let question =
                    Attributes { group, resource: "groups", name, ..Attributes::new(self.request.user, verb) };
                Err(forbidden(&question, why))
            };
            if groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if self.wanted.is_in(MASTERS) {
                return refuse(MASTERS, "impersonating the system:masters group is not allowed");
            }
            if groups.len() >= MANY && self.ask(verb, group, "groups", "", "", "*").is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|name| self.ask(verb, group, "groups", "", "", name))
    }

    fn extra(&self, mode: Mode, verb: &str) -> Result<(), Refusal> {
        let extra = &self.wanted.extra;
        if mode != Mode::Legacy {
            if let Some(why) = wrong_extra(extra) {
                let question =
                    Attributes { group: GROUP, resource: "userextras", ..Attributes::new(self.request.user, verb) };
                return Err(forbidden(&question, why));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count >= MANY && self.ask(verb, GROUP, "userextras", "*", "", "*").is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.ask(verb, GROUP, "userextras", key, "", value)?;
            }
        }
        Ok(())
    }
}

fn wrong_extra(extra: &BTreeMap<String, Vec<String>>) -> Option<&'static str> {
    if extra.contains_key("") {
        return Some("impersonating the empty string key in extra is not allowed");
    }
    let empty = extra.values().flatten().any(String::is_empty);
    empty.then_some("impersonating the empty string value in extra is not allowed")
}

/// Everyone is either authenticated or not.
fn complete_groups(user: &mut User) {
    let group = if user.name == ANONYMOUS {
        UNAUTHENTICATED
    } else if user.is_in(UNAUTHENTICATED) {
        return;
    } else {
        AUTHENTICATED
    };
    if !user.is_in(group) {
        user.groups.push(group.to_owned());
    }
}

/// Percent-decoding of an extra key; a malformed one stays as it is.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let decoded =
            tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).map(|hex| u8::from_str_radix(hex, 16));
        let Some(Ok(byte)) = decoded else {
            return key.to_owned();
        };
        bytes.push(byte);
        rest = tail.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// How Go's `%#v` prints a `user.DefaultInfo`, as upstream's message does.
fn go_syntax(user: &User) -> String {
    let strings =
        |values: &[String]| -> String { values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ") };
    let groups = if user.groups.is_empty() {
        "[]string(nil)".to_owned()
    } else {
        format!("[]string{{{}}}", strings(&user.groups))
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let entries: Vec<String> =
            user.extra.iter().map(|(k, v)| format!("{k:?}:[]string{{{}}}", strings(v))).collect();
        format!("map[string][]string{{{}}}", entries.join(", "))
    };
    format!("&user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.uid)
}
