//! The descriptors that a caller passes on: sockets of LISTEN_FDS first, those of `--preserve-fds` after them.

use crate::engine::LaunchOptions;
use crate::sys::fd;
use anyhow::{Result, bail};
use std::ffi::OsString;

/// How many descriptors from 3 upwards this process was started with, up to the first that is missing. Has to be called
/// before it opens any of its own, which would take the missing one's number and be passed on in its place.
pub fn find() -> u32 {
    (3..).take_while(|number| fd::is_open(*number)).count() as u32
}

/// Counts what is passed on of the `found` descriptors that were inherited.
///
/// # Errors
/// Where a descriptor that is to be passed on is not open.
pub fn count(found: u32, preserve_fds: u32, options: &mut LaunchOptions) -> Result<()> {
    let variable = |name| std::env::var(name).ok();
    let (pid, fds) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let own_pid = pid.as_ref().map_or(0, |_| std::process::id());
    count_for(own_pid, (pid.as_deref(), fds.as_deref()), found, preserve_fds, options)
}

/// The same for the process with that pid, with `LISTEN_PID` and `LISTEN_FDS` as they are given.
///
/// # Errors
/// As [`count`].
pub fn count_for(
    own_pid: u32,
    variables: (Option<&str>, Option<&str>),
    found: u32,
    preserve_fds: u32,
    options: &mut LaunchOptions,
) -> Result<()> {
    let listen_fds = listen_fds(own_pid, variables);
    if listen_fds > found {
        bail!("LISTEN_FDS={listen_fds}: descriptor {} is not open; LISTEN_FDS counts from 3", 3 + found);
    }
    options.listen_fds = listen_fds;
    options.preserve_fds = preserve_fds.min(found - listen_fds);
    // podman names the same sockets twice, in LISTEN_FDS and by --preserve-fds: what is missing at the end of the second
    // list is then no mistake.
    if options.preserve_fds < preserve_fds && listen_fds == 0 {
        let missing = 3 + found;
        bail!(
            "unable to stat preserved-fd {missing} (of {preserve_fds}): it is not open; --preserve-fds counts from 3"
        );
    }
    Ok(())
}

/// Counts those of `--preserve-fds` alone.
///
/// # Errors
/// As [`count`].
pub fn preserve(found: u32, preserve_fds: u32, options: &mut LaunchOptions) -> Result<()> {
    count_for(0, (None, None), found, preserve_fds, options)
}

/// Where a service manager wants to hear that the service is ready (sd_notify(3)).
pub fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// sd_listen_fds(3): the sockets are for the process that `LISTEN_PID` names.
fn listen_fds(own_pid: u32, (pid, fds): (Option<&str>, Option<&str>)) -> u32 {
    let number = |value: Option<&str>| value.and_then(|value| value.parse::<u32>().ok());
    match (number(pid), number(fds)) {
        (Some(pid), Some(count)) if pid == own_pid => count.min(1024),
        _ => 0,
    }
}
