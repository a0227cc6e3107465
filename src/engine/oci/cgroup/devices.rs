//! The device rules: which device nodes the container may read, write and make. The spec's rules first, then those that
//! every container needs for the default devices; the last rule that matches decides. config-linux.md, "Allowed Device
//! list". On v1 they become lines for the devices controller, on v2 a BPF_PROG_TYPE_CGROUP_DEVICE program.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::sys::bpf::Instruction;

/// The bits of `enum bpf_devcg_access`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Type of a device node; the numbers are those of `enum bpf_devcg_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// One rule; None stands for "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    access: u8,
}

/// Rules without an order: one for everything, and what is different from it.
pub struct Exceptions {
    pub allowed: bool,
    /// Each for one kind of device.
    pub rules: Vec<Rule>,
}

/// A line for devices.allow or devices.deny.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    pub allow: bool,
    pub rule: String,
}

const fn default_rule(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

/// What every container may do: make any node, and use null, zero, full, random, urandom, tty, ptmx, the pseudo
/// terminals and, as the packaged runc has it, net/tun.
pub(super) const DEFAULTS: &[Rule] = &[
    default_rule(Kind::Character, None, None, MKNOD),
    default_rule(Kind::Block, None, None, MKNOD),
    default_rule(Kind::Character, Some(1), Some(3), ALL),
    default_rule(Kind::Character, Some(1), Some(5), ALL),
    default_rule(Kind::Character, Some(1), Some(7), ALL),
    default_rule(Kind::Character, Some(1), Some(8), ALL),
    default_rule(Kind::Character, Some(1), Some(9), ALL),
    default_rule(Kind::Character, Some(5), Some(0), ALL),
    default_rule(Kind::Character, Some(5), Some(2), ALL),
    default_rule(Kind::Character, Some(10), Some(200), ALL),
    default_rule(Kind::Character, Some(136), None, ALL),
];

/// Every rule in order: what no rule matches is denied.
///
/// # Errors
/// What is no rule, by its pointer.
pub fn rules(resources: &LinuxResources) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(DEFAULTS.len() + 4);
    for (index, device) in resources.devices().iter().flatten().enumerate() {
        rules.push(rule(device).with_context(|| format!("/linux/resources/devices/{index}"))?);
    }
    rules.extend(DEFAULTS);
    Ok(rules)
}

fn rule(device: &LinuxDeviceCgroup) -> Result<Rule> {
    let kind = match device.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
        Some(LinuxDeviceType::P) => bail!("type: a FIFO needs no permission; use a, b or c"),
    };
    let (major, minor) = (number("major", device.major())?, number("minor", device.minor())?);
    let mut access = 0;
    for letter in device.access().as_deref().unwrap_or("").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => bail!("access: {letter:?} is not one of r, w and m"),
        };
    }
    let access = if access == 0 { ALL } else { access };
    Ok(Rule { allow: device.allow(), kind, major, minor, access })
}

/// -1 is another way of saying "any".
fn number(name: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value @ 0..=0xf_ffff) => Ok(Some(value as u32)),
        Some(value) => bail!("{name}: {value} is not a device number; use 0 to 1048575, or -1 for any"),
    }
}

impl Rule {
    /// It matches every access to every device, so nothing before it counts.
    fn is_total(&self) -> bool {
        self.access == ALL && self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    /// `rwm`, or what of it is granted.
    pub(super) fn letters(&self) -> String {
        let letters = [('r', READ), ('w', WRITE), ('m', MKNOD)];
        letters.iter().filter(|(_, bit)| self.access & bit != 0).map(|(letter, _)| letter).collect()
    }

    /// Some device is matched by both.
    fn meets(&self, other: &Rule) -> bool {
        fn agree<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        agree(self.kind, other.kind) && agree(self.major, other.major) && agree(self.minor, other.minor)
    }

    /// Every device that the other matches, this one matches too.
    fn covers(&self, other: &Rule) -> bool {
        fn wider<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || a == b
        }
        wider(self.kind, other.kind) && wider(self.major, other.major) && wider(self.minor, other.minor)
    }
}

