//! Printing what a command was asked for. A reader that has gone away is an error to report, not a reason to abort as
//! `println!` would.

use crate::sys::{On, fd};
use anyhow::Result;
use serde::Serialize;

/// Prints `text`, which brings its own newline, at once.
///
/// # Errors
/// The kernel's, `EPIPE` where nobody reads any more.
pub fn print(text: &str) -> Result<()> {
    Ok(fd::print(text.as_bytes()).on("write to", "standard output")?)
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
    /// Where each cell ends, and how many characters it has.
    ends: Vec<(usize, usize)>,
    /// Of the widest cell of each column, in characters.
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    pub fn new(headings: [&str; N]) -> Self {
        let mut table = Self { cells: String::new(), ends: Vec::new(), widths: [0; N] };
        table.row(&headings);
        table
    }

    pub fn row(&mut self, cells: &[&str; N]) {
        for (cell, widest) in cells.iter().zip(&mut self.widths) {
            let width = cell.chars().count();
            *widest = (*widest).max(width);
            self.cells += cell;
            self.ends.push((self.cells.len(), width));
        }
    }

    /// Columns that are as wide as their widest cell and `padding`, but at least `min_width`, as Go's tabwriter does for
    /// runc. The last cell of a row has no width.
    pub fn text(&self, min_width: usize, padding: usize) -> String {
        const BLANKS: &str = "                                ";
        let widths = self.widths.map(|width| (width + padding).max(min_width));
        let mut text = String::with_capacity(self.ends.len() / N * (widths.iter().sum::<usize>() + 1));
        let mut begin = 0;
        for (index, (end, width)) in self.ends.iter().enumerate() {
            text += &self.cells[begin..*end];
            begin = *end;
            match index % N {
                column if column + 1 < N => {
                    let mut left = widths[column] - width;
                    while left > 0 {
                        let blanks = left.min(BLANKS.len());
                        text += &BLANKS[..blanks];
                        left -= blanks;
                    }
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
