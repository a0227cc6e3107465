//! The command line: one file a command, with runc's names for commands and flags.

pub mod args;
mod argv;
mod criu_args;
pub mod docs;
mod launch_args;
mod values;
pub mod version;
