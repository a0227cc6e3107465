//! Where the time of a command goes (`--timeline`): the steps that rtx marks itself, in this process and in stage2, and the
//! system calls of both as the kernel saw them, on one clock. While nothing is recorded a mark is one load from memory.

pub mod calls;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ON: AtomicBool = AtomicBool::new(false);
/// What a time namespace adds to the clock, in nanoseconds.
static OFFSET: AtomicI64 = AtomicI64::new(0);
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());
static RECORDER: Mutex<Option<calls::Recorder>> = Mutex::new(None);

/// One step, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// 0: the process that recorded it.
    #[serde(default)]
    pub pid: i32,
    pub name: String,
    pub start: u64,
    pub end: u64,
}

/// What was recorded, each list in the order of time.
pub struct Recording {
    pub spans: Vec<Span>,
    pub calls: Vec<calls::Call>,
    /// What could not be recorded, and why.
    pub missing: Option<String>,
}

/// A step that lasts until this is dropped.
#[must_use]
pub struct Mark(Option<(String, u64)>);

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some((name, start)) = self.0.take() {
            lock(&SPANS).push(Span { pid: 0, name, start, end: now() });
        }
    }
}

/// Begins a step of this process.
pub fn span(name: &str) -> Mark {
    span_of(|| name.to_owned())
}

/// As [`span`], with a name that is made only if it is wanted.
pub fn span_of(name: impl FnOnce() -> String) -> Mark {
    Mark(is_on().then(|| (name(), now())))
}

/// Whether anything is recorded.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Begins to keep the steps of this process.
pub fn keep_spans() {
    ON.store(true, Ordering::Relaxed);
}

/// The steps kept so far, which are kept no longer.
pub fn take_spans() -> Vec<Span> {
    if !is_on() {
        return Vec::new();
    }
    std::mem::take(&mut lock(&SPANS))
}

/// Takes over the steps of another process.
pub fn adopt(pid: i32, spans: Vec<Span>) {
    if is_on() {
        lock(&SPANS).extend(spans.into_iter().map(|span| Span { pid, ..span }));
    }
}

/// Does what changes the clock of this process (time_namespaces(7)), and goes on counting from where it was.
pub fn across_clocks<T>(change: impl FnOnce() -> T) -> T {
    if !is_on() {
        return change();
    }
    let before = now();
    let result = change();
    OFFSET.fetch_add(now() as i64 - before as i64, Ordering::Relaxed);
    result
}

/// Begins to record this process and all that it starts.
pub fn begin() {
    let recorder = calls::Recorder::open();
    keep_spans();
    *lock(&RECORDER) = Some(recorder);
    with_recorder(calls::Recorder::resume);
}

/// While this lives no system call is recorded: the container's own program is not what is looked at.
#[must_use]
pub struct Paused(());

/// Records no system call for a while.
pub fn paused() -> Paused {
    with_recorder(calls::Recorder::pause);
    Paused(())
}

impl Drop for Paused {
    fn drop(&mut self) {
        with_recorder(calls::Recorder::resume);
    }
}

fn with_recorder(change: impl FnOnce(&mut calls::Recorder)) {
    if is_on()
        && let Some(recorder) = &mut *lock(&RECORDER)
    {
        change(recorder);
    }
}

/// Ends what [`begin`] began.
pub fn end() -> Recording {
    with_recorder(calls::Recorder::pause);
    let mut spans = take_spans();
    ON.store(false, Ordering::Relaxed);
    // Of two that begin together the longer one holds the other.
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let (calls, missing) = match lock(&RECORDER).take() {
        Some(recorder) => recorder.finish(),
        None => (Vec::new(), None),
    };
    Recording { spans, calls, missing }
}

fn now() -> u64 {
    // It exists on every Linux.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
    (time - OFFSET.load(Ordering::Relaxed)) as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
