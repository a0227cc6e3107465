//! Which system calls are failed, with what, and which of them are excused.

use std::collections::{HashMap, HashSet};

use libseccomp::ScmpSyscall;
use rustix::io::Errno;

/// One call of a command: the `when`-th `call` of one of its processes.
#[derive(Debug, Clone)]
pub struct Place {
    pub role: String,
    /// Who has that role.
    pub process: &'static str,
    pub call: u32,
    pub when: u32,
    argument: u64,
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
        write!(f, "{} #{} of {}", self.name(), self.when, self.process)
    }
}

/// The first thing that rtx itself does.
const FIRST: &str = "close_range";

/// What the report of an undisturbed command tells of: every call that those in `roles` made.
pub fn places(report: &str, roles: &[(&str, &'static str)]) -> Vec<Place> {
    let mut seen: HashMap<(&str, u32), u32> = HashMap::new();
    let mut starting = HashSet::from(["0"]);
    let mut places = Vec::new();
    for line in report.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["exec", role] = words[..] {
            starting.insert(role);
        }
        let [role, call, argument] = words[..] else { continue };
        let (Ok(call), Ok(argument)) = (call.parse(), argument.parse()) else { continue };
        let when = seen.entry((role, call)).or_default();
        *when += 1;
        let process = roles.iter().find(|(path, _)| *path == role).map_or("", |(_, process)| process);
        let mut place = Place { role: role.to_owned(), process, call, when: *when, argument, is_startup: false };
        if place.name() == FIRST {
            starting.remove(role);
        }
        place.is_startup = starting.contains(role);
        if !process.is_empty() {
            places.push(place);
        }
    }
    places
}

/// The same of all processes together, as if one had made every call.
pub fn places_of_all(report: &str) -> Vec<Place> {
    let calls = report.lines().filter_map(|line| line.split_once(' ').filter(|(role, _)| role.starts_with('0')));
    let together: String = calls.map(|(_, call)| format!("* {call}\n")).collect();
    places(&together, &[("*", "any process")])
}

/// Errors of fcntl(2), by its command.
fn of_fcntl(command: u64) -> &'static [Errno] {
    const F_ADD_SEALS: i32 = 1033;
    match command as i32 {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => &[Errno::MFILE],
        F_ADD_SEALS => &[Errno::PERM, Errno::NOMEM],
        // The others fail only of arguments that are wrong.
        _ => &[],
    }
}

