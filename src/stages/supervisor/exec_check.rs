//! One health check, in a child of smaster: an `exec` whose exit code is all that matters.

use crate::config::envelope::{OciConfig, Starter};
use crate::engine::{ExecConfig, LaunchOptions};
use crate::stages::exec::{self, ExecOptions};
use crate::stages::lifecycle::Live;
use crate::state::is_rootless;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::Path;

pub fn main(root: &Path, id: &str, words: &[OsString]) -> i32 {
    check(root, id, words).unwrap_or(255)
}

fn check(root: &Path, id: &str, words: &[OsString]) -> Result<i32> {
    let live = Live::open(root, id)?;
    let mut process = live.container.spec()?.process().clone().context("the container has no process")?;
    process.set_args(Some(words.iter().map(|word| word.to_string_lossy().into_owned()).collect()));
    process.set_terminal(Some(false));
    let exec = ExecConfig {
        process,
        options: LaunchOptions { foreground: true, rootless: is_rootless(), ..LaunchOptions::default() },
        ignore_paused: false,
        sub_cgroups: Vec::new(),
        starter: Starter::default(),
        oci_config: OciConfig::default(),
        root: root.to_owned(),
        warnings: Vec::new(),
    };
    let options = ExecOptions { detach: false, no_subreaper: false, joined: &mut |_| Ok(()) };
    Ok(exec::exec(live, exec, options)?.map_or(255, |status| status.code()))
}
