//! Room on the stack, whatever the caller's limit is (`ulimit -s`).

/// What the deepest command needs, with room to spare: building the definition of the command line takes most of it.
const ENOUGH: u64 = 1 << 20;
/// What a process has without such a limit. Only what is used of it takes memory.
const SIZE: usize = 8 << 20;

/// Runs a function on a stack that is large enough: this one, unless the limit is lower than that. The limit itself is the
/// payload's to inherit and stays as it is; a thread would have a stack as well, but the parent death signal, blocked
/// signals and namespaces would be that thread's alone.
pub fn with_room(function: extern "C" fn() -> i32) -> i32 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is alive; the call writes it whole.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } == 0;
    if !known || limit.rlim_cur >= ENOUGH { function() } else { on_own_stack(function) }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn on_own_stack(function: extern "C" fn() -> i32) -> i32 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return function();
    }
    // What runs over the end has to fault, as it would on the kernel's stack.
    // SAFETY: the page is the mapping's own lowest, and nothing is in it.
    unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) };
    let top = base as usize + SIZE;
    call_on(top, function)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn on_own_stack(function: extern "C" fn() -> i32) -> i32 {
    function()
}

#[cfg(target_arch = "x86_64")]
fn call_on(top: usize, function: extern "C" fn() -> i32) -> i32 {
    let result: i32;
    // SAFETY: `top` is the page-aligned end of a mapping that is never removed; the old stack pointer waits in a register
    // that the callee preserves, and everything else is declared as clobbered. Nothing unwinds through here: rtx aborts
    // on a panic.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {function}",
            "mov rsp, r12",
            top = in(reg) top,
            function = in(reg) function,
            out("r12") _,
            lateout("eax") result,
            clobber_abi("C"),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn call_on(top: usize, function: extern "C" fn() -> i32) -> i32 {
    let result: i32;
    // SAFETY: as for the other architecture.
    unsafe {
        std::arch::asm!(
            "mov x20, sp",
            "mov sp, {top}",
            "blr {function}",
            "mov sp, x20",
            top = in(reg) top,
            function = in(reg) function,
            out("x20") _,
            lateout("w0") result,
            clobber_abi("C"),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_runs_on_the_other_stack_and_comes_back() {
        extern "C" fn deep() -> i32 {
            let room = std::hint::black_box([1u8; 2 << 20]);
            room.iter().map(|byte| i32::from(*byte)).sum()
        }
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(|| on_own_stack(deep)).unwrap();
        assert_eq!(thread.join().unwrap(), 2 << 20);
    }
}
