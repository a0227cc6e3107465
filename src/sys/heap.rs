//! The allocator of the binary: dlmalloc, on pages that the kernel maps before they are touched. A command ends soon and uses
//! what it gets, and each page fault costs more than the page. Only a container's init, which stays, takes page by page.

use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

static STAYS: AtomicBool = AtomicBool::new(false);

/// From here on memory is taken as it is touched.
pub fn is_to_stay() {
    STAYS.store(true, Ordering::Relaxed);
}

/// Whether there may be a thread beside the main one.
static SHARED: AtomicBool = AtomicBool::new(true);

/// For a program of one thread, which calls [`is_shared`] before it makes another.
pub fn is_alone() {
    SHARED.store(false, Ordering::Relaxed);
}

/// From here on whoever allocates takes a lock.
pub fn is_shared() {
    SHARED.store(true, Ordering::Relaxed);
}

/// Address space that is given back when there is no other.
static RESERVE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());
/// What a command needs at most from when it begins to make something until that is complete, or undone.
const RESERVED: usize = 1 << 20;

/// Sees to it that this process will not be ended for want of memory while it makes what it would leave behind. Nothing is
/// touched: it is room under RLIMIT_AS.
///
/// # Errors
/// `ENOMEM` where there is not as much now.
pub fn reserve() -> nix::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let base = unsafe { libc::mmap(null_mut(), RESERVED, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(nix::errno::Errno::last());
    }
    give_back(RESERVE.swap(base, Ordering::Relaxed));
    Ok(())
}

/// Whether there was anything to give back.
fn give_back(reserve: *mut libc::c_void) -> bool {
    // SAFETY: a mapping of `reserve`, which nobody uses.
    !reserve.is_null() && unsafe { libc::munmap(reserve, RESERVED) == 0 }
}

/// The kernel's, for dlmalloc.
struct Pages;

/// What dlmalloc takes at a time; what is larger is one large block, which may never be used whole.
const PORTION: usize = 64 * 1024;

// SAFETY: what `alloc` returns is a new mapping of that size, which nobody else has; the others change only such mappings.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let at_once = size <= PORTION && !STAYS.load(Ordering::Relaxed);
        let populate = if at_once { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let map = || unsafe { libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        let mut base = map();
        if base == libc::MAP_FAILED && give_back(RESERVE.swap(null_mut(), Ordering::Relaxed)) {
            base = map();
        }
        if base == libc::MAP_FAILED { (null_mut(), 0, 0) } else { (base.cast(), size, 0) }
    }

    fn remap(&self, base: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        let flags = if can_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: dlmalloc passes a mapping of `alloc` and uses only what is returned from here on.
        let base = unsafe { libc::mremap(base.cast(), old, new, flags) };
        if base == libc::MAP_FAILED { null_mut() } else { base.cast() }
    }

    fn free_part(&self, base: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the end of a mapping of `alloc`, in which dlmalloc has nothing any more.
        unsafe { libc::munmap(base.add(new).cast(), old - new) == 0 }
    }

    fn free(&self, base: *mut u8, size: usize) -> bool {
        // SAFETY: a mapping of `alloc`, in which dlmalloc has nothing any more.
        unsafe { libc::munmap(base.cast(), size) == 0 }
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// To be the `#[global_allocator]`.
pub struct Heap {
    blocks: UnsafeCell<Dlmalloc<Pages>>,
    lock: Mutex<()>,
}

impl Heap {
    #[allow(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { blocks: UnsafeCell::new(Dlmalloc::new_with_allocator(Pages)), lock: Mutex::new(()) }
    }

    /// A lock that nobody else can want is not taken: with it an allocation takes twice as long.
    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc<Pages>) -> T) -> T {
        let is_shared = SHARED.load(Ordering::Relaxed);
        let _guard = is_shared.then(|| self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: this thread has the lock, or is the only one until it returns from here. Nothing in `work` allocates.
        work(unsafe { &mut *self.blocks.get() })
    }
}

// Never inline: copies of it at every place that allocates would add half a megabyte to the binary, and more than one to what a
// command maps of it.
// SAFETY: dlmalloc has the contract of this trait, and is used by one thread at a time.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.malloc(layout.size(), layout.align()) })
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.free(block, layout.size(), layout.align()) })
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.calloc(layout.size(), layout.align()) })
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.realloc(block, layout.size(), layout.align(), size) })
    }
}

// SAFETY: `blocks` is used by one thread at a time, as `with` sees to.
unsafe impl Sync for Heap {}
