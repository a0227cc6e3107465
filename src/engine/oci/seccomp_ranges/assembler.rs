//! Puts a program together from its last instruction to its first: jumps lead forward only, so wherever one leads is there
//! already. What would be the same code twice is one.

use crate::engine::oci::seccomp_bpf::{Instruction, JUMP, RETURN, branch, plain};
use std::collections::HashMap;

/// The farthest that a conditional jump leads.
const FARTHEST: usize = u8::MAX as usize;

/// Where a program goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Return(u32),
    Code(Place),
}

/// An instruction, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(usize);

#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<Instruction>,
    /// The nearest instruction that returns a value.
    returns: HashMap<u32, Place>,
    made: HashMap<(u16, u32, Target, Target), Place>,
}

impl Assembler {
    /// A conditional jump.
    pub fn branch(&mut self, code: u16, operand: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let key = (code, operand, yes, no);
        if let Some(place) = self.made.get(&key) {
            return Target::Code(*place);
        }
        // What the second needs on the way may lie between the first and the jump.
        let yes = self.within(yes, FARTHEST - 1);
        let no = self.within(no, FARTHEST);
        let instruction = branch(code, self.distance(yes) as u8, self.distance(no) as u8, operand);
        self.keep(key, instruction)
    }

    /// An instruction that does not jump.
    pub fn straight(&mut self, code: u16, operand: u32, next: Target) -> Target {
        let key = (code, operand, next, next);
        if let Some(place) = self.made.get(&key) {
            return Target::Code(*place);
        }
        self.within(next, 0);
        self.keep(key, plain(code, operand))
    }

    /// The program that begins there.
    pub fn finish(mut self, entry: Target) -> Vec<Instruction> {
        self.within(entry, 0);
        self.reversed.reverse();
        self.reversed
    }

    fn keep(&mut self, key: (u16, u32, Target, Target), instruction: Instruction) -> Target {
        let place = self.push(instruction);
        self.made.insert(key, place);
        Target::Code(place)
    }

    fn push(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        Place(self.reversed.len() - 1)
    }

    /// How many instructions there are between the next one to be made and a place.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    /// A place that is not farther from the next instruction than `limit`, and leads where the target is.
    fn within(&mut self, target: Target, limit: usize) -> Place {
        let place = match target {
            Target::Code(place) => Some(place),
            Target::Return(value) => self.returns.get(&value).copied(),
        };
        match (place, target) {
            (Some(place), _) if self.distance(place) <= limit => place,
            (_, Target::Return(value)) => {
                let place = self.push(plain(RETURN, value));
                self.returns.insert(value, place);
                place
            }
            (_, Target::Code(place)) => {
                let distance = self.distance(place) as u32;
                self.push(plain(JUMP, distance))
            }
        }
    }
}
