//! nftables over netlink: a table of family `inet` as [`network::nft`] describes it.
//!
//! The table is owned where the kernel has it (6.9): nobody but the holder of the socket can change it, not even by `nft
//! flush ruleset`, and it outlives the socket. Elsewhere it is anybody's, and [`Watcher`] tells when somebody touched it.

mod elements;
mod expressions;
mod watcher;

use crate::NetlinkError;
use crate::message::{Message, attributes};
use crate::socket::{Socket, is, text};
use elements::put_elements;
use network::nft::{Base, Chain, Change, Elements, Hook, Kind, Rule, Set, Table, Type, Values};
pub use watcher::Watcher;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
/// `NFPROTO_INET`, and the other family asked for in dumps: any.
const INET: u8 = 1;
const ANY_FAMILY: u8 = 0;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNED: u32 = 0x2;
const TABLE_PERSISTS: u32 = 0x4;
/// The first attribute of chains, rules, sets and lists of elements: the table's name.
const IN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POLICY_ACCEPT: u32 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_IS_MAP: u32 = 0x8;
const SET_IS_CONCATENATED: u32 = 0x80;
const DESCRIPTION_CONCATENATION: u16 = 2;
const FIELD_LENGTH: u16 = 1;
const LIST_ELEMENT: u16 = 1;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;

/// One table in the kernel. Whoever owns it holds it: another process may only take it over when this one is gone.
pub struct Nftables {
    socket: Socket,
    table: Table,
    owned: bool,
}

impl Nftables {
    /// Puts the table in the place of whatever stands under its name, in one step. Blocks.
    pub fn install(table: Table, elements: &Elements) -> Result<Nftables, NetlinkError> {
        let mut socket = Socket::netfilter()?;
        match install(&mut socket, &table, elements, true) {
            Err(error) if is(&error, libc::EOPNOTSUPP) || is(&error, libc::EINVAL) => {
                install(&mut socket, &table, elements, false)?;
                Ok(Nftables { socket, table, owned: false })
            }
            result => result.map(|()| Nftables { socket, table, owned: true }),
        }
    }

    /// As [`Nftables::install`] on a kernel without owned tables.
    pub fn install_unowned(table: Table, elements: &Elements) -> Result<Nftables, NetlinkError> {
        let mut socket = Socket::netfilter()?;
        install(&mut socket, &table, elements, false)?;
        Ok(Nftables { socket, table, owned: false })
    }

    /// False: others can change it, see [`Watcher`].
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// The netlink port that changes of this table come from.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    /// All of it, or nothing. Blocks.
    pub fn change(&mut self, change: &Change) -> Result<(), NetlinkError> {
        let mut batch = Vec::new();
        for (elements, add) in [(&change.removed, false), (&change.added, true)] {
            put_elements(&mut batch, &self.table, elements, add);
        }
        commit(&mut self.socket, batch)
    }

    /// Makes it again as it should be, whatever became of it. Blocks.
    pub fn restore(&mut self, elements: &Elements) -> Result<(), NetlinkError> {
        install(&mut self.socket, &self.table, elements, self.owned)
    }
}

fn install(socket: &mut Socket, table: &Table, elements: &Elements, owned: bool) -> Result<(), NetlinkError> {
    let mut batch = Vec::new();
    if exists(socket, &table.name)? {
        batch.push(delete_table(&table.name));
    }
    let flags = if owned { TABLE_OWNED | TABLE_PERSISTS } else { 0 };
    let make = message(NEW_TABLE, libc::NLM_F_CREATE, format!("make table {}", table.name));
    batch.push(make.text(TABLE_NAME, &table.name).be32(TABLE_FLAGS, flags));
    for chain in &table.chains {
        batch.push(new_chain(table, chain));
    }
    for (id, set) in table.sets.iter().enumerate() {
        batch.push(new_set(table, set, id as u32 + 1));
    }
    // Rules come before elements: a rule that looks into a map checks every element of it.
    for chain in &table.chains {
        for (number, rule) in chain.rules.iter().enumerate() {
            batch.push(new_rule(table, chain, rule, number + 1));
        }
    }
    put_elements(&mut batch, table, elements, true);
    commit(socket, batch)
}

/// Removes the table, if it is there and nobody holds it. Blocks.
pub fn remove_table(name: &str) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    if exists(&mut socket, name)? { commit(&mut socket, vec![delete_table(name)]) } else { Ok(()) }
}

/// The names of all tables of family `inet`. Blocks.
pub fn tables() -> Result<Vec<String>, NetlinkError> {
    let mut socket = Socket::netfilter()?;
    let list = list_body(GET_TABLE, libc::NLM_F_DUMP, ANY_FAMILY, "list tables");
    let all = socket.query(list)?.into_iter().filter(|(_, body)| body.first() == Some(&INET));
    Ok(all.map(|(_, body)| text(&body, 4, TABLE_NAME)).collect())
}

