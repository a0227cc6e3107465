//! Pseudoterminals (pty(7)) and window sizes.

use super::{check, fd::own};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Opens the other end of a pseudoterminal from its master, without a path that somebody could have replaced
/// (`TIOCGPTPEER`).
///
/// # Errors
/// `ENOTTY` where the descriptor is no master.
pub fn open_peer(master: impl AsFd) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes the open flags as an integer.
    own(libc::c_long::from(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Unlocks the other end of a pseudoterminal (`TIOCSPTLCK`).
///
/// # Errors
/// `ENOTTY`.
pub fn unlock(master: impl AsFd) -> nix::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the ioctl reads one int.
    check(libc::c_long::from(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }))
        .map(drop)
}

/// The number of the pseudoterminal: N of /dev/pts/N (`TIOCGPTN`).
///
/// # Errors
/// `ENOTTY`.
pub fn number(master: impl AsFd) -> nix::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the ioctl writes one unsigned int.
    check(libc::c_long::from(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) }))?;
    Ok(number)
}

/// Makes the terminal this session's controlling terminal (`TIOCSCTTY`).
///
/// # Errors
/// `EPERM` where the process leads no session or has a terminal already.
pub fn make_controlling(terminal: impl AsFd) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Sets the window size in characters (`TIOCSWINSZ`).
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl reads one winsize.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }))
        .map(drop)
}

/// The window size in characters: rows, columns (`TIOCGWINSZ`).
///
/// # Errors
/// `ENOTTY`.
pub fn size(terminal: impl AsFd) -> nix::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl writes one winsize.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }))?;
    Ok((size.ws_row, size.ws_col))
}
