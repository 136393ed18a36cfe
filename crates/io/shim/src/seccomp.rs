//! Seccomp profiles, compiled to one classic BPF program: a binary search over the call's number, then conditions on
//! its arguments.

mod default;

pub use default::default_profile;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
    Log,
    Trace(u16),
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
            Action::Trap => 0x0003_0000,
            Action::Log => 0x7ffc_0000,
            Action::Trace(value) => 0x7ff0_0000 | u32::from(value),
        }
    }
}

/// How an argument is compared with a condition's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & value == value_two`.
    MaskedEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub index: u32,
    pub compare: Compare,
    pub value: u64,
    pub value_two: u64,
}

/// Calls with one action, if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub default: Action,
    pub rules: Vec<Rule>,
    /// On x86_64: programs of 32 bits, too; otherwise their calls kill them.
    pub x86: bool,
}

/// One instruction, as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;

const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_X86: u32 = 0x4000_0003;
const ARCH_AARCH64: u32 = 0xc000_00b7;

/// Programs longer than this the kernel refuses.
const MAX_INSTRUCTIONS: usize = 4096;

fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// What a call leads to.
#[derive(Debug, Clone, PartialEq)]
struct Leaf {
    /// In order: the first whose conditions hold decides.
    conditional: Vec<(Vec<Condition>, u32)>,
    otherwise: u32,
}

/// The program, 8 bytes an instruction; `Err` when it would be too long.
pub fn compile(profile: &Profile) -> Result<Vec<u8>, String> {
    let native: fn(&str) -> Option<u32> = if cfg!(target_arch = "aarch64") { number_aarch64 } else { number_x86_64 };
    let native_arch = if cfg!(target_arch = "aarch64") { ARCH_AARCH64 } else { ARCH_X86_64 };
    let mut arches = vec![(native_arch, calls(profile, native))];
    if cfg!(target_arch = "x86_64") && profile.x86 {
        arches.push((ARCH_X86, calls(profile, number_x86)));
    }
    let mut program = vec![instruction(LOAD, 0, 0, 4)];
    for (arch, body) in arches {
        program.push(instruction(JUMP_EQUAL, 1, 0, arch));
        program.push(instruction(JUMP, 0, 0, body.len() as u32));
        program.extend(body);
    }
    program.push(instruction(RETURN, 0, 0, Action::KillProcess.value()));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!("the seccomp profile needs {} instructions, the kernel takes 4096", program.len()));
    }
    Ok(program.iter().flat_map(encode).collect())
}

fn encode(i: &Instruction) -> [u8; 8] {
    let (code, k) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
    [code[0], code[1], i.jump_true, i.jump_false, k[0], k[1], k[2], k[3]]
}

fn number_x86_64(name: &str) -> Option<u32> {
    name.parse::<syscalls::x86_64::Sysno>().ok().map(|n| n as u32)
}

fn number_x86(name: &str) -> Option<u32> {
    name.parse::<syscalls::x86::Sysno>().ok().map(|n| n as u32)
}

fn number_aarch64(name: &str) -> Option<u32> {
    name.parse::<syscalls::aarch64::Sysno>().ok().map(|n| n as u32)
}

/// The part of a program for one architecture.
fn calls(profile: &Profile, number: fn(&str) -> Option<u32>) -> Vec<Instruction> {
    let default = Leaf { conditional: Vec::new(), otherwise: profile.default.value() };
    let mut leaves = std::collections::BTreeMap::<u32, Leaf>::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number(name)) {
            let leaf = leaves.entry(number).or_insert_with(|| default.clone());
            if rule.conditions.is_empty() {
                leaf.otherwise = rule.action.value();
            } else {
                leaf.conditional.push((rule.conditions.clone(), rule.action.value()));
            }
        }
    }
    // Ranges of numbers with the same outcome, from 0 on.
    let mut ranges: Vec<(u32, Leaf)> = vec![(0, default.clone())];
    let mut next = 0;
    let push = |from: u32, leaf: Leaf, ranges: &mut Vec<(u32, Leaf)>| match ranges.last_mut() {
        Some((_, last)) if *last == leaf => {}
        Some((start, last)) if *start == from => *last = leaf,
        _ => ranges.push((from, leaf)),
    };
    for (number, leaf) in leaves {
        if number != next {
            push(next, default.clone(), &mut ranges);
        }
        push(number, leaf, &mut ranges);
        next = number + 1;
    }
    push(next, default, &mut ranges);
    let mut program = vec![instruction(LOAD, 0, 0, 0)];
    program.extend(search(&ranges));
    program
}

