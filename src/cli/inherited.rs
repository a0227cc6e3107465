//! The descriptors that a caller passes on: sockets of LISTEN_FDS first, those of `--preserve-fds` after them.

use crate::engine::LaunchOptions;
use crate::sys::fd;
use anyhow::{Result, bail};

/// Counts what is inherited. Has to be called before this process opens anything of its own: its descriptors would take
/// the numbers of those that are missing.
///
/// # Errors
/// Where a descriptor that is to be preserved is not open.
pub fn count(preserve_fds: u32, options: &mut LaunchOptions) -> Result<()> {
    let listen_fds = listen_fds();
    // podman names the same sockets twice, in LISTEN_FDS and by --preserve-fds: what is missing at the end of the second
    // list is then no mistake.
    let mut found = 0;
    for number in 3 + listen_fds..3 + listen_fds + preserve_fds {
        if fd::is_open(number as i32) {
            found += 1;
        } else if listen_fds == 0 {
            bail!("unable to stat preserved-fd {number} (of {preserve_fds}): it is not open; --preserve-fds counts from 3");
        } else {
            break;
        }
    }
    options.listen_fds = listen_fds;
    options.preserve_fds = found;
    Ok(())
}

/// sd_listen_fds(3): the sockets are for the process that `LISTEN_PID` names.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count.min(1024),
        _ => 0,
    }
}