/// The rules as cgroup v1 can have them. The kernel's exceptions have no order, so a rule that takes back part of another
/// cannot be said, and is an error.
pub fn exceptions(rules: &[Rule]) -> Result<Exceptions> {
    let start = rules.iter().rposition(Rule::is_total);
    let allowed = start.is_some_and(|index| rules[index].allow);
    let mut exceptions: Vec<Rule> = Vec::new();
    for rule in &rules[start.map_or(0, |index| index + 1)..] {
        if rule.allow == allowed {
            for exception in
                exceptions.iter_mut().filter(|exception| rule.meets(exception) && rule.access & exception.access != 0)
            {
                if !rule.covers(exception) {
                    bail!(
                        "/linux/resources/devices: cgroup v1 cannot make an exception ({}) from an exception ({}); name the devices one by one",
                        line(rule),
                        line(exception)
                    );
                }
                exception.access &= !rule.access;
            }
            exceptions.retain(|exception| exception.access != 0);
        } else if rule.kind.is_none() {
            // For `a` the kernel reads no further, and would take it for a total rule.
            exceptions.extend([Kind::Block, Kind::Character].map(|kind| Rule { kind: Some(kind), ..*rule }));
        } else if let Some(same) =
            exceptions.iter_mut().find(|exception| exception.covers(rule) && rule.covers(exception))
        {
            same.access |= rule.access;
        } else {
            exceptions.push(*rule);
        }
    }
    exceptions.sort_by_key(|rule| (rule.major, rule.minor, rule.kind));
    Ok(Exceptions { allowed, rules: exceptions })
}

/// The writes that make a v1 devices cgroup obey the rules: one for everything, then one an exception.
///
/// # Errors
/// As [`exceptions`].
pub fn v1_writes(rules: &[Rule]) -> Result<Vec<Write>> {
    let Exceptions { allowed, rules } = exceptions(rules)?;
    let everything = Write { allow: allowed, rule: "a".to_owned() };
    let exceptions = rules.iter().map(|rule| Write { allow: !allowed, rule: line(rule) });
    Ok(std::iter::once(everything).chain(exceptions).collect())
}

/// `c 1:3 rwm`
fn line(rule: &Rule) -> String {
    let kind = match rule.kind {
        None => 'a',
        Some(Kind::Block) => 'b',
        Some(Kind::Character) => 'c',
    };
    let mut line = String::with_capacity("c 1048575:1048575 rwm".len());
    line.extend([kind, ' ']);
    for (number, end) in [(rule.major, ':'), (rule.minor, ' ')] {
        match number {
            Some(number) => line.push_str(&number.to_string()),
            None => line.push('*'),
        }
        line.push(end);
    }
    line.push_str(&rule.letters());
    line
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The rules as a program over `struct bpf_cgroup_dev_ctx { access_type, major, minor }`. From the last rule to the
/// first: register 3 holds the kinds of access that no rule has granted yet. A rule that grants the last of them allows
/// the access, a rule that denies one of them ends it.
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let start = rules.iter().rposition(Rule::is_total);
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules[start.map_or(0, |index| index + 1)..].iter().rev() {
        let mut body = Vec::with_capacity(8);
        let conditions = [
            (2, rule.kind.map(|kind| kind as i32)),
            (4, rule.major.map(|n| n as i32)),
            (5, rule.minor.map(|n| n as i32)),
        ];
        for (register, wanted) in conditions {
            body.extend(wanted.map(|wanted| instruction(JUMP_UNLESS_EQUAL, register, 0, 0, wanted)));
        }
        if rule.allow {
            body.push(instruction(AND, 3, 0, 0, i32::from(ALL & !rule.access)));
            body.push(instruction(JUMP_UNLESS_EQUAL, 3, 0, 0, 0));
        } else {
            body.push(instruction(MOVE_REGISTER, 0, 3, 0, 0));
            body.push(instruction(AND, 0, 0, 0, i32::from(rule.access)));
            body.push(instruction(JUMP_IF_EQUAL, 0, 0, 0, 0));
        }
        body.push(instruction(MOVE, 0, 0, 0, i32::from(rule.allow)));
        body.push(instruction(EXIT, 0, 0, 0, 0));
        // Every jump leads past the rule's end.
        let length = body.len() as i16;
        for (index, step) in body.iter_mut().enumerate() {
            if matches!(step.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
                step.offset = length - index as i16 - 1;
            }
        }
        program.extend(body);
    }
    let verdict = start.is_some_and(|index| rules[index].allow);
    program.push(instruction(MOVE, 0, 0, 0, i32::from(verdict)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
