//! cgroup v2's device rules: a small eBPF program attached to the group, made from the lines v1 takes
//! (`c 1:3 rwm`, `b *:* m`).

use crate::sys::{self, Errno};
use std::io::{Error, Result};
use std::path::Path;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Groups below may have programs of their own, as those of a runtime in a container; all of them must allow.
const ALLOW_MULTI: u32 = 2;

/// One eBPF instruction.
const fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    code as u64 | (registers as u64) << 8 | ((offset as u16) as u64) << 16 | ((immediate as u32) as u64) << 32
}

/// Registers of an instruction: destination and source.
const fn regs(to: u8, from: u8) -> u8 {
    to | from << 4
}

/// A rule, as in `devices.allow`.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// 1: block, 2: character, `None`: both.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    /// mknod 1, read 2, write 4.
    access: i32,
}

fn parse(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let kind = match words.next()? {
        "a" => None,
        "b" => Some(1),
        "c" => Some(2),
        _ => return None,
    };
    let (major, minor) = words.next().unwrap_or("*:*").split_once(':')?;
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let access = words.next().unwrap_or("rwm").chars().try_fold(0, |bits, c| match c {
        'm' => Some(bits | 1),
        'r' => Some(bits | 2),
        'w' => Some(bits | 4),
        _ => None,
    })?;
    Some(Rule { kind, major: number(major)?, minor: number(minor)?, access })
}

/// The program: 1 (allow) when a rule covers the access, else 0.
fn compile(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        // r2 = kind (low half of the first word), r3 = access (high half), r4 = major, r5 = minor
        insn(0x61, regs(2, 1), 0, 0),
        insn(0xbc, regs(3, 2), 0, 0),
        insn(0x54, regs(2, 0), 0, 0xffff),
        insn(0x74, regs(3, 0), 0, 16),
        insn(0x61, regs(4, 1), 4, 0),
        insn(0x61, regs(5, 1), 8, 0),
    ];
    for rule in rules {
        let mut block = Vec::new();
        let compare = |register: u8, value: Option<i32>, block: &mut Vec<(u64, bool)>| {
            if let Some(value) = value {
                block.push((insn(0x56, regs(register, 0), 0, value), true));
            }
        };
        compare(2, rule.kind, &mut block);
        if rule.access != 7 {
            // r1 = access & !allowed; anything left: not this rule. (r1 is no longer needed.)
            block.push((insn(0xbc, regs(1, 3), 0, 0), false));
            block.push((insn(0x54, regs(1, 0), 0, !rule.access & 7), false));
            block.push((insn(0x56, regs(1, 0), 0, 0), true));
        }
        compare(4, rule.major, &mut block);
        compare(5, rule.minor, &mut block);
        block.push((insn(0xb4, regs(0, 0), 0, 1), false));
        block.push((insn(0x95, 0, 0, 0), false));
        let len = block.len();
        for (at, (instruction, jumps)) in block.into_iter().enumerate() {
            let offset = if jumps { (len - at - 1) as u64 } else { 0 };
            code.push(instruction | offset << 16);
        }
    }
    code.push(insn(0xb4, regs(0, 0), 0, 0));
    code.push(insn(0x95, 0, 0, 0));
    code
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    more: [u64; 12],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

/// Allows only what `lines` say to the group at `dir`.
pub(crate) fn attach(dir: &Path, lines: &[String]) -> Result<()> {
    let rules = lines
        .iter()
        .map(|line| parse(line).ok_or_else(|| Error::other(format!("device rule {line:?} is not understood"))))
        .collect::<Result<Vec<_>>>()?;
    let code = compile(&rules);
    let license = c"Apache-2.0";
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    let group = std::fs::File::open(dir)?;
    // SAFETY: the structures are laid out as the kernel's, and live through the calls.
    unsafe {
        let program = libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>());
        if program < 0 {
            return Err(describe(sys::errno(), "device rules"));
        }
        let attach = Attach {
            target: std::os::fd::AsRawFd::as_raw_fd(&group) as u32,
            program: program as u32,
            kind: ATTACH_CGROUP_DEVICE,
            flags: ALLOW_MULTI,
            ..Attach::default()
        };
        let attached = libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>());
        let error = sys::errno();
        sys::close(program as i32);
        if attached < 0 {
            return Err(describe(error, "attaching device rules"));
        }
    }
    Ok(())
}

fn describe(error: Errno, what: &str) -> Error {
    Error::other(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Runs the few instructions `compile` uses.
    fn allowed(code: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut r = [0u32; 6];
        let mut at = 0;
        loop {
            let i = code[at];
            let (to, from) = ((i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, immediate) = ((i >> 16) as u16 as usize, (i >> 32) as u32);
            match i as u8 {
                0x61 => r[to] = context[offset / 4],
                0xbc => r[to] = r[from],
                0x54 => r[to] &= immediate,
                0x74 => r[to] >>= immediate,
                0xb4 => r[to] = immediate,
                0x56 => at += if r[to] == immediate { 0 } else { offset },
                0x95 => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn rules_allow_what_v1_would() {
        let lines = ["c *:* m", "b *:* m", "c 1:3 rwm", "c 5:0 rw", "c 136:* rwm"];
        let rules: Vec<Rule> = lines.iter().map(|l| parse(l).unwrap()).collect();
        let code = compile(&rules);
        let (block, character) = (1, 2);
        let (mknod, read, write) = (1, 2, 4);
        let cases = [
            (character, read | write, 1, 3, true),
            (character, read, 1, 5, false),
            (character, mknod, 10, 200, true),
            (block, mknod, 8, 0, true),
            (block, read, 8, 0, false),
            (character, read | write, 5, 0, true),
            (character, read | mknod, 5, 0, false),
            (character, write, 136, 77, true),
        ];
        for (kind, access, major, minor, expected) in cases {
            assert_eq!(allowed(&code, kind, access, major, minor), expected, "{kind} {access} {major}:{minor}");
        }
        assert!(allowed(&compile(&[parse("a").unwrap()]), block, read, 9, 9));
        assert!(parse("x 1:3 r").is_none() && parse("c 1-3 r").is_none() && parse("c 1:3 rz").is_none());
    }
}
