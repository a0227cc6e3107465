//! Who may not have a supervised container: callers that want to be the parent of its init themselves, or to be killed with
//! what they called.

use crate::engine::LaunchOptions;
use crate::sys::{On, process};
use anyhow::{Result, bail};
use std::ffi::OsStr;

/// What else the caller asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    pub console_socket: bool,
    pub pidfd_socket: bool,
    pub notify_socket: Option<&'a OsStr>,
}

/// What conmon sets for itself, and leaves to the runtime.
const CONMON: [&str; 3] = ["_OCI_SYNCPIPE", "_OCI_STARTPIPE", "_OCI_ATTACHPIPE"];

/// # Errors
/// Why the container cannot be supervised for this caller.
pub fn refuse(caller: Caller<'_>, options: &LaunchOptions, restarts: bool) -> Result<()> {
    const WHY: &str = "the caller is to watch the container itself: leave out --supervise";
    if caller.console_socket {
        bail!(
            "--supervise cannot be combined with --console-socket: smaster holds the terminal, which `rtx attach` shows"
        );
    }
    if caller.pidfd_socket {
        bail!("--supervise cannot be combined with --pidfd-socket: smaster is the one that waits for init");
    }
    if let Some(name) = CONMON.into_iter().find(|name| std::env::var_os(name).is_some()) {
        bail!("--supervise is not for conmon ({name} is set): {WHY}");
    }
    if let Some(parent) = parent_name().filter(|name| name.starts_with("containerd-shim") || name == "conmon") {
        bail!("--supervise is not for {parent}: {WHY}");
    }
    let signal = process::parent_death_signal().on("prctl", "PR_GET_PDEATHSIG")?;
    if signal != 0 {
        bail!(
            "--supervise is not for a caller that set a parent-death signal ({signal}), which would end smaster: {WHY}"
        );
    }
    if restarts && options.preserve_fds + options.listen_fds > 0 {
        bail!("--restart cannot be combined with --preserve-fds or LISTEN_FDS: a restart could not pass them on again");
    }
    if restarts && caller.notify_socket.is_some() {
        bail!("--restart cannot be combined with NOTIFY_SOCKET: the service manager restarts services itself");
    }
    Ok(())
}

fn parent_name() -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", nix::unistd::getppid())).ok()?;
    Some(name.trim_end().to_owned())
}
