//! clock_gettime(2) of the binary where it is linked with musl. Its own looks for the kernel's function that needs no system
//! call, and reading what that function is found by is three page faults; and most commands look at the clock once.
#![allow(unsafe_code)]

use std::ffi::c_int;

#[cfg(not(target_env = "musl"))]
use libc::clock_gettime as by_the_library;

#[cfg(target_env = "musl")]
unsafe extern "C" {
    #[link_name = "__clock_gettime"]
    fn by_the_library(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int;
}

/// # Safety
/// As clock_gettime(2): `time` can be written to.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: what the caller says.
    match unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } {
        0 => 0,
        // A filter may forbid the call, which hardly any program makes.
        // SAFETY: as above.
        _ => unsafe { by_the_library(clock, time) },
    }
}

#[cfg(test)]
mod tests {
    use super::clock_gettime;

    #[test]
    fn a_clock_goes_on_and_what_is_none_is_refused() {
        let read = |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: it is alive.
            (unsafe { clock_gettime(clock, &raw mut time) }, (time.tv_sec, time.tv_nsec))
        };
        let (before, after) = (read(libc::CLOCK_MONOTONIC), read(libc::CLOCK_MONOTONIC));
        assert_eq!((before.0, after.0), (0, 0));
        assert!((0, 0) < before.1 && before.1 <= after.1);
        assert_eq!(read(-1).0, -1);
    }
}
