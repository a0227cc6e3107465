//! flock(2) of a state directory: waiting for it, and who has it.

use crate::sys::errno_of;
use std::fs::File;

/// # Errors
/// The kernel's.
pub(super) fn wait_for_lock(file: &File) -> nix::Result<()> {
    crate::sys::retry(|| file.lock().map_err(|error| errno_of(&error)))
}

/// The process that holds the lock of the directory with this inode (/proc/locks, proc_locks(5)).
pub(super) fn lock_holder(inode: u64) -> Option<i32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { return None };
        let is_it = file.rsplit(':').next().is_some_and(|number| number.parse() == Ok(inode));
        if is_it { pid.parse().ok() } else { None }
    })
}
