//! Takes system calls away and executes a program: `without ERRNO CALL[,CALL...] PROGRAM [ARGUMENT...]`, all of them by
//! number. A seccomp filter answers the calls with the error; it holds for the program and all that it starts. So a kernel
//! looks that is older than the calls (ENOSYS, 38), or a container whose profile is (EPERM, 1).
//!
//! Compiled on its own (see `payload.rs`), with nothing but std.

use std::ffi::{c_int, c_ulong};
use std::os::unix::process::CommandExt;
use std::process::{exit, Command};

#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const SET_SECCOMP: c_int = 22;
const MODE_FILTER: c_ulong = 2;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [errno, calls, program, arguments @ ..] = words.as_slice() else {
        eprintln!("without ERRNO CALL[,CALL...] PROGRAM [ARGUMENT...]");
        exit(2);
    };
    let instruction = |code, if_true, k| Instruction { code, if_true, if_false: 0, k };
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![instruction(LOAD_WORD, 0, 0)];
    let calls: Vec<u32> = calls.split(',').map(|call| call.parse().expect("the number of a call")).collect();
    for (index, call) in calls.iter().enumerate() {
        let to_denial = (calls.len() - index) as u8;
        filter.push(instruction(JUMP_IF_EQUAL, to_denial, *call));
    }
    filter.push(instruction(RETURN, 0, ALLOW));
    filter.push(instruction(RETURN, 0, ERRNO | errno.parse::<u32>().expect("an error number")));
    let filter = Program { length: filter.len() as u16, instructions: filter.as_ptr() };
    // SAFETY: the kernel copies the filter, whose length is right, before it returns.
    if unsafe { prctl(SET_SECCOMP, MODE_FILTER, &filter as *const Program) } != 0 {
        eprintln!("without: {}", std::io::Error::last_os_error());
        exit(2);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("without: {program}: {error}");
    exit(2);
}
