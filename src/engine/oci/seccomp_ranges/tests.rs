use super::super::seccomp;
use super::super::seccomp_bpf::{JUMP_GREATER, RETURN, branch, plain, run};
use super::*;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "../../../../tests/integration/support/chance.rs"]
mod chance;
use chance::Chance;

const AND: u16 = 0x54;
const JUMP_SET: u16 = 0x45;
const RETURN_ACCUMULATOR: u16 = 0x16;
/// `args[0]`, its first half.
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_*` of x86, x86_64, arm, aarch64, ppc64le, s390x, riscv64, mips and mips64, and none.
const ARCHITECTURES: [u32; 14] = [
    0,
    1,
    3,
    0x4000_0002,
    0x4000_0003,
    0x4000_0004,
    0xc000_003e,
    0xc000_003f,
    0x4000_0028,
    0xc000_00b7,
    0xc000_0015,
    0x8000_0016,
    0x8000_0008,
    u32::MAX,
];
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

/// Docker's profile.
fn shipped() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bundles/seccomp/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config["linux"]["seccomp"].take()
}

/// The program of a profile, before and after; `None` where libseccomp does not take the profile.
fn both(profile: &Value) -> Option<(Vec<Instruction>, Vec<Instruction>)> {
    let profile: LinuxSeccomp = serde_json::from_value(profile.clone()).unwrap();
    let long = seccomp::complete(&profile).ok()?;
    Some((parse(&long).unwrap(), parse(&shorten(long)).unwrap()))
}

fn shortened(long: &[Instruction]) -> Vec<Instruction> {
    parse(&shorten(bytes(long))).unwrap()
}

/// What is near the values of a profile's arguments, by halves.
fn near(profile: &Value) -> Vec<u32> {
    let rules = profile["syscalls"].as_array().into_iter().flatten();
    let arguments = rules.flat_map(|rule| rule["args"].as_array().into_iter().flatten());
    let values = arguments.flat_map(|argument| [&argument["value"], &argument["valueTwo"]]);
    around(values.filter_map(Value::as_u64).flat_map(|value| [value as u32, (value >> 32) as u32]))
}

fn around(values: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut near: Vec<u32> =
        values.chain([0]).flat_map(|value| [value.wrapping_sub(1), value, value.wrapping_add(1)]).collect();
    near.sort_unstable();
    near.dedup();
    near
}

/// Compares the programs on all calls that could tell them apart; `values` are halves of arguments.
fn compare(long: &[Instruction], short: &[Instruction], values: &[u32], chance: &mut Chance) {
    let operands = around(long.iter().chain(short).map(|instruction| instruction.operand));
    let low = (0..=1024).flat_map(|number| [number, number | 0x4000_0000, number | 0x8000_0000, u32::MAX - number]);
    let numbers: BTreeSet<u32> = low.chain(operands).collect();
    for architecture in ARCHITECTURES {
        for &number in &numbers {
            let word = |offset: u32| match offset {
                NUMBER => Some(number),
                ARCHITECTURE => Some(architecture),
                _ => None,
            };
            // As the kernel looks at it that wants to know what is always allowed.
            let decided = run(long, word);
            assert_eq!(run(short, word), decided, "{architecture:#x} {number:#x}");
            if decided.is_none() {
                compare_arguments(long, short, values, [number, architecture], chance);
            }
        }
    }
}

fn compare_arguments(long: &[Instruction], short: &[Instruction], values: &[u32], call: [u32; 2], chance: &mut Chance) {
    // nr, arch, two halves of the instruction pointer, twelve of arguments.
    let mut data = [0; 16];
    data[..2].copy_from_slice(&call);
    let assert_equal = |data: &[u32; 16]| {
        let word = |offset: u32| data.get(offset as usize / 4).copied();
        let expected = run(long, word);
        assert!(expected.is_some() && run(short, word) == expected, "{data:x?}");
    };
    for argument in 2..8 {
        for _ in 0..values.len().min(24) {
            let (low, high) = (*chance.pick(values), *chance.pick(values));
            for halves in [[low, 0], [0, high], [low, high], [low, low]] {
                let mut data = data;
                data[argument * 2..argument * 2 + 2].copy_from_slice(&halves);
                assert_equal(&data);
            }
        }
    }
    for _ in 0..64 {
        data[2..].fill_with(|| *chance.pick(values));
        assert_equal(&data);
    }
}

/// Whether the kernel would take the program (`bpf_check_classic` of net/core/filter.c).
fn is_valid(program: &[Instruction]) -> bool {
    let ends = |at: usize| match program[at].next(at) {
        Next::Return(_) => true,
        Next::At(next) => next < program.len(),
        Next::Either { yes, no } => yes.max(no) < program.len(),
        Next::Unknown => false,
    };
    program.len() <= 4096 && program.last().is_some_and(|last| last.code == RETURN) && (0..program.len()).all(ends)
}

#[test]
fn the_shipped_profile_gets_much_shorter() {
    let profile = shipped();
    let (long, short) = both(&profile).unwrap();
    assert!(is_valid(&short) && short.len() * 4 <= long.len(), "{} of {}", short.len(), long.len());
    compare(&long, &short, &near(&profile), &mut Chance::from_seed(1));
}

#[test]
fn every_default_and_set_of_architectures() {
    let mut profile = shipped();
    let mut compared = 0;
    for (index, action) in ACTIONS.iter().enumerate() {
        profile["defaultAction"] = json!(action);
        profile["architectures"] = match index % 4 {
            0 => json!(["SCMP_ARCH_X86_64"]),
            1 => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
            2 => json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
            _ => json!(["SCMP_ARCH_RISCV64", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_PPC64LE"]),
        };
        // libseccomp takes no default that notifies.
        let Some((long, short)) = both(&profile) else { continue };
        assert!(is_valid(&short) && short.len() < long.len(), "{action}: {} of {}", short.len(), long.len());
        compare(&long, &short, &near(&profile), &mut Chance::from_seed(2));
        compared += 1;
    }
    assert!(compared >= ACTIONS.len() - 1, "{compared}");
}

#[test]
fn every_operator() {
    let values = [0u64, 1, 8, 0x7fff_ffff, 0x8000_0000, u64::from(u32::MAX), 1 << 32, (7 << 32) | 5, u64::MAX];
    for operator in OPERATORS {
        for (index, value) in values.iter().enumerate() {
            let argument = json!({ "index": index % 6, "op": operator, "value": value, "valueTwo": value / 3 });
            let second = json!({ "index": (index + 1) % 6, "op": operator, "value": 9, "valueTwo": 9 });
            let profile = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [
                    { "names": ["personality", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": [argument] },
                    { "names": ["chmod"], "action": "SCMP_ACT_NOTIFY", "args": [argument, second] },
                    { "names": ["read", "write", "open", "close", "stat", "fstat"], "action": "SCMP_ACT_TRAP" },
                ],
            });
            let (long, short) = both(&profile).unwrap();
            assert!(is_valid(&short));
            compare(&long, &short, &near(&profile), &mut Chance::from_seed(3));
        }
    }
}

#[test]
fn profiles_of_chance() {
    let mut chance = Chance::from_seed(4);
    let shipped = shipped();
    let rules = shipped["syscalls"].as_array().unwrap().iter();
    let names: Vec<&Value> = rules.flat_map(|rule| rule["names"].as_array().unwrap()).collect();
    let architectures = ["X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "LOONGARCH64", "PPC64LE", "MIPSEL"];
    let values = [0u64, 1, 2, 3, 0xff, 0x7fff_ffff, u64::from(u32::MAX), 1 << 32, 1 << 63, u64::MAX];
    let mut compared = 0;
    for _ in 0..40 {
        let mut rules = Vec::new();
        for _ in 0..chance.below(8) {
            let argument = |chance: &mut Chance| {
                let (value, second) = (*chance.pick(&values), *chance.pick(&values));
                json!({ "index": chance.below(6), "op": chance.pick(&OPERATORS), "value": value, "valueTwo": second })
            };
            let arguments: Vec<Value> = (0..chance.below(6).saturating_sub(3)).map(|_| argument(&mut chance)).collect();
            let named: Vec<&Value> = (0..1 + chance.below(40)).map(|_| *chance.pick(&names)).collect();
            let (action, errno) = (chance.pick(&ACTIONS), chance.below(200));
            rules.push(json!({ "names": named, "action": action, "errnoRet": errno, "args": arguments }));
        }
        let listed = architectures.iter().filter(|_| chance.one_in(4)).map(|name| format!("SCMP_ARCH_{name}"));
        let listed: Vec<String> = listed.collect();
        let profile = json!({
            "defaultAction": chance.pick(&ACTIONS[..7]),
            "architectures": listed,
            "syscalls": rules,
        });
        // libseccomp does not take what contradicts itself.
        let Some((long, short)) = both(&profile) else { continue };
        assert!(is_valid(&short) && short.len() <= long.len(), "{profile}");
        compare(&long, &short, &near(&profile), &mut chance);
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

/// Of more kinds than libseccomp's: each jump leads anywhere behind itself.
#[test]
fn programs_of_chance() {
    let mut chance = Chance::from_seed(5);
    let operands = [0, 1, 2, 5, 7, 0x4000_0003, 0x4000_0004, 0xc000_003e, 0x7fff_ffff, u32::MAX];
    let mut shorter = 0;
    for _ in 0..2000 {
        let length = 2 + chance.below(40);
        let mut long = vec![plain(LOAD, *chance.pick(&[NUMBER, ARCHITECTURE, ARGUMENTS]))];
        while long.len() < length {
            let rest = length - long.len() - 1;
            let (yes, no) = (chance.below(rest + 1) as u8, chance.below(rest + 1) as u8);
            let operand = *chance.pick(&operands);
            long.push(match chance.below(12) {
                0 | 1 => plain(LOAD, *chance.pick(&[NUMBER, ARCHITECTURE, ARGUMENTS, ARGUMENTS + 12])),
                2 => plain(RETURN, chance.below(3) as u32),
                3 => plain(JUMP, u32::from(yes)),
                4 if chance.one_in(4) => plain(AND, operand),
                5 if chance.one_in(4) => branch(JUMP_SET, yes, no, operand),
                6 => branch(JUMP_GREATER, yes, no, operand),
                7 | 8 => branch(JUMP_GREATER_OR_EQUAL, yes, no, operand),
                _ => branch(JUMP_EQUAL, yes, no, operand),
            });
        }
        long.push(plain(RETURN, 9));
        let short = shortened(&long);
        shorter += usize::from(short != long);
        assert!(is_valid(&short), "{long:?}");
        let numbers = operands.iter().flat_map(|operand| [operand.wrapping_sub(1), *operand, operand.wrapping_add(1)]);
        for number in numbers {
            for architecture in [0, 5, 6, 7, 0x4000_0003, 0x4000_0004, 0xc000_003e, 0x9999_9999, u32::MAX] {
                for _ in 0..4 {
                    let (first, second) = (*chance.pick(&operands), *chance.pick(&operands));
                    let word = |offset: u32| match offset {
                        NUMBER => Some(number),
                        ARCHITECTURE => Some(architecture),
                        ARGUMENTS => Some(first),
                        _ => Some(second),
                    };
                    assert_eq!(run(&short, word), run(&long, word), "{number:#x} {architecture:#x} {long:?}");
                }
            }
        }
    }
    assert!(shorter > 500, "{shorter}");
}

/// A program that returns something else for each number, and so is far wider than a conditional jump.
#[test]
fn jumps_that_lead_far() {
    let mut long = vec![plain(LOAD, ARCHITECTURE), branch(JUMP_EQUAL, 1, 0, ARCHITECTURES[6]), plain(RETURN, 7)];
    long.push(plain(LOAD, NUMBER));
    for number in 0..1500 {
        let value = if number % 50 == 0 { number } else { number % 7 };
        long.extend([branch(JUMP_EQUAL, 0, 1, number), plain(RETURN, value)]);
        if number % 10 == 0 {
            long.extend([branch(JUMP_EQUAL, 0, 3, number + 1)]);
            long.extend([plain(LOAD, ARGUMENTS), branch(JUMP_EQUAL, 0, 2, 7), plain(RETURN, value)]);
            long.extend([plain(JUMP, 1), plain(RETURN, 88)]);
        }
    }
    long.push(plain(RETURN, 99));
    let short = shortened(&long);
    assert!(is_valid(&short) && short.len() < long.len(), "{} of {}", short.len(), long.len());
    assert!(short.iter().any(|instruction| instruction.code == JUMP), "no jump is far");
    compare(&long, &short, &[6, 7, 8], &mut Chance::from_seed(6));
}

#[test]
fn what_is_not_understood_stays() {
    let pad = |start: &[Instruction]| {
        let mut program = start.to_vec();
        // Enough that a shorter one would be found.
        (0..40).for_each(|number| program.push(branch(JUMP_EQUAL, 0, 0, number)));
        program.push(plain(RETURN, 1));
        program
    };
    assert!(shortened(&pad(&[plain(LOAD, NUMBER)])).len() == 1);
    for start in [
        vec![],
        vec![plain(LOAD, NUMBER), plain(AND, 0xff)],
        vec![plain(LOAD, NUMBER), branch(JUMP_SET, 0, 0, 4)],
        vec![plain(LOAD, NUMBER), branch(JUMP_EQUAL, 0, 1, 5), plain(RETURN_ACCUMULATOR, 0)],
        vec![plain(LOAD, ARGUMENTS), branch(JUMP_EQUAL, 0, 1, 5), plain(RETURN_ACCUMULATOR, 0)],
        vec![plain(LOAD, ARCHITECTURE), branch(JUMP_GREATER, 0, 1, 1000), plain(RETURN, 4)],
        vec![plain(LOAD, NUMBER), branch(JUMP_EQUAL, 0, 1, 5), plain(JUMP, 4000)],
    ] {
        let long = pad(&start);
        assert_eq!(shortened(&long), long, "{start:?}");
    }
    for odd in [&[][..], &[0; 4], &[6, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(shorten(odd.to_vec()), odd);
    }
}

/// The proof says yes only to programs that are equal, and so to few of those with one change.
#[test]
fn a_changed_program_is_not_equal() {
    let profile = shipped();
    let (long, short) = both(&profile).unwrap();
    assert!(proof::are_equal(&long, &short) && proof::are_equal(&short, &long));
    let (mut tried, mut equal) = (0, 0);
    for at in 0..short.len() {
        let mut changes = vec![Instruction { operand: short[at].operand ^ 1, ..short[at] }];
        if let Next::Either { .. } = short[at].next(at) {
            changes.push(Instruction { yes: short[at].no, no: short[at].yes, ..short[at] });
        }
        for change in changes {
            let mut changed = short.clone();
            changed[at] = change;
            tried += 1;
            if proof::are_equal(&long, &changed) {
                compare(&long, &changed, &near(&profile), &mut Chance::from_seed(7));
                equal += 1;
            }
        }
    }
    assert!(equal * 10 < tried, "{equal} of {tried}");
}
