//! The processes that smaster starts for what takes more than it has itself: rtx, for one task, and then they end.

use crate::sys::fd;
use crate::sys::process::{self, Program};
use nix::fcntl::OFlag;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

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
        let mut arguments: Vec<&OsStr> = ["rtx", "smaster", task].map(OsStr::new).into();
        arguments.extend([root.as_os_str(), OsStr::new(id)]);
        // Beside its standard streams it gets one descriptor, whose number it is told.
        let (socket, streams) = match streams {
            Some((socket, ends)) => {
                let socket = fd::duplicate_above(&socket, 10)?;
                fd::keep_on_exec(&socket)?;
                (Some(socket), [ends.stdin, ends.stdout, ends.stderr])
            }
            None => (None, [null(OFlag::O_RDONLY)?, null(OFlag::O_WRONLY)?, null(OFlag::O_WRONLY)?]),
        };
        let number = socket.as_ref().map(|socket| socket.as_raw_fd().to_string());
        arguments.extend(number.iter().map(OsStr::new));
        arguments.extend(words.iter().map(AsRef::as_ref));
        let mut program = Program::new("/proc/self/exe", arguments)?;
        program.streams(streams.map(Some));
        Ok(Self { pid: program.start()? })
    }

    /// Before it has been waited for, its pid is nobody else's.
    pub fn signal(&self, signal: i32) {
        if let Ok(pidfd) = process::pidfd_open(self.pid) {
            let _ = process::pidfd_signal(pidfd, signal);
        }
    }
}

fn null(access: OFlag) -> nix::Result<OwnedFd> {
    fd::open(c"/dev/null", access)
}
