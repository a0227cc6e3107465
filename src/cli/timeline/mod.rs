//! `--timeline FILE`: where the time of this very container went, as a trace for Perfetto or chrome://tracing, or as a
//! picture where the file is called .svg.

mod chrome;
mod processes;
mod svg;

use super::report;
use crate::sys::{Errno, On};
use crate::trace;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A recording as it is to be shown.
struct Timeline {
    /// "rtx run".
    command: String,
    processes: Vec<processes::Process>,
    /// Nanoseconds of CPU time that went before the recording began.
    before: u64,
    /// What could not be recorded, and why.
    missing: Option<String>,
}

/// Does the work of a command, and where files are asked for, records it.
///
/// # Errors
/// The command's own; or that a file cannot be written, before anything is done.
pub fn record(files: &[PathBuf], command: &str, work: impl FnOnce() -> Result<i32>) -> Result<i32> {
    if files.is_empty() {
        return work();
    }
    let mut open = Vec::new();
    for path in files {
        open.push((path, create(path).with_context(|| format!("--timeline {}", path.display()))?));
    }
    let before = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(0, |time| (time.tv_sec() * 1_000_000_000 + time.tv_nsec()) as u64);
    trace::begin();
    let outcome = work();
    let recording = trace::end();
    let missing = recording.missing.clone();
    if let Some(missing) = &missing {
        report::remark(&format!("rtx: warning: --timeline has no system calls of {missing}"));
    }
    let timeline = Timeline { command: format!("rtx {command}"), processes: processes::of(recording), before, missing };
    for (path, mut file) in open {
        let picture = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
        let text = if picture { svg::draw(&timeline) } else { chrome::trace(&timeline) };
        // The container is there all the same.
        if let Err(error) = file.write_all(text.as_bytes()) {
            report::remark(&format!("rtx: warning: --timeline {}: {error}", path.display()));
        }
    }
    outcome
}

/// A pipe that nobody reads is an error, and nothing to wait for (fifo(7)).
fn create(path: &Path) -> Result<File> {
    match File::options().write(true).create(true).truncate(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            bail!("nobody reads what is written there: begin to read the pipe first, or name a file")
        }
        // What is written at the end may well wait for its reader.
        file => {
            let file = file?;
            fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).on("fcntl", "F_SETFL")?;
            Ok(file)
        }
    }
}
