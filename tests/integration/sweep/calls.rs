//! Which system calls are failed, with what, and which of them are excused.

use std::collections::HashMap;

use libseccomp::ScmpSyscall;
use rustix::io::Errno;

/// One call of a command: the `when`-th `call` of its first (0) or second (1) process.
#[derive(Debug, Clone)]
pub struct Place {
    pub role: usize,
    pub call: u32,
    pub when: u32,
    /// Before rtx's own code runs: what libc and the language's runtime do at the start of a program.
    pub is_startup: bool,
}

impl Place {
    pub fn name(&self) -> String {
        ScmpSyscall::from(self.call as i32).get_name().unwrap_or_else(|_| self.call.to_string())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let process = if self.role == 0 { "the command" } else { "stage2" };
        write!(f, "{} #{} of {process}", self.name(), self.when)
    }
}

/// The first thing that rtx itself does.
const FIRST: &str = "close_range";

/// What the report of an undisturbed command tells of: every call that it made.
pub fn places(report: &str) -> Vec<Place> {
    let mut seen: HashMap<(usize, u32), u32> = HashMap::new();
    let mut is_startup = [true; 2];
    let mut places = Vec::new();
    for line in report.lines() {
        let Some((role, call)) = line.split_once(' ') else { continue };
        let (Ok(role), Ok(call)) = (role.parse(), call.parse()) else { continue };
        let when = seen.entry((role, call)).or_default();
        *when += 1;
        let mut place = Place { role, call, when: *when, is_startup: false };
        if let Some(is_startup) = is_startup.get_mut(role) {
            *is_startup &= place.name() != FIRST;
            place.is_startup = *is_startup;
        }
        places.push(place);
    }
    places
}

/// The errors that a call is failed with; none for one that cannot fail.
pub fn errors(name: &str) -> &'static [Errno] {
    const MEMORY: &[Errno] = &[Errno::NOMEM];
    const INPUT: &[Errno] = &[Errno::IO, Errno::INTR, Errno::NOMEM];
    const OUTPUT: &[Errno] = &[Errno::IO, Errno::INTR, Errno::NOSPC, Errno::PERM];
    const OPEN: &[Errno] = &[Errno::PERM, Errno::MFILE, Errno::NOMEM, Errno::INTR, Errno::IO];
    const ENTRY: &[Errno] = &[Errno::PERM, Errno::NOSPC, Errno::IO, Errno::NOMEM];
    const WAIT: &[Errno] = &[Errno::INTR, Errno::NOMEM];
    const NEW: &[Errno] = &[Errno::NOSYS, Errno::PERM, Errno::NOMEM, Errno::MFILE, Errno::INTR];
    const OTHER: &[Errno] = &[Errno::PERM, Errno::NOMEM, Errno::IO];
    match name {
        // They end the process, or are documented to succeed always.
        "exit" | "exit_group" | "rt_sigreturn" | "getpid" | "gettid" | "getppid" | "getuid" | "geteuid" | "getgid"
        | "getegid" | "umask" | "set_tid_address" | "sched_yield" | "rseq" | "arch_prctl" | "set_robust_list" => &[],
        // Only of arguments that are wrong.
        "munmap" | "rt_sigaction" | "rt_sigprocmask" | "sigaltstack" | "lseek" | "fcntl" | "getsockname" => &[],
        "brk" | "mmap" | "mremap" | "mprotect" | "madvise" => MEMORY,
        "read" | "pread64" | "readv" | "getdents64" | "fstat" | "newfstatat" | "stat" | "lstat" | "readlink"
        | "readlinkat" | "close" => INPUT,
        // Only where there is none, or a filter forbids it.
        "getrandom" => &[Errno::NOSYS, Errno::PERM, Errno::INTR],
        "write" | "pwrite64" | "writev" | "ftruncate" => OUTPUT,
        "open" | "openat" | "socket" | "socketpair" | "dup" | "dup3" | "memfd_create" | "signalfd4" | "accept4" => OPEN,
        "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "symlink" | "symlinkat" | "mknod" | "mknodat"
        | "link" | "linkat" | "unlink" | "unlinkat" | "rmdir" | "bind" => ENTRY,
        "poll" | "ppoll" | "recvmsg" | "recvfrom" | "sendmsg" | "sendto" | "connect" | "wait4" | "waitid" | "flock"
        | "futex" | "nanosleep" | "clock_nanosleep" | "epoll_wait" => WAIT,
        "openat2" | "open_tree" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "mount_setattr" | "clone3"
        | "close_range" | "execveat" | "pidfd_open" | "pidfd_send_signal" | "pidfd_getfd" | "statx" | "faccessat2" => {
            NEW
        }
        _ => OTHER,
    }
}

/// What has gone wrong once, and is in every sample.
pub fn is_known(place: &Place, errno: Option<Errno>, is_exec: bool) -> bool {
    match (place.name().as_str(), errno) {
        ("flock" | "setsid" | "accept4", Some(_)) => true,
        ("sendmsg" | "recvmsg", Some(errno)) => errno == Errno::NOMEM,
        ("openat", Some(errno)) => errno == Errno::MFILE,
        // The capabilities, which every command drops alike.
        ("prctl", Some(errno)) => is_exec && errno == Errno::PERM,
        _ => false,
    }
}

/// Why what succeeded may differ from what an undisturbed command does: the part of what the probe sees that may, or
/// `stopped` for a container that has ended when it is looked at.
pub fn difference(place: &Place, errno: Option<Errno>) -> Option<&'static str> {
    match (place.name().as_str(), errno) {
        // Where no device may be made, the host's is bound in its place.
        ("mknodat", Some(Errno::PERM)) => Some("mounts"),
        // stage2 has been complete for long and waits for a start; `create` has ended.
        ("accept4", _) if place.role == 1 => Some("stopped"),
        _ => None,
    }
}

/// Why a process may end without an error of its own. What the command itself leaves then, `delete --force` has to remove;
/// what stage2 leaves, the command has to.
pub fn excuse(place: &Place, code: i32) -> Option<&'static str> {
    match place.name().as_str() {
        _ if place.is_startup => Some("before its own code runs a program cannot say anything"),
        "brk" | "mmap" | "mremap" if code == 128 + 6 => {
            Some("without memory there is none for an error either: the process aborts, and says so")
        }
        _ => None,
    }
}
