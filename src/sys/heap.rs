//! The allocator of the binary: dlmalloc, on pages that the kernel maps before they are touched, and before it lists of small
//! blocks that are free. A command ends soon and uses what it gets, and each page fault costs more than the page. Only a
//! container's init, which stays, takes page by page. What small blocks were cut from stays theirs.

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

/// Whether there is no thread beside the main one.
static ALONE: AtomicBool = AtomicBool::new(false);

/// For a program of one thread, which calls [`is_shared`] before it makes another.
pub fn is_alone() {
    ALONE.store(true, Ordering::Relaxed);
}

/// From here on whoever allocates takes a lock.
pub fn is_shared() {
    ALONE.store(false, Ordering::Relaxed);
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

/// Blocks of up to this size are not dlmalloc's, one by one: most are small, wanted for a moment, and wanted again.
const SMALL: usize = 512;
/// What the sizes of small blocks are multiples of, and their addresses.
const STEP: usize = 16;
/// What small blocks are cut from, in whole: with what dlmalloc adds half a page.
const PIECE: usize = 2048 - STEP;

struct Blocks {
    /// For each size of small blocks the first that is free. Each has the address of the next in it.
    free: [*mut u8; SMALL / STEP],
    /// The rest of the piece.
    rest: *mut u8,
    left: usize,
    large: Dlmalloc<Pages>,
}

/// Which of the sizes of small blocks has room for this, if one has.
#[inline(always)]
fn small(layout: Layout) -> Option<usize> {
    let index = layout.size().wrapping_sub(1) / STEP;
    (index < SMALL / STEP && layout.align() <= STEP).then_some(index)
}

impl Blocks {
    const fn new() -> Self {
        let large = Dlmalloc::new_with_allocator(Pages);
        Self { free: [null_mut(); SMALL / STEP], rest: null_mut(), left: 0, large }
    }

    #[inline(always)]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        match small(layout) {
            // SAFETY: as for `GlobalAlloc`.
            None => unsafe { self.alloc_large(layout) },
            Some(index) => {
                let block = self.free[index];
                if block.is_null() {
                    return self.cut(index);
                }
                // SAFETY: it is free, so that what it begins with is what `dealloc` has put there.
                self.free[index] = unsafe { block.cast::<*mut u8>().read() };
                block
            }
        }
    }

    #[inline(always)]
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        match small(layout) {
            // SAFETY: as for `GlobalAlloc`; what had this layout has come from there.
            None => unsafe { self.dealloc_large(block, layout) },
            Some(index) => {
                // SAFETY: the block is nobody's any more, and has room for an address.
                unsafe { block.cast::<*mut u8>().write(self.free[index]) };
                self.free[index] = block;
            }
        }
    }

    /// A small block that nobody has had.
    #[inline(never)]
    fn cut(&mut self, index: usize) -> *mut u8 {
        let size = (index + 1) * STEP;
        if self.left < size {
            // SAFETY: neither is zero, and the alignment is a power of two.
            let piece = unsafe { self.large.malloc(PIECE, STEP) };
            if piece.is_null() {
                return piece;
            }
            if self.left > 0 {
                // SAFETY: the rest is free, and as large as blocks of this layout are.
                unsafe { self.dealloc(self.rest, Layout::from_size_align_unchecked(self.left, STEP)) };
            }
            (self.rest, self.left) = (piece, PIECE);
        }
        let block = self.rest;
        self.left -= size;
        self.rest = block.wrapping_add(size);
        block
    }

    #[inline(never)]
    unsafe fn alloc_large(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `GlobalAlloc`.
        unsafe { self.large.malloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn dealloc_large(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `GlobalAlloc`.
        unsafe { self.large.free(block, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        if small(layout).is_none() {
            // SAFETY: as for `GlobalAlloc`.
            return unsafe { self.large.calloc(layout.size(), layout.align()) };
        }
        // SAFETY: as for `GlobalAlloc`; the block is as large.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is that of a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (small(layout), small(wanted)) {
            // SAFETY: as for `GlobalAlloc`.
            (None, None) => unsafe { self.large.realloc(block, layout.size(), layout.align(), size) },
            (before, after) if before == after => block,
            // SAFETY: both have room for the smaller of the two sizes, and the new one is nobody else's.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

/// To be the `#[global_allocator]`. On one page, since the kernel copies each that is written to.
#[repr(align(2048))]
pub struct Heap {
    blocks: UnsafeCell<Blocks>,
    lock: Mutex<()>,
}

impl Heap {
    #[allow(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { blocks: UnsafeCell::new(Blocks::new()), lock: Mutex::new(()) }
    }

    /// A lock that nobody else can want is not taken: with it an allocation takes twice as long.
    #[inline(always)]
    fn with<T>(&self, work: impl FnOnce(&mut Blocks) -> T) -> T {
        if !ALONE.load(Ordering::Relaxed) {
            return self.with_lock(work);
        }
        // SAFETY: this thread is the only one until it returns from here. Nothing in `work` allocates.
        work(unsafe { &mut *self.blocks.get() })
    }

    #[inline(never)]
    fn with_lock<T>(&self, work: impl FnOnce(&mut Blocks) -> T) -> T {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this thread has the lock. Nothing in `work` allocates.
        work(unsafe { &mut *self.blocks.get() })
    }
}

// Never inline: copies of it at every place that allocates would add half a megabyte to the binary, and more than one to what a
// command maps of it.
// SAFETY: a block is nobody else's until it is given back, and has the size and the alignment that were asked for: what is not
// small is dlmalloc's, which has the contract of this trait, and it is the layout that says which of the two has a block. Both
// are used by one thread at a time.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.alloc(layout) })
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.dealloc(block, layout) })
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.alloc_zeroed(layout) })
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for the trait.
        self.with(|blocks| unsafe { blocks.realloc(block, layout, size) })
    }
}