fn search(ranges: &[(u32, Leaf)]) -> Vec<Instruction> {
    if let [(_, leaf)] = ranges {
        return decide(leaf);
    }
    let middle = ranges.len() / 2;
    let (low, high) = (search(&ranges[..middle]), search(&ranges[middle..]));
    let from = ranges[middle].0;
    let mut program = Vec::with_capacity(low.len() + high.len() + 2);
    if low.len() <= usize::from(u8::MAX) {
        program.push(instruction(JUMP_GREATER_EQUAL, low.len() as u8, 0, from));
    } else {
        program.push(instruction(JUMP_GREATER_EQUAL, 0, 1, from));
        program.push(instruction(JUMP, 0, 0, low.len() as u32));
    }
    program.extend(low);
    program.extend(high);
    program
}

fn decide(leaf: &Leaf) -> Vec<Instruction> {
    let mut program = Vec::new();
    for (conditions, action) in &leaf.conditional {
        let mut rule: Vec<Step> = conditions.iter().flat_map(check).collect();
        rule.push(Step::Plain(instruction(RETURN, 0, 0, *action)));
        let len = rule.len();
        program.extend(rule.into_iter().enumerate().map(|(at, step)| step.resolve((len - at - 1) as u8)));
    }
    program.push(instruction(RETURN, 0, 0, leaf.otherwise));
    program
}

/// An instruction whose jump may lead to the end of its rule.
enum Step {
    Plain(Instruction),
    /// If the test is not met.
    ElseEnd(Instruction),
    /// If it is met.
    ThenEnd(Instruction),
}

impl Step {
    fn resolve(self, to_end: u8) -> Instruction {
        match self {
            Step::Plain(i) => i,
            Step::ElseEnd(i) => Instruction { jump_false: to_end, ..i },
            Step::ThenEnd(i) => Instruction { jump_true: to_end, ..i },
        }
    }
}

