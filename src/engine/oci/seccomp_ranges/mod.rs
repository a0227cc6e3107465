//! A shorter program that decides as libseccomp's does.
//!
//! The kernel translates, compiles and copies a filter each time it is loaded, which takes as long as the program is
//! long. libseccomp compares with the number of every call that a profile names. Most neighbours have the same outcome,
//! and what remains is a search for the range that a number is in: for Docker's profile a fifth of the instructions.
//! Number and architecture are decided before any argument is loaded, as the kernel wants it that remembers which
//! calls are always allowed (`seccomp_cache_prepare` of kernel/seccomp.c).
//!
//! The new program is proved to be equal to the old one; a program that is not understood stays as it is.

mod assembler;
mod proof;
mod table;
#[cfg(test)]
mod tests;

use super::seccomp_bpf::{
    ARCHITECTURE, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, Next, bytes, parse,
};
use assembler::{Assembler, Target};
use std::collections::{BTreeMap, BTreeSet};
use table::{Calls, Outcome, Span};

/// How many numbers are compared one after another. The outcome that all others have passes all of them, where a search
/// would take three steps as well, but six instructions.
const SINGLES: usize = 3;

/// The same program in fewer instructions, or as it is.
pub fn shorten(program: Vec<u8>) -> Vec<u8> {
    let shorter = parse(&program).and_then(|long| {
        let short = by_ranges(&long)?;
        (short.len() < long.len() && proof::are_equal(&long, &short)).then(|| bytes(&short))
    });
    shorter.unwrap_or(program)
}

fn by_ranges(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let tables = table::read(program)?;
    // Architectures are told apart one by one; what is between them is none that the profile knows.
    let unknown = &tables.iter().find(|table| !table.is_single())?.value;
    if tables.iter().any(|table| !table.is_single() && table.value != *unknown) {
        return None;
    }
    let mut assembler = Assembler::default();
    let undecided = copy_undecided(program, &tables, &mut assembler)?;
    let target = |outcome: Outcome| match outcome {
        Outcome::Return(value) => Some(Target::Return(value)),
        Outcome::Undecided(at) => undecided.get(&at).copied(),
    };
    let mut entry = decide(unknown, target, &mut assembler)?;
    let mut ends = Vec::new();
    // The last is the first to be compared: AUDIT_ARCH_64BIT is the highest bit, and most calls are of that kind.
    for table in tables.iter().filter(|table| table.is_single() && table.value != *unknown) {
        ends.push((table.first, decide(&table.value, target, &mut assembler)?));
    }
    if ends.is_empty() {
        return Some(assembler.finish(entry));
    }
    for (architecture, calls) in ends {
        entry = assembler.branch(JUMP_EQUAL, architecture, calls, entry);
    }
    let entry = assembler.straight(LOAD, ARCHITECTURE, entry);
    Some(assembler.finish(entry))
}

/// The code that looks at arguments, as it is but for its jumps, and where each of its instructions is now.
fn copy_undecided(
    program: &[Instruction],
    tables: &[Span<Calls>],
    assembler: &mut Assembler,
) -> Option<BTreeMap<usize, Target>> {
    let outcomes = tables.iter().flat_map(|table| &table.value).map(|span| span.value);
    let starts = outcomes.filter_map(|outcome| match outcome {
        Outcome::Undecided(at) => Some(at),
        Outcome::Return(_) => None,
    });
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<usize> = starts.collect();
    while let Some(at) = open.pop() {
        if reached.insert(at) {
            match program.get(at)?.next(at) {
                Next::At(next) => open.push(next),
                Next::Either { yes, no } => open.extend([yes, no]),
                Next::Return(_) => {}
                Next::Unknown => return None,
            }
        }
    }
    let mut targets = BTreeMap::new();
    for at in reached.into_iter().rev() {
        let Instruction { code, operand, .. } = program[at];
        let target = match program[at].next(at) {
            Next::Return(value) => Target::Return(value),
            Next::At(next) if code == JUMP => *targets.get(&next)?,
            Next::At(next) => assembler.straight(code, operand, *targets.get(&next)?),
            Next::Either { yes, no } => assembler.branch(code, operand, *targets.get(&yes)?, *targets.get(&no)?),
            Next::Unknown => return None,
        };
        targets.insert(at, target);
    }
    Some(targets)
}

/// The code that decides on the calls of one architecture.
fn decide(
    calls: &[Span<Outcome>],
    target: impl Fn(Outcome) -> Option<Target>,
    assembler: &mut Assembler,
) -> Option<Target> {
    let search = search(&groups(calls), &target, assembler)?;
    let is_decided = calls.len() == 1;
    Some(if is_decided { search } else { assembler.straight(LOAD, NUMBER, search) })
}

/// A binary search for the group of a number, which is in the accumulator.
fn search(groups: &[Group], target: &impl Fn(Outcome) -> Option<Target>, assembler: &mut Assembler) -> Option<Target> {
    if let [group] = groups {
        let mut found = target(group.others)?;
        for (number, outcome) in group.singles.iter().rev() {
            found = assembler.branch(JUMP_EQUAL, *number, target(*outcome)?, found);
        }
        return Some(found);
    }
    let (lower, upper) = groups.split_at(groups.len() / 2);
    let border = upper.first()?.first;
    let above = search(upper, target, assembler)?;
    let below = search(lower, target, assembler)?;
    Some(assembler.branch(JUMP_GREATER_OR_EQUAL, border, above, below))
}

/// Neighbouring numbers that all have one outcome but for a few.
struct Group {
    first: u32,
    singles: Vec<(u32, Outcome)>,
    others: Outcome,
}

/// The numbers in groups, each as large as it may be.
fn groups(mut calls: &[Span<Outcome>]) -> Vec<Group> {
    let mut groups = Vec::new();
    while let Some(mut group) = group(&calls[..calls.len().min(1)]) {
        let mut length = 1;
        while let Some(larger) = calls.get(..length + 1).and_then(self::group) {
            (group, length) = (larger, length + 1);
        }
        calls = &calls[length..];
        groups.push(group);
    }
    groups
}

/// These numbers as one group, if they can be one.
fn group(calls: &[Span<Outcome>]) -> Option<Group> {
    let others = calls.iter().find(|span| !span.is_single()).or(calls.last())?.value;
    let apart = || calls.iter().filter(|span| span.value != others);
    if apart().count() > SINGLES || apart().any(|span| !span.is_single()) {
        return None;
    }
    let singles = apart().map(|span| (span.first, span.value)).collect();
    Some(Group { first: calls.first()?.first, singles, others })
}