// SAFETY: `blocks` is used by one thread at a time, as `with` sees to.
unsafe impl Sync for Heap {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it was filled with tells whether anybody else had it meanwhile.
    struct Held {
        block: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Held {
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: it was allocated with that size, and written to.
            unsafe { std::slice::from_raw_parts_mut(self.block, self.layout.size()) }
        }

        fn check(&mut self) {
            let mark = self.mark;
            assert!(self.bytes().iter().all(|byte| *byte == mark), "{:?} was another's", self.layout);
        }
    }

    /// xorshift, of Marsaglia.
    fn next(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as usize
    }

    fn use_it(heap: &Heap, seed: u64) {
        let mut state = seed;
        let mut held: Vec<Held> = Vec::new();
        let size = |state: &mut u64| match next(state) % 4 {
            0 => 1 + next(state) % 64,
            1 => SMALL - 20 + next(state) % 40,
            2 => 1 + next(state) % 5000,
            _ => STEP * (1 + next(state) % 40),
        };
        for turn in 0..if cfg!(miri) { 500 } else { 50_000 } {
            let mark = turn as u8 | 1;
            if held.len() < 100 {
                let layout = Layout::from_size_align(size(&mut state), 1 << (next(&mut state) % 8)).expect("a layout");
                let is_zeroed = next(&mut state).is_multiple_of(2);
                // SAFETY: no size is zero.
                let block = unsafe { if is_zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) } };
                assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()), "{layout:?} at {block:?}");
                if is_zeroed {
                    Held { block, layout, mark: 0 }.check();
                }
                // SAFETY: it is as large.
                unsafe { block.write_bytes(mark, layout.size()) };
                held.push(Held { block, layout, mark });
                continue;
            }
            let index = next(&mut state) % held.len();
            let mut one = held.swap_remove(index);
            one.check();
            if next(&mut state).is_multiple_of(3) {
                let wanted = size(&mut state);
                // SAFETY: it was allocated with this layout, and the size is not zero.
                let block = unsafe { heap.realloc(one.block, one.layout, wanted) };
                let kept = one.layout.size().min(wanted);
                let layout = Layout::from_size_align(wanted, one.layout.align()).expect("a layout");
                assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                let begin = Layout::from_size_align(kept, 1).expect("a layout");
                Held { block, layout: begin, mark: one.mark }.check();
                // SAFETY: it is as large.
                unsafe { block.write_bytes(mark, wanted) };
                held.push(Held { block, layout, mark });
            } else {
                // SAFETY: it was allocated with this layout, and nobody uses it any more.
                unsafe { heap.dealloc(one.block, one.layout) };
            }
        }
        for mut one in held {
            one.check();
            // SAFETY: as above.
            unsafe { heap.dealloc(one.block, one.layout) };
        }
    }

    #[test]
    fn nobody_gets_what_is_anothers() {
        let heap = Heap::new();
        std::thread::scope(|scope| {
            for seed in 1..=3 {
                let heap = &heap;
                scope.spawn(move || use_it(heap, seed));
            }
        });
    }
}
