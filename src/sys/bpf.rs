//! bpf(2), as far as cgroup v2 device rules need it: load a BPF_PROG_TYPE_CGROUP_DEVICE program and attach it.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// One instruction, `struct bpf_insn`: operation, destination register (low half) and source register, offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is used here; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The same for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
}

/// The same for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The same for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct FdById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Attaches a device program to a cgroup v2 directory, in place of those attached to that directory before; programs of
/// the directories above go on being asked too. Needs CAP_BPF or CAP_SYS_ADMIN in the initial user namespace (EPERM).
pub fn attach_device_program(cgroup: BorrowedFd, program: &[Instruction]) -> Result<(), Errno> {
    let before = attached(cgroup)?;
    let program = load(program)?;
    let mut attr = attach_attr(cgroup, program.as_fd());
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    bpf(BPF_PROG_ATTACH, &mut attr)?;
    // The old ones go last, so that at no moment everything is allowed.
    for id in before {
        let mut by_id = FdById { prog_id: id, next_id: 0, open_flags: 0 };
        match bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id) {
            Ok(fd) => {
                // SAFETY: the kernel has just returned this descriptor to us, and nobody else owns it.
                let old = unsafe { OwnedFd::from_raw_fd(fd) };
                bpf(BPF_PROG_DETACH, &mut attach_attr(cgroup, old.as_fd()))?;
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn attach_attr(cgroup: BorrowedFd, program: BorrowedFd) -> Attach {
    Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    }
}

/// The ids of the device programs attached to the directory itself.
fn attached(cgroup: BorrowedFd) -> Result<Vec<u32>, Errno> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    Ok(ids.into_iter().take(query.prog_cnt as usize).collect())
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just returned this descriptor to us (close-on-exec), and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `T` is one of the `repr(C)` prefixes of `union bpf_attr` above.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: attr is a live, initialised structure of exactly the size given, and the pointers in it are to memory that
    // its maker's caller keeps borrowed during the call: the program, the licence and the array of ids.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    Errno::result(result).map(|fd| fd as RawFd)
}
