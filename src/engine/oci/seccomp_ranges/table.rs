//! What a program makes of each system call, as far as the number and the architecture decide it.

use crate::engine::oci::seccomp_bpf::{
    ARCHITECTURE, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, RETURN,
};

/// Steps after which a program is given up: many times as many as one takes that libseccomp makes of all calls of all
/// architectures.
const PATIENCE: usize = 1 << 20;

/// Twice as many architectures as there are, with what is between them.
const ARCHITECTURES: usize = 100;

/// Something that is so from one number to another, that included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span<T> {
    pub first: u32,
    pub last: u32,
    pub value: T,
}

impl<T> Span<T> {
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Return(u32),
    /// At this instruction, the first that asks for more than number and architecture, it is not yet decided.
    Undecided(usize),
}

/// The outcome of all numbers of one architecture, in order.
pub type Calls = Vec<Span<Outcome>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    first: u32,
    last: u32,
}

const ALL: Interval = Interval { first: 0, last: u32::MAX };

/// A place in the program, and the calls that come there.
#[derive(Clone, Copy)]
struct Path {
    at: usize,
    /// Which of the two words is in the accumulator.
    loaded: Option<u32>,
    architectures: Interval,
    numbers: Interval,
}

impl Path {
    fn of(&mut self, word: u32) -> &mut Interval {
        if word == NUMBER { &mut self.numbers } else { &mut self.architectures }
    }
}

/// The outcomes of all numbers of all architectures; `None` for a program that does something else with them than to
/// compare them with constants.
pub fn read(program: &[Instruction]) -> Option<Vec<Span<Calls>>> {
    let areas = follow(program)?;
    let mut borders: Vec<u32> = areas.iter().map(|area| area.0.architectures.first).collect();
    borders.sort_unstable();
    borders.dedup();
    if borders.len() > ARCHITECTURES {
        return None;
    }
    let mut tables: Vec<Span<Calls>> = Vec::new();
    for (index, first) in borders.iter().enumerate() {
        let last = borders.get(index + 1).map_or(u32::MAX, |next| next - 1);
        let here =
            areas.iter().filter(|(path, _)| (path.architectures.first..=path.architectures.last).contains(first));
        let spans =
            here.map(|(path, value)| Span { first: path.numbers.first, last: path.numbers.last, value: *value });
        let mut calls: Calls = spans.collect();
        calls.sort_unstable_by_key(|span| span.first);
        push(&mut tables, Span { first: *first, last, value: merge(calls) });
    }
    Some(tables)
}

/// Every path through the program with its end. Each jump divides the calls that come to it, so that no two paths have one
/// in common.
fn follow(program: &[Instruction]) -> Option<Vec<(Path, Outcome)>> {
    let mut ends = Vec::new();
    let mut open = vec![Path { at: 0, loaded: None, architectures: ALL, numbers: ALL }];
    let mut steps = 0;
    while let Some(mut path) = open.pop() {
        loop {
            steps += 1;
            if steps > PATIENCE {
                return None;
            }
            let Instruction { code, operand, .. } = *program.get(path.at)?;
            match code {
                LOAD if matches!(operand, NUMBER | ARCHITECTURE) => {
                    path.loaded = Some(operand);
                    path.at += 1;
                }
                LOAD => {
                    ends.push((path, Outcome::Undecided(path.at)));
                    break;
                }
                RETURN => {
                    ends.push((path, Outcome::Return(operand)));
                    break;
                }
                JUMP => path.at = path.at.checked_add(operand as usize)?.checked_add(1)?,
                _ => {
                    open.extend(divide(path, program[path.at])?);
                    break;
                }
            }
        }
    }
    Some(ends)
}

/// The parts of a path behind a conditional jump.
fn divide(path: Path, jump: Instruction) -> Option<impl Iterator<Item = Path>> {
    let operand = jump.operand;
    // Where the condition holds; nowhere, if that begins behind the last number.
    let (first, last) = match jump.code {
        JUMP_EQUAL => (Some(operand), operand),
        JUMP_GREATER => (operand.checked_add(1), u32::MAX),
        JUMP_GREATER_OR_EQUAL => (Some(operand), u32::MAX),
        _ => return None,
    };
    let word = path.loaded?;
    let (yes, no) = (path.at + 1 + usize::from(jump.yes), path.at + 1 + usize::from(jump.no));
    let part = move |first: Option<u32>, last: Option<u32>, at: usize| {
        let (mut path, (first, last)) = (path, first.zip(last)?);
        path.at = at;
        let part = path.of(word);
        *part = Interval { first: part.first.max(first), last: part.last.min(last) };
        (part.first <= part.last).then_some(path)
    };
    let below = part(Some(0), first.map_or(Some(u32::MAX), |first| first.checked_sub(1)), no);
    let within = part(first, Some(last), yes);
    let above = part(last.checked_add(1), Some(u32::MAX), no);
    Some([below, within, above].into_iter().flatten())
}

fn merge(calls: Calls) -> Calls {
    let mut merged = Vec::new();
    calls.into_iter().for_each(|span| push(&mut merged, span));
    merged
}

/// Adds a span behind those that are there.
fn push<T: PartialEq>(spans: &mut Vec<Span<T>>, span: Span<T>) {
    match spans.last_mut() {
        Some(before) if before.value == span.value => before.last = span.last,
        _ => spans.push(span),
    }
}
