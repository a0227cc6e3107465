//! pthread_create(3) of the binary, which the linker calls in its place (contrib/build/rustc-static): the allocator has to know
//! of the first thread beside the main one, whoever makes it.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

unsafe extern "C" {
    fn __real_pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut c_void,
    ) -> c_int;
}

/// # Safety
/// As pthread_create(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    rtx::sys::heap::is_shared();
    // SAFETY: what the caller says.
    unsafe { __real_pthread_create(thread, attributes, start, argument) }
}
