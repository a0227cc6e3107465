//! Two names that change places for as long as this lives: what an image, or another container with the same volume, does
//! between a check and a use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};

use rustix::fs::{CWD, RenameFlags, renameat_with};

pub struct Swap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swap {
    pub fn new(one: &Path, other: &Path) -> Swap {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, one, other): (_, PathBuf, PathBuf) = (stop.clone(), one.into(), other.into());
        let thread = spawn(move || {
            let mut turn = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect("exchange two names");
                // Both fast and slow, so that some change falls between any two steps.
                turn = turn.wrapping_add(1);
                for _ in 0..turn % 7 * 50 {
                    std::hint::spin_loop();
                }
                if turn.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        });
        Swap { stop, thread: Some(thread) }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