/// Falls through when the condition holds. Arguments are 64 bits, compared by halves.
fn check(condition: &Condition) -> Vec<Step> {
    use Step::{ElseEnd, Plain, ThenEnd};
    let at = 16 + 8 * condition.index;
    let (low, high) = if cfg!(target_endian = "big") { (at + 4, at) } else { (at, at + 4) };
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    let load = |offset| Plain(instruction(LOAD, 0, 0, offset));
    let test = |code, jump_true, jump_false, k| instruction(code, jump_true, jump_false, k);
    match condition.compare {
        Compare::Equal => vec![
            load(high),
            ElseEnd(test(JUMP_EQUAL, 0, 0, value_high)),
            load(low),
            ElseEnd(test(JUMP_EQUAL, 0, 0, value_low)),
        ],
        Compare::NotEqual => vec![
            load(high),
            Plain(test(JUMP_EQUAL, 0, 2, value_high)),
            load(low),
            ThenEnd(test(JUMP_EQUAL, 0, 0, value_low)),
        ],
        Compare::MaskedEqual => vec![
            load(high),
            Plain(instruction(AND, 0, 0, value_high)),
            ElseEnd(test(JUMP_EQUAL, 0, 0, (condition.value_two >> 32) as u32)),
            load(low),
            Plain(instruction(AND, 0, 0, value_low)),
            ElseEnd(test(JUMP_EQUAL, 0, 0, condition.value_two as u32)),
        ],
        // A greater high half decides, an equal one leaves it to the low half.
        Compare::Greater | Compare::GreaterOrEqual => {
            let code = if condition.compare == Compare::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            vec![
                load(high),
                Plain(test(JUMP_GREATER, 3, 0, value_high)),
                ElseEnd(test(JUMP_EQUAL, 0, 0, value_high)),
                load(low),
                ElseEnd(test(code, 0, 0, value_low)),
            ]
        }
        Compare::Less | Compare::LessOrEqual => {
            let code = if condition.compare == Compare::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            vec![
                load(high),
                ThenEnd(test(JUMP_GREATER, 0, 0, value_high)),
                Plain(test(JUMP_EQUAL, 0, 2, value_high)),
                load(low),
                ThenEnd(test(code, 0, 0, value_low)),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Runs a program on a call.
    fn outcome(program: &[u8], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_ne_bytes());
        data.extend_from_slice(&arch.to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        arguments.iter().for_each(|a| data.extend_from_slice(&a.to_ne_bytes()));
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let i = &program[at * 8..at * 8 + 8];
            let (code, k) = (u16::from_ne_bytes([i[0], i[1]]), word(&i[4..]));
            let mut jump = |met: bool| at += usize::from(if met { i[2] } else { i[3] });
            match code {
                LOAD => a = word(&data[k as usize..k as usize + 4]),
                AND => a &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => jump(a == k),
                JUMP_GREATER => jump(a > k),
                JUMP_GREATER_EQUAL => jump(a >= k),
                RETURN => return k,
                other => panic!("{other:#x}"),
            }
            at += 1;
        }
    }

    const NATIVE: u32 = if cfg!(target_arch = "aarch64") { ARCH_AARCH64 } else { ARCH_X86_64 };

    fn native(name: &str) -> u32 {
        if cfg!(target_arch = "aarch64") { number_aarch64(name) } else { number_x86_64(name) }.unwrap()
    }

    #[test]
    fn conditions_compare_64_bits() {
        let big = 1u64 << 40 | 5;
        let values = [0, 4, 5, 6, 1 << 32, 1 << 40, big - 1, big, big + 1, 1 << 41, u64::MAX];
        type Holds = fn(u64, u64) -> bool;
        let compares: [(Compare, Holds); 6] = [
            (Compare::Equal, |a, v| a == v),
            (Compare::NotEqual, |a, v| a != v),
            (Compare::Less, |a, v| a < v),
            (Compare::LessOrEqual, |a, v| a <= v),
            (Compare::Greater, |a, v| a > v),
            (Compare::GreaterOrEqual, |a, v| a >= v),
        ];
        for (compare, holds) in compares {
            for value in values {
                let condition = Condition { index: 3, compare, value, value_two: 0 };
                let profile = Profile {
                    default: Action::Errno(1),
                    rules: vec![Rule {
                        names: vec!["read".into()],
                        action: Action::Allow,
                        conditions: vec![condition],
                    }],
                    x86: false,
                };
                let program = compile(&profile).unwrap();
                for argument in values {
                    let arguments = [9, 9, 9, argument, 9, 9];
                    let expected = if holds(argument, value) { Action::Allow } else { Action::Errno(1) };
                    let got = outcome(&program, NATIVE, native("read"), arguments);
                    assert_eq!(got, expected.value(), "{argument:#x} {compare:?} {value:#x}");
                }
            }
        }
    }

    #[test]
    fn the_default_profile_answers_as_containerds() {
        let program = compile(&default_profile(0)).unwrap();
        let admin = compile(&default_profile(crate::capabilities::bit("SYS_ADMIN").unwrap())).unwrap();
        let (allow, deny) = (Action::Allow.value(), Action::Errno(1).value());
        let new_user = libc::CLONE_NEWUSER as u64;
        let cases: [(&str, [u64; 6], u32, u32); 11] = [
            ("read", [0; 6], allow, allow),
            ("mount", [0; 6], deny, allow),
            ("clone", [libc::SIGCHLD as u64, 0, 0, 0, 0, 0], allow, allow),
            ("clone", [new_user, 0, 0, 0, 0, 0], deny, allow),
            ("clone3", [0; 6], Action::Errno(38).value(), allow),
            ("personality", [0; 6], allow, allow),
            ("personality", [0x0004_0000, 0, 0, 0, 0, 0], deny, deny),
            ("socket", [2, 1, 0, 0, 0, 0], allow, allow),
            ("socket", [40, 1, 0, 0, 0, 0], deny, deny),
            ("unshare", [new_user, 0, 0, 0, 0, 0], deny, allow),
            ("reboot", [0; 6], deny, deny),
        ];
        for (name, arguments, plain, with_admin) in cases {
            assert_eq!(outcome(&program, NATIVE, native(name), arguments), plain, "{name} {arguments:?}");
            assert_eq!(outcome(&admin, NATIVE, native(name), arguments), with_admin, "{name} {arguments:?} as admin");
        }
        // Numbers nobody knows, the x32 calls, and another machine's.
        assert_eq!(outcome(&program, NATIVE, 100_000, [0; 6]), deny);
        assert_eq!(outcome(&program, NATIVE, 0x4000_0000, [0; 6]), deny);
        assert_eq!(outcome(&program, 0x1234, 0, [0; 6]), Action::KillProcess.value());
        assert!(program.len() / 8 < 1000, "{} instructions", program.len() / 8);
    }

    #[test]
    fn every_call_is_found_by_the_search() {
        let every_third: Vec<String> = syscalls::x86_64::Sysno::iter()
            .map(|s| s.name().to_owned())
            .filter(|name| (native_or_none(name)).is_some_and(|n| n % 3 == 0))
            .collect();
        let profile = Profile {
            default: Action::Errno(2),
            rules: vec![Rule { names: every_third.clone(), action: Action::Log, conditions: vec![] }],
            x86: true,
        };
        let program = compile(&profile).unwrap();
        for number in 0..600 {
            let listed = every_third.iter().any(|name| native_or_none(name) == Some(number));
            let expected = if listed { Action::Log } else { Action::Errno(2) };
            assert_eq!(outcome(&program, NATIVE, number, [0; 6]), expected.value(), "{number}");
        }
    }

    fn native_or_none(name: &str) -> Option<u32> {
        if cfg!(target_arch = "aarch64") { number_aarch64(name) } else { number_x86_64(name) }
    }
}
