//! The binary: stage2 before everything else, otherwise the command line.
#![no_main]

use std::ffi::OsString;

#[cfg(target_env = "musl")]
#[path = "sys/clock.rs"]
mod clock;
#[cfg(all(target_arch = "x86_64", any(test, target_env = "musl")))]
#[path = "sys/copy.rs"]
mod copy;
#[path = "sys/start.rs"]
mod start;
#[cfg(tells_of_threads)]
#[path = "sys/threads.rs"]
mod threads;

/// musl's own asks the kernel for every few blocks, two hundred times in a `run`.
#[global_allocator]
static ALLOCATOR: rtx::sys::heap::Heap = rtx::sys::heap::Heap::new();

fn run(arguments: Vec<OsString>) -> i32 {
    // stage2 never goes through the command line: its start is on the path of every container.
    rtx::called_by_itself(&arguments).unwrap_or_else(|| rtx::cli::main(arguments))
}
