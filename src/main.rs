//! The binary: stage2 before everything else, otherwise the command line.

use std::ffi::OsString;

fn main() {
    std::process::exit(rtx::sys::stack::with_room(run));
}

extern "C" fn run() -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // stage2 never goes through the command line: its start is on the path of every container.
    match arguments.get(1) {
        Some(argument) if argument == "init" => rtx::stages::stage2::main(&arguments[2..]),
        _ => rtx::cli::main(arguments),
    }
}
