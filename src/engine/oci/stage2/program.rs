//! Finding the payload's program before it is executed, so that `create` can say what is wrong with it.

use crate::sys::{Errno, describe};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access, faccessat};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a program cannot be executed, in the words that callers derive exit codes 126 and 127 from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramError {
    program: String,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    NotInPath,
    InWorkingDirectory,
    IsDirectory,
    Stat(Errno),
    Denied(Errno),
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match self.why {
            Why::NotInPath => write!(f, "exec: {program:?}: executable file not found in $PATH"),
            Why::InWorkingDirectory => {
                write!(
                    f,
                    "exec: {program:?}: cannot run executable found relative to current directory: write ./{program}"
                )
            }
            // execve(2) says EACCES, and those who know no other word for 126 (Docker before 25) look for it.
            Why::IsDirectory => write!(f, "exec: {program:?}: is a directory: {}", describe(Errno::EACCES)),
            Why::Stat(errno) => write!(f, "exec: {program:?}: stat {program}: {}", describe(errno)),
            Why::Denied(errno) => write!(f, "exec: {program:?}: {}", describe(errno)),
        }
    }
}

impl std::error::Error for ProgramError {}

/// The file that `program` means with this environment: a path is taken as it is, relative to the working directory,
/// a name is looked for in `PATH` (execvp(3)), but not in its relative or empty elements.
///
/// # Errors
/// Why there is none.
pub fn find_program(program: &str, env: &[String]) -> Result<PathBuf, ProgramError> {
    let error = |why| ProgramError { program: program.to_owned(), why };
    if program.contains('/') {
        return check(Path::new(program)).map_err(error).map(|()| PathBuf::from(program));
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = None;
    for directory in path.split(':').filter(|_| !path.is_empty()) {
        let candidate = if directory.is_empty() { Path::new(".") } else { Path::new(directory) }.join(program);
        match check(&candidate) {
            // What lies in the working directory is seldom meant, and may be anybody's.
            Ok(()) if !candidate.is_absolute() => return Err(error(Why::InWorkingDirectory)),
            Ok(()) => return Ok(candidate),
            Err(Why::Denied(errno)) => denied = Some(errno),
            Err(_) => {}
        }
    }
    Err(error(denied.map_or(Why::NotInPath, Why::Denied)))
}

fn check(path: &Path) -> Result<(), Why> {
    let mode = SFlag::from_bits_truncate(stat(path).map_err(Why::Stat)?.st_mode);
    if mode & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(Why::IsDirectory);
    }
    // As execve(2) sees it, which counts capabilities: access(2) would look at the real user without them.
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // Linux before 5.8, or a filter that does not know faccessat2(2).
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => access(path, AccessFlags::X_OK),
        other => other,
    }
    .map_err(Why::Denied)
}
