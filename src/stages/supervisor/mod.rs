//! The supervised mode: smaster is a process of its own, which is init's parent for as long as the container lives and writes
//! down what becomes of it. The command forks; the child makes the container as every command would ([`birth`]) and then
//! executes the sealed binary anew, so that nothing of the making stays in memory ([`daemon`]). What takes more than waiting,
//! a restart or a health check, is done by children that end again ([`again`], [`exec_check`]).
//!
//! smaster may be killed at any time: the container runs on, and `state` says that it is not supervised any more.

mod again;
mod birth;
mod child;
mod clients;
mod daemon;
mod exec_check;
pub mod health;
pub mod logs;
pub mod output;
pub mod protocol;
mod refusal;
pub mod settings;
mod streams;
pub mod view;
pub mod wait;

pub use birth::{Born, create};
pub use refusal::{Caller, refuse};
pub use settings::Settings;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// What smaster says of a container.
pub type Supervision = crate::state::Supervision<Settings>;

/// `rtx smaster TASK ROOT ID ...`: what rtx calls itself for. Everybody who could be told of a failure has been told.
// As stage2: the stack of a waiting init would have room for it.
#[inline(never)]
pub fn main(arguments: &[OsString]) -> i32 {
    let [task, root, id, rest @ ..] = arguments else { return not_a_command() };
    let (Some(task), Some(id)) = (task.to_str(), id.to_str()) else { return not_a_command() };
    let _ = crate::sys::fd::cloexec_from(3);
    match task {
        "watch" => daemon::main(Path::new(root), id, rest),
        "again" => again::main(Path::new(root), id, rest),
        "health" => exec_check::main(Path::new(root), id, rest),
        _ => not_a_command(),
    }
}

fn not_a_command() -> i32 {
    let _ = writeln!(
        std::io::stderr(),
        "rtx: smaster is not a command: rtx calls itself so to watch a container (--supervise)"
    );
    1
}
