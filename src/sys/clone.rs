//! Starting stage2: one clone3(2) with every namespace flag, straight into execveat(2).
//!
//! The child shares the parent's memory until it executes (`CLONE_VM`), which spares the copy of the page tables, and
//! runs on a stack of its own, so that the parent can go on meanwhile. Between clone and exec it makes bare system
//! calls only: no allocator, no lock, no errno, which is the parent's.

use super::{Errno, fd::own};
use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VM: u64 = 0x100;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const STACK: usize = 64 * 1024;

/// `struct clone_args` of clone3(2).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the child is to execute and what it keeps.
pub struct Command<'a> {
    /// The executable, open.
    pub executable: BorrowedFd<'a>,
    pub arguments: Vec<CString>,
    /// Descriptors that survive the exec under their own number, beside those that are not close-on-exec anyway.
    pub keep: Vec<RawFd>,
    /// `CLONE_NEW*`.
    pub namespaces: u64,
    /// Directory of the cgroup (v2) to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Makes every permitted capability ambient, so that it outlives the exec in a user namespace whose ids are not
    /// mapped yet.
    pub ambient: bool,
}

/// The memory that a child uses until it executes. Whoever holds it has to keep it until then.
pub struct Arena {
    executable: RawFd,
    arguments: Vec<*const c_char>,
    _strings: Vec<CString>,
    keep: Vec<RawFd>,
    ambient: bool,
    failure: AtomicI32,
    stack: Vec<u128>,
}

impl Arena {
    /// Why the child could not execute, if it could not.
    pub fn failure(&self) -> Option<Errno> {
        match self.failure.load(Ordering::Acquire) {
            0 => None,
            number => Some(Errno::from_raw(number)),
        }
    }
}

/// A child that has been cloned and is about to execute.
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub arena: Box<Arena>,
}

/// Clones and executes. A failure of the exec shows as the child's exit status 127 and in [`Arena::failure`].
///
/// # Errors
/// clone3's: `EPERM` where the caller may not make these namespaces, `ENOSPC` or `EUSERS` at a limit of namespaces,
/// `EAGAIN` at a limit of processes.
pub fn spawn(command: Command<'_>) -> nix::Result<Child> {
    let mut arguments: Vec<_> = command.arguments.iter().map(|argument| argument.as_ptr()).collect();
    arguments.push(ptr::null());
    let mut arena = Box::new(Arena {
        executable: command.executable.as_raw_fd(),
        arguments,
        _strings: command.arguments,
        keep: command.keep,
        ambient: command.ambient,
        failure: AtomicI32::new(0),
        stack: vec![0; STACK / size_of::<u128>()],
    });
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND | command.namespaces,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = command.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if cfg!(target_arch = "x86_64") {
        args.flags |= CLONE_VM;
        args.stack = arena.stack.as_mut_ptr() as u64;
        args.stack_size = STACK as u64;
    }
    // SAFETY: `args` is a valid clone_args; the arena, which holds the child's stack and everything it reads, lives on
    // the heap at a fixed address and is handed to the caller, who keeps it until the exec.
    let pid = unsafe { clone_into(&args, &raw const *arena) }?;
    Ok(Child { pid, pidfd: own(libc::c_long::from(pidfd))?, arena })
}

/// Forks this process as a sibling of itself, into new namespaces: its parent becomes the child's parent as well.
/// Returns the child's pid in the parent, and `None` in the child. For a single-threaded process.
///
/// # Errors
/// As [`spawn`].
pub fn fork_sibling(namespaces: u64) -> nix::Result<Option<i32>> {
    let args = CloneArgs { flags: CLONE_PARENT | namespaces, ..CloneArgs::default() };
    // SAFETY: without CLONE_VM the child has a copy of this process's memory; the process has one thread, so no lock
    // can be held by another.
    let pid = super::check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    Ok((pid != 0).then_some(pid as i32))
}

/// A process that does nothing but be in namespaces of its own. Dropping it ends it.
pub struct Holder {
    pub pid: i32,
    /// The process lives until this end is closed, by whatever becomes of its parent.
    life: Option<OwnedFd>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.life = None;
        let _ = super::retry(|| nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid), None));
    }
}

/// Makes namespaces that nobody else is in, for as long as the [`Holder`] lives; a descriptor keeps them longer.
///
/// # Errors
/// As [`spawn`].
pub fn hold_namespaces(namespaces: u64) -> nix::Result<Holder> {
    let (watched, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let args = CloneArgs {
        flags: namespaces | CLONE_CLEAR_SIGHAND,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has a copy of this process's memory, and makes bare system calls only.
    match super::check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })? {
        0 => wait_for_end(watched.as_raw_fd(), life.as_raw_fd()),
        pid => Ok(Holder { pid: pid as i32, life: Some(life) }),
    }
}

/// The child of [`hold_namespaces`]: its own copy of the other end must not keep it alive.
fn wait_for_end(watched: RawFd, life: RawFd) -> ! {
    call(libc::SYS_close, [life as usize, 0, 0, 0, 0]);
    let mut byte = 0u8;
    while call(libc::SYS_read, [watched as usize, (&raw mut byte) as usize, 1, 0, 0]) == -(libc::EINTR as isize) {}
    loop {
        call(libc::SYS_exit_group, [0; 5]);
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone_into(args: &CloneArgs, arena: *const Arena) -> nix::Result<i32> {
    let result: i64;
    // SAFETY: by the caller's contract. The child continues on the stack in `args`, whose top is 16-byte aligned, and
    // never comes back from `child`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") arena,
            in("r13") child as extern "C" fn(*const Arena) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result as i32) }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_into(args: &CloneArgs, arena: *const Arena) -> nix::Result<i32> {
    // SAFETY: without CLONE_VM this is a fork; the child goes straight to `child`.
    match super::check(unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(args), size_of::<CloneArgs>()) })? {
        0 => child(arena),
        pid => Ok(pid as i32),
    }
}

/// The child between clone and exec.
extern "C" fn child(arena: *const Arena) -> ! {
    // SAFETY: the parent keeps the arena alive until this process has executed or died.
    let arena = unsafe { &*arena };
    for &fd in &arena.keep {
        call(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0, 0]);
    }
    if arena.ambient {
        raise_ambient();
    }
    let environment: [*const c_char; 1] = [ptr::null()];
    let result = call(
        libc::SYS_execveat,
        [
            arena.executable as usize,
            c"".as_ptr() as usize,
            arena.arguments.as_ptr() as usize,
            environment.as_ptr() as usize,
            libc::AT_EMPTY_PATH as usize,
        ],
    );
    arena.failure.store(-result as i32, Ordering::Release);
    call(libc::SYS_exit_group, [127, 0, 0, 0, 0]);
    loop {
        std::hint::spin_loop();
    }
}

fn raise_ambient() {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [0u32; 6];
    call(libc::SYS_capget, [header.as_ptr() as usize, data.as_mut_ptr() as usize, 0, 0, 0]);
    // The inheritable set becomes what is permitted: only then may a capability be ambient.
    (data[2], data[5]) = (data[1], data[4]);
    call(libc::SYS_capset, [header.as_ptr() as usize, data.as_ptr() as usize, 0, 0, 0]);
    for number in 0..64 {
        call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize, number, 0, 0]);
    }
}

/// A bare system call: the result as the kernel returns it, errno untouched.
#[cfg(target_arch = "x86_64")]
fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the arguments are integers or point at memory that outlives the call; each call above is written for
    // its own signature.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: as above; the child has its own memory here, so its errno is its own.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => -(Errno::last_raw() as isize),
        result => result as isize,
    }
}