/// The errors that a call is failed with: those of EPERM, ENOMEM, ENOSPC, EMFILE, EIO, EINTR and ENOSYS that its manual page
/// names or that a file system, a filter or an older kernel may answer with; none for one that cannot fail.
pub fn errors(place: &Place) -> &'static [Errno] {
    const MEMORY: &[Errno] = &[Errno::NOMEM];
    const INPUT: &[Errno] = &[Errno::IO, Errno::INTR, Errno::NOMEM];
    const OUTPUT: &[Errno] = &[Errno::IO, Errno::INTR, Errno::NOSPC, Errno::PERM, Errno::NOMEM];
    const OPEN: &[Errno] = &[Errno::PERM, Errno::MFILE, Errno::NOMEM, Errno::INTR, Errno::IO, Errno::NOSPC];
    const ENTRY: &[Errno] = &[Errno::PERM, Errno::NOSPC, Errno::IO, Errno::NOMEM];
    const WAIT: &[Errno] = &[Errno::INTR, Errno::NOMEM];
    const NEW: &[Errno] = &[Errno::NOSYS, Errno::PERM, Errno::NOMEM, Errno::MFILE, Errno::INTR];
    // A namespace or a mount too many is ENOSPC.
    const MADE: &[Errno] = &[Errno::NOSYS, Errno::PERM, Errno::NOMEM, Errno::NOSPC, Errno::MFILE, Errno::IO];
    // The kernel may have been built without.
    const OPTIONAL: &[Errno] = &[Errno::NOSYS, Errno::PERM, Errno::NOMEM];
    const OTHER: &[Errno] = &[Errno::PERM, Errno::NOMEM, Errno::IO];
    match place.name().as_str() {
        "fcntl" => of_fcntl(place.argument),
        // They end the process, or are documented to succeed always.
        "exit" | "exit_group" | "rt_sigreturn" | "getpid" | "gettid" | "getppid" | "getuid" | "geteuid" | "getgid"
        | "getegid" | "umask" | "set_tid_address" | "sched_yield" | "rseq" | "arch_prctl" | "set_robust_list" => &[],
        // Only of arguments that are wrong.
        "rt_sigaction" | "rt_sigprocmask" | "sigaltstack" | "lseek" | "getsockname" => &[],
        "brk" | "mmap" | "munmap" | "mremap" | "mprotect" | "madvise" => MEMORY,
        "read" | "pread64" | "readv" | "getdents64" | "fstat" | "newfstatat" | "stat" | "lstat" | "readlink"
        | "readlinkat" | "close" => INPUT,
        // Only where there is none, or a filter forbids it.
        "getrandom" => &[Errno::NOSYS, Errno::PERM, Errno::INTR],
        "write" | "pwrite64" | "writev" | "ftruncate" => OUTPUT,
        "open" | "openat" | "socket" | "socketpair" | "pipe2" | "dup" | "dup2" | "dup3" | "memfd_create"
        | "signalfd4" | "accept4" | "inotify_init1" | "inotify_add_watch" | "eventfd2" | "epoll_create1"
        | "timerfd_create" => OPEN,
        "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "symlink" | "symlinkat" | "mknod" | "mknodat"
        | "link" | "linkat" | "unlink" | "unlinkat" | "rmdir" | "bind" => ENTRY,
        "poll" | "ppoll" | "recvmsg" | "recvfrom" | "sendmsg" | "sendto" | "connect" | "wait4" | "waitid" | "flock"
        | "futex" | "nanosleep" | "clock_nanosleep" | "epoll_wait" | "epoll_pwait" => WAIT,
        "clone" | "clone3" | "fork" | "vfork" | "unshare" | "setns" | "mount" | "open_tree" | "open_tree_attr"
        | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "mount_setattr" | "pivot_root" => MADE,
        "openat2" | "close_range" | "execveat" | "pidfd_open" | "pidfd_send_signal" | "pidfd_getfd" | "statx"
        | "faccessat2" => NEW,
        "keyctl" | "add_key" | "request_key" | "bpf" | "seccomp" | "statmount" | "listmount" | "ioprio_set"
        | "sched_setattr" | "sched_setaffinity" | "personality" | "copy_file_range" | "sendfile" => OPTIONAL,
        _ => OTHER,
    }
}

/// What has gone wrong once, and is in every sample.
pub fn is_known(place: &Place, errno: Option<Errno>, is_exec: bool) -> bool {
    match (place.name().as_str(), errno) {
        ("flock" | "setsid" | "accept4", Some(_)) => true,
        ("sendmsg" | "recvmsg" | "fstat" | "newfstatat", Some(errno)) => errno == Errno::NOMEM,
        ("openat", Some(errno)) => errno == Errno::MFILE,
        // The capabilities, which every command drops alike.
        ("prctl", Some(errno)) => is_exec && errno == Errno::PERM,
        _ => false,
    }
}

/// Why what succeeded may differ from what an undisturbed command does: the part of what the probe sees that may, or
/// `output` for what it printed.
pub fn difference(place: &Place, errno: Option<Errno>) -> Option<&'static str> {
    match (place.name().as_str(), errno) {
        // Where no device may be made, the host's is bound in its place.
        ("mknodat", Some(Errno::PERM)) => Some("mounts"),
        // No pipe answers so, and for a terminal it is the end.
        ("read", Some(Errno::IO)) if place.process == "smaster" => Some("output"),
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
