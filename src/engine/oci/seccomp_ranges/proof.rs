//! Whether two programs decide alike, whatever the call.

use super::table::{Outcome, Span, read};
use crate::engine::oci::seccomp_bpf::{Instruction, JUMP, Next};
use std::collections::HashSet;

/// Whether two programs return the same for every number, every architecture and all arguments. May say no where they do,
/// but never yes where they do not.
pub fn are_equal(one: &[Instruction], other: &[Instruction]) -> bool {
    let (Some(tables), Some(others)) = (read(one), read(other)) else { return false };
    let mut open = HashSet::new();
    for (calls, others) in side_by_side(&tables, &others) {
        for pair in side_by_side(calls, others) {
            match pair {
                (Outcome::Return(one), Outcome::Return(other)) if one == other => {}
                (Outcome::Undecided(one), Outcome::Undecided(other)) => drop(open.insert((*one, *other))),
                _ => return false,
            }
        }
    }
    go_on_alike(one, other, open.into_iter().collect())
}

/// The values of both where they overlap. Each covers all numbers, in order.
fn side_by_side<'a, T>(one: &'a [Span<T>], other: &'a [Span<T>]) -> impl Iterator<Item = (&'a T, &'a T)> {
    let (mut at, mut beside) = (0, 0);
    std::iter::from_fn(move || {
        let (span, other) = (one.get(at)?, other.get(beside)?);
        at += usize::from(span.last <= other.last);
        beside += usize::from(other.last <= span.last);
        Some((&span.value, &other.value))
    })
}

/// Whether the programs do the same from each pair of places on. What one of them keeps in its accumulator, its index
/// and its memory is the same as in the other one at such a pair, or is not looked at before it is loaded.
fn go_on_alike(one: &[Instruction], other: &[Instruction], mut open: Vec<(usize, usize)>) -> bool {
    let mut seen = HashSet::new();
    while let Some((at, beside)) = open.pop() {
        let (Some(at), Some(beside)) = (behind_jumps(one, at), behind_jumps(other, beside)) else { return false };
        if !seen.insert((at, beside)) {
            continue;
        }
        let (first, second) = (one[at], other[beside]);
        let is_same = (first.code, first.operand) == (second.code, second.operand);
        match (first.next(at), second.next(beside)) {
            (Next::Return(_), Next::Return(_)) if is_same => {}
            (Next::At(at), Next::At(beside)) if is_same => open.push((at, beside)),
            (Next::Either { yes, no }, Next::Either { yes: also_yes, no: also_no }) if is_same => {
                open.extend([(yes, also_yes), (no, also_no)]);
            }
            // The other one may do without a jump that leads to the same both ways.
            (Next::Either { yes, no }, _) => open.extend([(yes, beside), (no, beside)]),
            _ => return false,
        }
    }
    true
}

fn behind_jumps(program: &[Instruction], mut at: usize) -> Option<usize> {
    while program.get(at)?.code == JUMP {
        let Next::At(next) = program[at].next(at) else { return None };
        at = next;
    }
    Some(at)
}
