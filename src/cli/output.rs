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

/// Prints a value as JSON for a reader: indented.
///
/// # Errors
/// As [`print`].
pub fn print_pretty(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints rows as columns that are as wide as their widest cell and `padding`, but at least `min_width`, as Go's
/// tabwriter does for runc. The last cell of a row has no width.
pub fn table<const N: usize>(rows: &[[String; N]], min_width: usize, padding: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count() + padding);
        cells.max().unwrap_or(0).max(min_width)
    };
    let widths: Vec<usize> = (0..N.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text += &format!("{cell:width$}");
        }
        text += row.last().map_or("", String::as_str);
        text.push('\n');
    }
    text
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}
