//! Where the binary begins. Not in Rust's own `main`: what that prepares for threads and for a stack that overflows costs each
//! process twenty system calls, reading /proc/self/maps among them, and every container starts two.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

static ARGUMENTS: Mutex<Vec<OsString>> = Mutex::new(Vec::new());

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, values: *const *const c_char) -> c_int {
    // SAFETY: the C library calls `main` with `count` strings that live as long as the process.
    let value = |index: usize| OsStr::from_bytes(unsafe { CStr::from_ptr(*values.add(index)) }.to_bytes());
    let is = |role: &str| count > 1 && value(1) == role;
    #[cfg(tells_of_threads)]
    rtx::sys::heap::is_alone();
    // Before anything is allocated.
    if is("init") || is("smaster") {
        rtx::sys::heap::is_to_stay();
    }
    *arguments() = (0..count as usize).map(|index| value(index).to_owned()).collect();
    // For an init its parent, which is rtx, has seen to that.
    if !is("init") {
        open_standard_streams();
        // SAFETY: an ignored signal runs no code. A broken pipe is an error like others; programs that rtx starts get the
        // default.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        rtx::sys::process::learn_of_ends();
    }
    // What is printed goes out at once: std's way to end, which flushes the standard output, is not needed.
    rtx::sys::stack::with_room(run)
}

/// What musl calls before `main` and at the end in place of its own, which do nothing either, and lie behind everything else: the
/// linker is told so by contrib/build/rustc-static.
#[cfg(target_env = "musl")]
mod nothing {
    #[unsafe(no_mangle)]
    extern "C" fn __wrap__init() {}

    #[unsafe(no_mangle)]
    extern "C" fn __wrap__fini() {}
}

extern "C" fn run() -> i32 {
    let arguments = std::mem::take(&mut *arguments());
    crate::run(arguments)
}

fn arguments() -> MutexGuard<'static, Vec<OsString>> {
    ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the caller has closed a standard stream, the next file that is opened would become it.
fn open_standard_streams() {
    let closed = libc::pollfd { fd: 0, events: 0, revents: 0 };
    let mut streams = [closed, libc::pollfd { fd: 1, ..closed }, libc::pollfd { fd: 2, ..closed }];
    // SAFETY: the array is alive and its length is given.
    let known = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) } >= 0;
    for stream in streams {
        // SAFETY: F_GETFD only asks whether the number is open.
        let is_open = || unsafe { libc::fcntl(stream.fd, libc::F_GETFD) >= 0 };
        let is_closed = if known { stream.revents & libc::POLLNVAL != 0 } else { !is_open() };
        // SAFETY: the path is NUL-terminated. The descriptor is the stream's for as long as the process lives.
        if is_closed && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
            std::process::abort();
        }
    }
}
