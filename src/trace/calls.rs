//! The system calls of this process and of all that it starts, by perf_event_open(2): the kernel writes each entry and
//! return to a buffer of ours, which costs the recorded process less than a microsecond and stops nobody.

use crate::sys::{describe, errno_of};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Clock, SampleFlag, Sampler};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Of the thread, in this process's pid namespace.
    pub pid: i32,
    pub number: i64,
    pub arguments: [u64; 6],
    /// Nanoseconds of CLOCK_MONOTONIC. A call that never returned ends where it began.
    pub start: u64,
    pub end: u64,
    /// Absent for one that never returned.
    pub result: Option<i64>,
}

/// Bytes for the entries, and for the returns, of each processor: some 3000 calls.
const BUFFER: usize = 256 << 10;

/// Where tracefs says the number of an event.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A recording that goes on.
pub struct Recorder {
    entries: Vec<Sampler>,
    returns: Vec<Sampler>,
    missing: Option<String>,
}

impl Recorder {
    /// Opens what is needed, and does not begin. Where that is not allowed, nothing will have been recorded.
    pub fn open() -> Self {
        match open("sys_enter").and_then(|entries| Ok((entries, open("sys_exit")?))) {
            Ok((entries, returns)) => Self { entries, returns, missing: None },
            Err(why) => Self { entries: Vec::new(), returns: Vec::new(), missing: Some(why) },
        }
    }

    pub fn pause(&mut self) {
        self.each(|sampler| sampler.disable());
    }

    pub fn resume(&mut self) {
        self.each(|sampler| sampler.enable());
    }

    fn each(&mut self, change: impl Fn(&mut Sampler) -> io::Result<()>) {
        for sampler in self.entries.iter_mut().chain(&mut self.returns) {
            if let Err(error) = change(sampler) {
                self.missing = Some(format!("perf: {}", describe(errno_of(&error))));
            }
        }
    }

    /// The calls in the order in which they began, and what is missing.
    pub fn finish(mut self) -> (Vec<Call>, Option<String>) {
        let mut lost = 0;
        let mut read = |samplers: &mut Vec<Sampler>| {
            let mut events = Vec::new();
            samplers.iter_mut().for_each(|sampler| lost += read(sampler, &mut events));
            events.sort_by_key(|event| event.time);
            events
        };
        let (entries, returns) = (read(&mut self.entries), read(&mut self.returns));
        if lost > 0 {
            self.missing = Some(format!("{lost} calls: there were more at once than the buffer holds"));
        }
        let mut calls = join(entries, returns);
        calls.retain(|call| !is_own(call));
        (calls, self.missing)
    }
}

fn open(event: &str) -> Result<Vec<Sampler>, String> {
    let place = TRACEFS.iter().map(Path::new).find(|place| place.join("events").is_dir());
    let place = place.ok_or_else(|| format!("no tracefs: mount -t tracefs tracefs {}", TRACEFS[0]))?;
    let path = place.join("events/raw_syscalls").join(event).join("id");
    let id = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let id = id.trim().parse().map_err(|_| format!("{}: no number", path.display()))?;
    let count = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).ok().flatten().unwrap_or(1);
    let mut samplers = Vec::new();
    for processor in 0..count as usize {
        let opened = Builder::new(Tracepoint::with_id(id))
            .observe_self()
            .one_cpu(processor)
            .inherit(true)
            .sample_period(1)
            .sample(SampleFlag::TID | SampleFlag::TIME | SampleFlag::RAW)
            .clockid(Clock::MONOTONIC)
            .include_kernel()
            .build()
            .and_then(|counter| counter.sampled(BUFFER));
        match opened {
            Ok(sampler) => samplers.push(sampler),
            // A processor that is switched off.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => {
                return Err(format!(
                    "perf_event_open: {} (see perf_event_paranoid, man 2 perf_event_open)",
                    describe(errno_of(&error))
                ));
            }
        }
    }
    Ok(samplers)
}

