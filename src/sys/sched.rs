//! Scheduling and memory placement of this process: sched_setattr(2), sched_setaffinity(2), set_mempolicy(2).

use super::check;

/// `struct sched_attr`. Kernels that know less of it take the rest as long as that is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedulerAttributes {
    /// Filled in by the call.
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2) for this thread.
///
/// # Errors
/// `EPERM` without the privilege, or in a cgroup that has no realtime to give; `EINVAL` for values that contradict each
/// other; `EBUSY` where the processors have no time left for a deadline.
pub fn set_scheduler(attributes: SchedulerAttributes) -> nix::Result<()> {
    let attributes = SchedulerAttributes { size: size_of::<SchedulerAttributes>() as u32, ..attributes };
    // SAFETY: the structure is alive and its first field says how long it is.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// sched_setaffinity(2) for this thread. Bit n of word n/64 is processor n.
///
/// # Errors
/// `EINVAL` where the cpuset leaves none of these processors.
pub fn set_affinity(mask: &[u64]) -> nix::Result<()> {
    // SAFETY: pointer and length describe one live slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// More processors than any kernel has; the kernel leaves out those that are not there or not in the cpuset.
pub const EVERY_PROCESSOR: [u64; 128] = [u64::MAX; 128];

/// sched_getaffinity(2) of this thread.
///
/// # Errors
/// `EINVAL` where the machine has more processors than the mask has bits.
pub fn affinity() -> nix::Result<Vec<u64>> {
    let mut mask = vec![0u64; 128];
    // SAFETY: the kernel writes at most the length given.
    let length = check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(mask.as_slice()), mask.as_mut_ptr())
    })?;
    mask.truncate((length as usize).div_ceil(size_of::<u64>()));
    Ok(mask)
}

/// set_mempolicy(2): mode and flags in one number, and a mask of nodes.
///
/// # Errors
/// `EINVAL` for a node that is not there or not allowed, and for a flag that does not go with the mode.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> nix::Result<()> {
    // The kernel takes one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * u64::BITS as usize + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has as many bits as are given, or is null for none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
