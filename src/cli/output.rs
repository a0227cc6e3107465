//! Printing what a command was asked for. A reader that has gone away is an error to report, not a reason to abort as
//! `println!` would.

use crate::sys::{On, errno_of};
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// Prints `text`, which brings its own newline, at once.
///
/// # Errors
/// The kernel's, `EPIPE` where nobody reads any more.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let result = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(result.map_err(|error| errno_of(&error)).on("write to", "standard output")?)
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}