/// Whether it is one of the recording's own: it is switched on or off (`PERF_EVENT_IOC_ENABLE`, `PERF_EVENT_IOC_DISABLE`), or
/// asks when a step begins or ends.
fn is_own(call: &Call) -> bool {
    let (first, second) = (call.arguments[0], call.arguments[1]);
    match call.number {
        libc::SYS_ioctl => matches!(second, 0x2400 | 0x2401),
        libc::SYS_clock_gettime => first == libc::CLOCK_MONOTONIC as u64,
        _ => false,
    }
}

/// One entry or return, as the kernel wrote it.
struct Event {
    pid: i32,
    time: u64,
    /// The number of the call, then its arguments or its result (events/raw_syscalls/*/format).
    words: Vec<u64>,
}

/// The fields that every event has before its own.
const COMMON: usize = 8;

/// Appends what a buffer holds; how many events had no place in it.
fn read(sampler: &mut Sampler, events: &mut Vec<Event>) -> u64 {
    let mut lost = 0;
    while let Some(record) = sampler.next_record() {
        match record.parse_record() {
            Ok(perf_event::data::Record::Sample(sample)) => {
                let (Some(pid), Some(time), Some(raw)) = (sample.tid(), sample.time(), sample.raw()) else { continue };
                let words = raw.get(COMMON..).unwrap_or_default();
                let words = words.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
                events.push(Event { pid: pid as i32, time, words: words.collect() });
            }
            Ok(perf_event::data::Record::Lost(record)) => lost += record.lost,
            _ => {}
        }
    }
    lost
}

/// Puts each return to the entry of the same thread.
fn join(entries: Vec<Event>, returns: Vec<Event>) -> Vec<Call> {
    let mut returns_of: HashMap<i32, std::collections::VecDeque<Event>> = HashMap::new();
    for event in returns {
        returns_of.entry(event.pid).or_default().push_back(event);
    }
    let mut calls: Vec<Call> = Vec::with_capacity(entries.len());
    let mut last: HashMap<i32, usize> = HashMap::new();
    for event in entries {
        let word = |index: usize| event.words.get(index).copied().unwrap_or(0);
        let call = Call {
            pid: event.pid,
            number: word(0) as i64,
            arguments: std::array::from_fn(|index| word(index + 1)),
            start: event.time,
            end: event.time,
            result: None,
        };
        if let Some(before) = last.insert(event.pid, calls.len()) {
            finish(&mut calls[before], &mut returns_of, Some(event.time));
        }
        calls.push(call);
    }
    for index in last.into_values() {
        finish(&mut calls[index], &mut returns_of, None);
    }
    calls
}

/// The first return of that thread after the call began, unless another call came before it.
fn finish(call: &mut Call, returns: &mut HashMap<i32, std::collections::VecDeque<Event>>, until: Option<u64>) {
    let Some(waiting) = returns.get_mut(&call.pid) else { return };
    while waiting.front().is_some_and(|event| event.time < call.start) {
        waiting.pop_front();
    }
    if waiting.front().is_none_or(|event| until.is_some_and(|until| event.time > until)) {
        return;
    }
    if let Some(event) = waiting.pop_front() {
        call.end = event.time;
        call.result = event.words.get(1).map(|&word| word as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pid: i32, time: u64, words: &[u64]) -> Event {
        Event { pid, time, words: words.to_vec() }
    }

    #[test]
    fn a_return_belongs_to_the_entry_of_its_thread() {
        let entries = vec![event(1, 10, &[257, 3]), event(2, 11, &[0]), event(1, 20, &[60])];
        // The first is of a call that began before the recording.
        let returns = vec![event(2, 5, &[0, 9]), event(1, 15, &[257, 4]), event(2, 18, &[0, u64::MAX])];
        let calls = join(entries, returns);
        let seen: Vec<_> =
            calls.iter().map(|call| (call.pid, call.number, call.start, call.end, call.result)).collect();
        assert_eq!(seen, [(1, 257, 10, 15, Some(4)), (2, 0, 11, 18, Some(-1)), (1, 60, 20, 20, None)]);
        assert_eq!(calls[0].arguments[0], 3);
    }
}
