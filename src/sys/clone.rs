//! Starting stage2: one clone3(2) with every namespace flag, straight into execveat(2); clone(2) where there is no clone3.
//!
//! The child shares the parent's memory until it executes (`CLONE_VM`), which spares the copy of the page tables, and
//! runs on a stack of its own, so that the parent can go on meanwhile. Between clone and exec it makes bare system
//! calls only: no allocator, no lock, no errno, which is the parent's.

use super::{Errno, check, fd::own, process};
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VM: u64 = 0x100;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const STACK: usize = 16 * 1024;

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
    /// A descriptor, and the number that it has after the exec, which the executable must not have.
    pub socket: (BorrowedFd<'a>, RawFd),
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
    socket: (RawFd, RawFd),
    ambient: bool,
    failure: AtomicI32,
    /// Of which the child touches little: what is not touched is not there.
    stack: Box<[MaybeUninit<u128>]>,
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
        socket: (command.socket.0.as_raw_fd(), command.socket.1),
        ambient: command.ambient,
        failure: AtomicI32::new(0),
        stack: Box::new_uninit_slice(STACK / size_of::<u128>()),
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
    let pid = match unsafe { clone_into(Call::New(&args), &raw const *arena) } {
        Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::E2BIG)) => {
            let clone = || clone_classic(&args, &mut pidfd, &raw const *arena);
            without_clone3(errno, clone, command.cgroup)?
        }
        result => result?,
    };
    let pidfd = if pidfd >= 0 { own(libc::c_long::from(pidfd)) } else { process::pidfd_open(pid) };
    if pidfd.is_err() {
        end(pid);
    }
    Ok(Child { pid, pidfd: pidfd?, arena })
}

/// clone3(2) came with Linux 5.3, its flags later, and what old seccomp profiles answer is EPERM, which may be meant so:
/// clone(2) tells. It puts nobody into a cgroup, so that is done before the child is told anything.
fn without_clone3(
    errno: Errno,
    clone: impl FnOnce() -> nix::Result<i32>,
    cgroup: Option<BorrowedFd>,
) -> nix::Result<i32> {
    // A handler of this process would run in the child, in this process's memory. The child unblocks all signals before it
    // becomes the payload.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let result = clone();
    before.thread_set_mask()?;
    // Without an answer of its own, the first one counts.
    let pid = result.map_err(|later| if errno == Errno::ENOSYS { later } else { errno })?;
    if let Some(cgroup) = cgroup
        && let Err(errno) = enter_cgroup(cgroup, pid)
    {
        end(pid);
        return Err(errno);
    }
    Ok(pid)
}

/// Kills a child, and waits for its end: until then it runs on this process's memory.
fn end(pid: i32) {
    // SAFETY: the call takes only integers; the child has not been waited for, so its pid is its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let _ = process::wait(pid);
}

fn enter_cgroup(cgroup: BorrowedFd, pid: i32) -> nix::Result<()> {
    let file = openat(cgroup, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, pid.to_string().as_bytes()).map(drop)
}

fn clone_classic(args: &CloneArgs, pidfd: &mut RawFd, arena: *const Arena) -> nix::Result<i32> {
    // Before Linux 5.2 CLONE_PIDFD is no flag, and ignored.
    let flags = args.flags & !(CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP) | args.exit_signal;
    let stack = if args.stack == 0 { 0 } else { args.stack + args.stack_size };
    // SAFETY: as for clone3: the stack is the arena's, and the pidfd is written where the caller reads it.
    unsafe { clone_into(Call::Classic { flags, stack, pidfd: ptr::from_mut(pidfd) as u64 }, arena) }
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
    let pid = match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) }) {
        // SAFETY: as above; without a stack the child has a copy of this one.
        Err(Errno::ENOSYS | Errno::EPERM) => check(unsafe { libc::syscall(libc::SYS_clone, args.flags, 0, 0, 0, 0) })?,
        other => other?,
    };
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
        let _ = process::wait(self.pid);
    }
}

/// Makes namespaces that nobody else is in, for as long as the [`Holder`] lives; a descriptor keeps them longer.
///
/// The process has a copy of root's memory and files, and in a user namespace of its own it is open to root's processes
/// without capabilities; but what is not dumpable when it is copied asks for those of the namespace of the original.
///
/// # Errors
/// As [`spawn`].
pub fn hold_namespaces(namespaces: u64) -> nix::Result<Holder> {
    let (watched, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let _closed = match nix::unistd::geteuid().is_root() {
        true => Some(process::Undumpable::new()?),
        false => None,
    };
    let args = CloneArgs {
        flags: namespaces | CLONE_CLEAR_SIGHAND,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has a copy of this process's memory, and makes bare system calls only.
    let pid = match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) }) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let flags = namespaces | args.exit_signal;
            // SAFETY: as above; without a stack the child has a copy of this one.
            check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?
        }
        other => other?,
    };
    match pid {
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

/// Which of the two calls, with its arguments.
#[derive(Clone, Copy)]
enum Call<'a> {
    New(&'a CloneArgs),
    Classic { flags: u64, stack: u64, pidfd: u64 },
}

impl Call<'_> {
    fn number(self) -> i64 {
        match self {
            Self::New(_) => libc::SYS_clone3,
            Self::Classic { .. } => libc::SYS_clone,
        }
    }

    /// The others are 0, in whatever order an architecture has them.
    fn arguments(self) -> [u64; 3] {
        match self {
            Self::New(args) => [ptr::from_ref(args) as u64, size_of::<CloneArgs>() as u64, 0],
            Self::Classic { flags, stack, pidfd } => [flags, stack, pidfd],
        }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone_into(call: Call, arena: *const Arena) -> nix::Result<i32> {
    let [first, second, third] = call.arguments();
    let result: i64;
    // SAFETY: by the caller's contract. The child continues on the stack in the arguments, whose top is 16-byte aligned,
    // and never comes back from `child`.
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
            inlateout("rax") call.number() => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") 0,
            in("r8") 0,
            in("r12") arena,
            in("r13") child as extern "C" fn(*const Arena) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result as i32) }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_into(call: Call, arena: *const Arena) -> nix::Result<i32> {
    let [first, second, third] = call.arguments();
    // SAFETY: without CLONE_VM this is a fork; the child goes straight to `child`.
    match check(unsafe { libc::syscall(call.number(), first, second, third, 0, 0) })? {
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
    let (socket, number) = arena.socket;
    match socket == number {
        true => call(libc::SYS_fcntl, [socket as usize, libc::F_SETFD as usize, 0, 0, 0]),
        false => call(libc::SYS_dup3, [socket as usize, number as usize, 0, 0, 0]),
    };
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
