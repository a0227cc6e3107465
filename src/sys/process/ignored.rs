//! Signals that this process ignores because its caller did: a program that is executed would ignore them too (execve(2)).

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};

/// Of Linux.
const LAST: libc::c_int = 64;

/// Those that C libraries keep for themselves: glibc's posix_spawn(3) has every program ignore them.
const INTERNAL: [libc::c_int; 2] = [32, 33];

/// Gives every signal that is ignored its default action, but SIGPIPE, which this process itself has to ignore until
/// [`super::restore_sigpipe`]. `proc` is /proc: to read there costs half of what it would to ask for every one. What was read
/// is returned, since who closes more beside it has one call to make.
pub fn stop_ignoring(proc: impl AsFd) -> Option<OwnedFd> {
    let mut text = [0; 1280];
    let file = openat(proc, "self/status", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    let length = file.as_ref().and_then(|file| super::super::retry(|| nix::unistd::read(file, &mut text)).ok());
    match length.and_then(|length| parse(&text[..length])) {
        Some(ignored) => signals().filter(|signal| ignored & 1 << (signal - 1) != 0).for_each(set_default),
        None => stop_ignoring_any(),
    }
    file
}

/// The same where there is no /proc at hand.
pub fn stop_ignoring_any() {
    signals().filter(|signal| is_ignored(*signal)).for_each(set_default);
}

fn signals() -> impl Iterator<Item = libc::c_int> {
    (1..=LAST).filter(|signal| *signal != libc::SIGPIPE && !INTERNAL.contains(signal))
}

/// As the kernel writes it (proc_pid_status(5)); `None` where the list of groups before it is too long for what was read.
fn parse(status: &[u8]) -> Option<u64> {
    const DIGITS: usize = 16;
    let (_, value) = std::str::from_utf8(status).ok()?.split_once("\nSigIgn:\t")?;
    u64::from_str_radix(value.get(..DIGITS)?, 16).ok()
}

/// The kernel's own form of an action begins with its handler, but on MIPS, and is larger nowhere; all zero it is the default.
type Action = [usize; 8];

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action: Action = [0; 8];
    change(signal, std::ptr::null(), &raw mut action) && action[0] == libc::SIG_IGN
}

fn set_default(signal: libc::c_int) {
    let action: Action = [0; 8];
    change(signal, &raw const action, std::ptr::null_mut());
}

/// By the system call: musl keeps a third signal for itself, which programs of other libraries use.
fn change(signal: libc::c_int, new: *const Action, old: *mut Action) -> bool {
    // SAFETY: both are null or point to an action that is alive; no handler is set but the default.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_mask_is_found_or_not_told() {
        let status =
            b"Name:\tSigIgn:\nSigBlk:\t0000000000000000\nSigIgn:\t8000008381182200\nSigCgt:\t0000000000000000\n";
        assert_eq!(parse(status), Some(0x8000_0083_8118_2200));
        assert_eq!(parse(&status[..status.len() - 40]), None);
        assert_eq!(parse(b"Name:\tx\n"), None);
    }
}
