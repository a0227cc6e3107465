//! The processes that smaster starts for what takes more than it has itself: rtx, for one task, and then they end.

use crate::sys::{errno_of, process};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// A child of this process that has not been waited for.
pub struct Helper {
    pub pid: i32,
}

impl Helper {
    /// Starts `rtx smaster TASK ROOT ID WORDS...`. `socket` becomes its standard input, and `ends` the program's streams.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start<W: AsRef<OsStr>>(
        task: &str,
        root: &Path,
        id: &str,
        words: &[W],
        streams: Option<(OwnedFd, super::streams::Ends)>,
    ) -> nix::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["smaster", task]).arg(root).arg(id);
        match streams {
            Some((socket, ends)) => {
                // Beside its standard streams it gets one descriptor, whose number it is told.
                let number = crate::sys::fd::duplicate_above(&socket, 10)?;
                crate::sys::fd::keep_on_exec(&number)?;
                command.arg(number.as_raw_fd().to_string()).args(words);
                command
                    .stdin(Stdio::from(ends.stdin))
                    .stdout(Stdio::from(ends.stdout))
                    .stderr(Stdio::from(ends.stderr));
                return spawn(command);
            }
            None => command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        };
        spawn(command)
    }

    /// Before it has been waited for, its pid is nobody else's.
    pub fn signal(&self, signal: i32) {
        if let Ok(pidfd) = process::pidfd_open(self.pid) {
            let _ = process::pidfd_signal(pidfd, signal);
        }
    }
}

fn spawn(mut command: Command) -> nix::Result<Helper> {
    process::die_with_parent(&mut command);
    let child = command.spawn().map_err(|error| errno_of(&error))?;
    Ok(Helper { pid: child.id() as i32 })
}
