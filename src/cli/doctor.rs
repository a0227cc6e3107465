//! `rtx doctor`: a line a thing that this host can do or cannot.

use super::Context;
use super::args::DoctorArgs;
use super::output;
use crate::stages::doctor::{self, Check, Subject};
use crate::state;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    can_run: bool,
    checks: &'a [Check],
}

/// The exit code is 1 where no container can run.
pub fn doctor(context: &Context, args: DoctorArgs) -> Result<i32> {
    let criu = context.globals.criu.as_deref().unwrap_or(Path::new("criu"));
    let checks = doctor::examine(&Subject { root: &context.root, criu, rootless: state::is_rootless() });
    let can_run = doctor::can_run(&checks);
    if args.json {
        output::print_pretty(&Report { can_run, checks: &checks })?;
    } else {
        output::print(&checks.iter().map(line).collect::<String>())?;
        output::print(&summary(&checks, can_run))?;
    }
    Ok(i32::from(!can_run))
}

fn line(check: &Check) -> String {
    let Check { area, name, found, lack, .. } = check;
    match lack {
        None => format!("ok       {area}: {name}: {found}\n"),
        Some(lack) => {
            format!("missing  {area}: {name}: {found}. Without it {}. To mend it: {}\n", lack.cost, lack.mend)
        }
    }
}

fn summary(checks: &[Check], can_run: bool) -> String {
    let missing = checks.iter().filter(|check| !check.ok).count();
    let verdict = if can_run { "containers can run here" } else { "no container can run here" };
    format!("{verdict}; {} of {} things are there\n", checks.len() - missing, checks.len())
}
