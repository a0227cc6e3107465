//! The container's terminal: a pseudoterminal of its own devpts, whose master goes to smaster.

use super::root::{Root, Target};
use crate::rpc::operation::ConsoleOperation;
use crate::sys::path::{openat2, resolve};
use crate::sys::{Errno, On, mount, tty};
use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::termios::{self, OutputFlags, SetArg};
use std::os::fd::{AsFd, OwnedFd};

/// Both ends of a new pseudoterminal.
pub struct Console {
    pub master: OwnedFd,
    pub terminal: OwnedFd,
}

/// Opens a pseudoterminal; with a root, one of the devpts that is mounted there, otherwise one of this mount
/// namespace's.
///
/// # Errors
/// Where there is no devpts; where what stands for its multiplexer is something else (CVE-2025-52565).
pub fn open(root: Option<&Root>, operation: ConsoleOperation) -> Result<Console> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let try_open = |path: &std::ffi::CStr| match root {
        Some(root) => openat2(root, path, flags.bits(), 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS),
        None => openat2(AT_FDCWD, path, flags.bits(), 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS),
    };
    let master = match try_open(c"/dev/pts/ptmx") {
        Err(Errno::ENOENT | Errno::EACCES) => try_open(c"/dev/ptmx"),
        other => other,
    }
    .on("open", "/dev/pts/ptmx")
    .context("a terminal needs a devpts mounted at /dev/pts")?;
    let stat = fstat(&master).on("stat", "/dev/pts/ptmx")?;
    if (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
        bail!("/dev/pts/ptmx is not the terminal multiplexer");
    }
    tty::unlock(&master).on("unlock", "the terminal")?;
    let terminal = tty::open_peer(&master).on("open", "the terminal")?;
    let ConsoleOperation { rows, columns, relayed, .. } = operation;
    if rows != 0 || columns != 0 {
        tty::set_size(&master, rows, columns).on("set the size of", "the terminal")?;
    }
    if relayed {
        let mut modes = termios::tcgetattr(&terminal).on("tcgetattr", "the terminal")?;
        modes.output_flags.remove(OutputFlags::ONLCR);
        termios::tcsetattr(&terminal, SetArg::TCSANOW, &modes).on("tcsetattr", "the terminal")?;
    }
    Ok(Console { master, terminal })
}

/// Makes the terminal the container's /dev/console.
///
/// # Errors
/// The kernel's.
pub fn bind(root: &Root, terminal: impl AsFd) -> Result<()> {
    let target = root.target("dev/console", Target::File)?;
    let tree = mount::clone_tree(terminal, c"", false).on("clone", "the terminal")?;
    mount::attach(&tree, &target).on("attach", "/dev/console")?;
    Ok(())
}

/// Starts a session on the terminal, with the terminal as its standard input, output and error.
///
/// # Errors
/// The kernel's.
pub fn adopt(terminal: &OwnedFd) -> Result<()> {
    tty::make_controlling(terminal).on("make controlling", "the terminal")?;
    nix::unistd::dup2_stdin(terminal).on("dup", "the terminal")?;
    nix::unistd::dup2_stdout(terminal).on("dup", "the terminal")?;
    nix::unistd::dup2_stderr(terminal).on("dup", "the terminal")?;
    Ok(())
}
