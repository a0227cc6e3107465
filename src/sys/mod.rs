//! The only unsafe code of rtx: thin wrappers over the system calls that `nix` lacks, or wraps at a cost.
//!
//! Wrappers take descriptors (`AsFd`) and plain integers, return `OwnedFd` or `()`, and report a bare [`Errno`]; the
//! caller says what was being done to what with [`On::on`].
#![allow(unsafe_code)]

pub mod available;
pub mod bpf;
pub mod caps;
pub mod classic;
#[cfg(test)]
mod clock;
pub mod clone;
#[cfg(all(test, target_arch = "x86_64"))]
mod copy;
pub mod dir;
pub mod fd;
pub mod heap;
pub mod memfd;
pub mod mount;
pub mod net;
pub mod path;
pub mod printer;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod socket;
pub mod stack;
pub mod stat;
pub mod tty;

use std::fmt;

pub use nix::errno::Errno;

/// A failed system call: which one, what it was about, and why the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub op: String,
    pub target: String,
    pub errno: Errno,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.target.is_empty() {
            write!(f, "{}: {}", self.op, describe(self.errno))
        } else {
            write!(f, "{} {}: {}", self.op, self.target, describe(self.errno))
        }
    }
}

impl std::error::Error for Error {}

/// What an error number means, in the lower case that callers of a runtime compare with
/// ("no such file or directory").
pub fn describe(errno: Errno) -> String {
    // The C library's text is about functions of mathematics.
    if errno == Errno::ERANGE {
        return "numerical result out of range".to_owned();
    }
    let text = errno.desc();
    match text.chars().nth(1) {
        Some(second) if second.is_lowercase() || second == ' ' => text[..1].to_lowercase() + &text[1..],
        _ => text.to_owned(),
    }
}

/// Says what a system call was doing and to what.
pub trait On<T> {
    /// # Errors
    /// The error itself, as an [`Error`] that names the operation and its target.
    fn on(self, op: &str, target: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<Errno>> On<T> for Result<T, E> {
    fn on(self, op: &str, target: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|errno| Error { op: op.to_owned(), target: target.to_string(), errno: errno.into() })
    }
}

/// The errno of an `io::Error`; `EIO` where it carries none.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Repeats a system call that a signal interrupted.
pub fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Whether a call failed because there is none: the kernel is older than it, or a seccomp profile is, and many of those
/// answer EPERM. `probe` makes the call so that it fails with something else wherever it exists.
pub(crate) fn is_missing(errno: Errno, probe: impl FnOnce() -> libc::c_long) -> bool {
    match errno {
        Errno::ENOSYS => true,
        Errno::EPERM => check(probe()) == Err(Errno::EPERM),
        _ => false,
    }
}

pub(crate) fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_callers_compare_them() {
        let error = Err::<(), _>(Errno::ENOENT).on("open", "/nope").unwrap_err();
        assert_eq!(error.to_string(), "open /nope: no such file or directory");
        assert_eq!(describe(Errno::EACCES), "permission denied");
        assert_eq!(describe(Errno::EIO), "I/O error");
    }
}
