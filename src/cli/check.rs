//! `rtx check`: every problem of a bundle at once.

use super::args::CheckArgs;
use super::output;
use crate::config::check::{self, Severity};
use crate::config::json;
use crate::engine::LaunchOptions;
use crate::stages::stage1::{self, Request};
use crate::sys::{describe, errno_of};
use anyhow::{Context, Result};
use std::path::Path;

/// Prints a line a finding; the exit code is 1 if there is an error among them.
pub fn check(context: &super::Context, args: CheckArgs) -> Result<i32> {
    let directory = std::fs::canonicalize(&args.bundle)
        .map_err(|error| anyhow::anyhow!("chdir {}: {}", args.bundle.display(), describe(errno_of(&error))))?;
    let path = directory.join("config.json");
    let raw = json::read(&path)?;
    let value = json::parse(&raw).with_context(|| format!("{} is not valid JSON", path.display()))?;
    let findings = check::check(&value, Some(&directory));
    let others = findings.iter().filter(|finding| finding.severity != Severity::Error).count();
    let mut text = String::new();
    for finding in &findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        text += &format!("{severity}: {finding}\n");
    }
    let mut errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors == 0
        && let Err(error) = try_stage1(context, &directory)
    {
        errors += 1;
        text += &format!("error: {error:#}\n");
    }
    text += &format!("{}: {}\n", path.display(), summary(errors, others));
    output::print(&text)?;
    Ok(i32::from(errors > 0))
}

/// What a `run` would decide before it makes anything: the engine has rules of its own, and so has this host.
fn try_stage1(context: &super::Context, bundle: &Path) -> Result<()> {
    let options = LaunchOptions { foreground: true, allow_unconfined: true, ..context.launch_options() };
    stage1::prepare(Request {
        id: None,
        bundle,
        engine: context.globals.engine.as_deref(),
        config: &context.config,
        options,
        root: context.root.clone(),
    })
    .map(drop)
}

/// The last line, for whoever reads no other.
fn summary(errors: usize, others: usize) -> String {
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match (errors, others) {
        (0, 0) => "no problem found".to_owned(),
        (0, others) => format!("it can be run; {}", count(others, "remark")),
        (errors, 0) => count(errors, "error"),
        (errors, others) => format!("{}, {}", count(errors, "error"), count(others, "remark")),
    }
}
