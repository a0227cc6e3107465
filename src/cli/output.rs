//! Printing what a command was asked for. A reader that has gone away is an error to report, not a reason to abort as
//! `println!` would.

use crate::sys::{On, errno_of};
use anyhow::Result;
use serde::Serialize;
use std::fmt::{Display, Write as _};
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

/// Rows as columns. All cells lie in one text: there may be thousands.
pub struct Table<const N: usize> {
    cells: String,
    /// Where each cell ends.
    ends: Vec<usize>,
    /// Of the widest cell of each column, in characters.
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    pub fn new(headings: [&str; N]) -> Self {
        let mut table = Self { cells: String::new(), ends: Vec::new(), widths: [0; N] };
        table.row(&headings.each_ref().map(|heading| heading as &dyn Display));
        table
    }

    pub fn row(&mut self, cells: &[&dyn Display; N]) {
        for (cell, width) in cells.iter().zip(&mut self.widths) {
            let begin = self.cells.len();
            // Writing to a string does not fail.
            let _ = write!(self.cells, "{cell}");
            *width = (*width).max(self.cells[begin..].chars().count());
            self.ends.push(self.cells.len());
        }
    }

    /// Columns that are as wide as their widest cell and `padding`, but at least `min_width`, as Go's tabwriter does for
    /// runc. The last cell of a row has no width.
    pub fn text(&self, min_width: usize, padding: usize) -> String {
        let widths = self.widths.map(|width| (width + padding).max(min_width));
        let mut text = String::with_capacity(self.ends.len() / N * (widths.iter().sum::<usize>() + 1));
        let mut begin = 0;
        for (index, end) in self.ends.iter().enumerate() {
            let cell = &self.cells[begin..*end];
            begin = *end;
            text += cell;
            match index % N {
                column if column + 1 < N => {
                    text.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
                }
                _ => text.push('\n'),
            }
        }
        text
    }
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}