fn exists(socket: &mut Socket, name: &str) -> Result<bool, NetlinkError> {
    let get = message(GET_TABLE, 0, format!("look for table {name}")).text(TABLE_NAME, name);
    Ok(!socket.query(get.tolerate(&[libc::ENOENT]))?.is_empty())
}

fn delete_table(name: &str) -> Message {
    message(DELETE_TABLE, 0, format!("remove table {name}")).text(TABLE_NAME, name)
}

fn new_chain(table: &Table, chain: &Chain) -> Message {
    let make = message(NEW_CHAIN, libc::NLM_F_CREATE, format!("make chain {} {}", table.name, chain.name));
    let make = make.text(IN_TABLE, &table.name).text(CHAIN_NAME, &chain.name);
    let Some(Base { kind, hook, priority }) = chain.base else { return make };
    let number = match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    make.nest(CHAIN_HOOK, |m| m.be32(HOOK_NUMBER, number).be32(HOOK_PRIORITY, priority.cast_unsigned()))
        .be32(CHAIN_POLICY, POLICY_ACCEPT)
        .text(CHAIN_TYPE, if kind == Kind::Nat { "nat" } else { "filter" })
}

fn new_set(table: &Table, set: &Set, id: u32) -> Message {
    let make = message(NEW_SET, libc::NLM_F_CREATE, format!("make set {} {}", table.name, set.name));
    let concatenated = if set.key.len() > 1 { SET_IS_CONCATENATED } else { 0 };
    let map = if set.values == Values::None { 0 } else { SET_IS_MAP };
    let mut make = make
        .text(IN_TABLE, &table.name)
        .text(SET_NAME, &set.name)
        .be32(SET_FLAGS, concatenated | map)
        .be32(SET_KEY_TYPE, type_number(&set.key))
        .be32(SET_KEY_LENGTH, length(&set.key));
    match &set.values {
        Values::None => {}
        Values::Data(parts) => {
            make = make.be32(SET_DATA_TYPE, type_number(parts)).be32(SET_DATA_LENGTH, length(parts));
        }
        Values::Verdicts => make = make.be32(SET_DATA_TYPE, DATA_TYPE_VERDICT),
    }
    make = make.be32(SET_ID, id);
    if set.key.len() < 2 {
        return make;
    }
    let field = |m: Message, part: &Type| m.nest(LIST_ELEMENT, |m| m.be32(FIELD_LENGTH, bytes(*part)));
    make.nest(SET_DESCRIPTION, |m| m.nest(DESCRIPTION_CONCATENATION, |m| set.key.iter().fold(m, field)))
}

fn new_rule(table: &Table, chain: &Chain, rule: &Rule, number: usize) -> Message {
    let what = format!("add rule {number} to chain {} {}", table.name, chain.name);
    let make = message(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, what);
    let make = make.text(IN_TABLE, &table.name).text(RULE_CHAIN, &chain.name);
    make.nest(RULE_EXPRESSIONS, |m| expressions::put(m, table, rule))
}

/// As `nft` numbers types: six bits for each part of a concatenation.
fn type_number(parts: &[Type]) -> u32 {
    parts.iter().fold(0, |number, part| {
        let one = match part {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Protocol => 12,
            Type::Port => 13,
        };
        number << 6 | one
    })
}

/// Of one part; in a concatenation each is filled up to four bytes.
fn bytes(part: Type) -> u32 {
    match part {
        Type::Ipv4 => 4,
        Type::Ipv6 => 16,
        Type::Protocol => 1,
        Type::Port => 2,
    }
}

fn length(parts: &[Type]) -> u32 {
    if let [part] = parts { bytes(*part) } else { parts.iter().map(|part| bytes(*part).next_multiple_of(4)).sum() }
}

fn message(kind: u16, flags: i32, what: String) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags as u16, &[INET, 0, 0, 0], what)
}

fn list_body(kind: u16, flags: i32, family: u8, what: &str) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags as u16, &[family, 0, 0, 0], what)
}

/// All of the batch, or nothing.
fn commit(socket: &mut Socket, mut batch: Vec<Message>) -> Result<(), NetlinkError> {
    if batch.is_empty() {
        return Ok(());
    }
    let edge = |kind, what| {
        let mut body = [0; 4];
        body[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
        Message::new(kind, 0, &body, what)
    };
    batch.insert(0, edge(BATCH_BEGIN, "begin to change nftables"));
    batch.push(edge(BATCH_END, "finish changing nftables"));
    socket.batch(batch)
}

/// Whether an answer or a notification is about the table.
fn is_about(body: &[u8], table: &str) -> bool {
    let mut attributes = attributes(body.get(4..).unwrap_or_default());
    let name = attributes.find(|(kind, _)| *kind == IN_TABLE).map(|(_, value)| value);
    body.first() == Some(&INET) && name.is_some_and(|name| name.strip_suffix(&[0]) == Some(table.as_bytes()))
}
