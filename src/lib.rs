//! rtx runs OCI bundles. The same bundle and the same commands run under replaceable *engines*; a container's life is
//! split into three *stages*: [`stages::stage1`] prepares, [`stages::smaster`] creates, watches and cleans up, and
//! [`stages::stage2`] is the process that becomes the payload.
//!
//! Imports run downhill: `cli` → `stages` → `engine` → (`config`, `rpc`, `state`) → `trace` → `sys`.

pub mod cli;
pub mod config;
mod embed;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
pub mod rpc;
pub mod stages;
pub mod state;
pub mod sys;
pub mod trace;

pub use embed::{Builder, Container, EventStream, Supervisor};
pub use stages::supervisor::output::Stream;

/// The version of the OCI runtime-spec that rtx implements, as `features`, `state` and `spec` report it.
pub const OCI_VERSION: &str = "1.3.0";

/// What rtx calls itself for: stage2, `rtx init`, which becomes a container's first process, and smaster as a process of its
/// own, `rtx smaster`. `None` for every other command line. A program that embeds rtx has to ask this before anything else:
/// rtx executes the program that it is part of.
pub fn called_by_itself(arguments: &[std::ffi::OsString]) -> Option<i32> {
    match arguments.get(1)?.to_str()? {
        "smaster" if arguments.get(2).is_some_and(|task| task == "call") => {
            Some(embed::call(std::path::Path::new(arguments.get(3)?), arguments.get(5..)?))
        }
        "init" => Some(stages::stage2::main(&arguments[2..])),
        "smaster" => Some(stages::supervisor::main(&arguments[2..])),
        _ => None,
    }
}
