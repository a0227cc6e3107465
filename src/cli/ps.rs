//! `rtx ps`: the processes of a container, as ps(1) prints them or as a list of pids.

use super::Context;
use super::args::{Format, PsArgs};
use super::output;
use crate::stages::lifecycle::Live;
use crate::sys::describe;
use crate::sys::process::Program;
use anyhow::{Context as _, Result, anyhow, bail};
use std::collections::HashSet;

pub fn ps(context: &Context, args: PsArgs) -> Result<i32> {
    let live = Live::open(&context.root, &args.id)?;
    let pids = live.engine.processes(&live.container)?;
    match args.format {
        Format::Json => output::print_json(&pids)?,
        Format::Table => output::print(&select(&run_ps(&args.ps_options)?, &pids)?)?,
    }
    Ok(0)
}

/// What ps(1) says about every process that it can see.
fn run_ps(options: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let arguments = ["ps"].into_iter().chain(options.iter().map(String::as_str));
    let output = Program::new("ps", arguments)
        .and_then(Program::output)
        .map_err(|errno| anyhow!("exec: \"ps\": {}; install procps, or use --format json", describe(errno)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim();
        bail!("ps {}: {}: {said}", options.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines of the processes with these pids.
fn select(table: &str, pids: &[i32]) -> Result<String> {
    let heading = table.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|title| title == "PID").with_context(|| {
        format!("couldn't find PID field in ps output: its heading is {heading:?}; choose options that show the PID")
    })?;
    let wanted: HashSet<i32> = pids.iter().copied().collect();
    let mut selected = format!("{heading}\n");
    for line in table.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let cell = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = cell.parse().map_err(|_| anyhow!("unable to parse pid {cell:?} in the line {line:?} of ps"))?;
        if wanted.contains(&pid) {
            selected += line;
            selected.push('\n');
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn lines_are_chosen_by_the_column_of_the_pid() {
        let table = "UID   PID  PPID CMD\nroot    7     1 a 8\nroot    8     7 b\n\nroot   77     1 c\n";
        assert_eq!(select(table, &[8]).unwrap(), "UID   PID  PPID CMD\nroot    8     7 b\n");
        assert_eq!(select(table, &[]).unwrap(), "UID   PID  PPID CMD\n");
        assert!(select("CMD\na\n", &[1]).unwrap_err().to_string().contains("couldn't find PID field"));
    }
}
