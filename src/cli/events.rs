//! `rtx events`: what a container uses and when it runs out of memory, a JSON object a line, in runc's form.

use super::Context;
use super::args::EventsArgs;
use super::{output, recorded_events};
use crate::engine::FeatureNotSupported;
use crate::engine::oci::cgroup::OomWatch;
use crate::stages::lifecycle::Live;
use crate::state::Status;
use crate::sys::{Errno, On, process, retry};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollTimeout, poll};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Between two reports.
const INTERVAL: Duration = Duration::from_secs(5);

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
}

pub fn events(context: &Context, args: EventsArgs) -> Result<i32> {
    let Some(id) = &args.id else { return recorded_events::of_all(context, &args) };
    let live = Live::open(&context.root, id)?;
    // A supervised container has more to tell than what runc's callers ask for, which is there for the asking.
    let asks_for_stats = args.stats || args.interval.is_some();
    if args.follow || args.since.is_some() || live.container.record.supervised && !asks_for_stats {
        return recorded_events::of_one(&args, live, id);
    }
    if live.status()? == Status::Stopped {
        bail!("container not running");
    }
    if args.stats {
        print_stats(&live)?;
    } else {
        follow(&live, args.interval.unwrap_or(INTERVAL))?;
    }
    Ok(0)
}

fn print_stats(live: &Live) -> Result<()> {
    let data = live.engine.stats(&live.container)?;
    output::print_json(&Event { kind: "stats", id: &live.container.record.id, data: Some(data) })
}

/// Prints events until the container stops.
fn follow(live: &Live, interval: Duration) -> Result<()> {
    // An engine without processes has no init to watch, and is asked for its status at every report.
    let init = match live.container.record.init.as_ref().map(|init| init.open()) {
        None => None,
        Some(Ok(pidfd)) => Some(pidfd),
        Some(Err(Errno::ESRCH)) => return Ok(()),
        Some(Err(errno)) => return Err(errno).on("watch init of", &live.container.record.id)?,
    };
    let mut memory = watch_memory(live)?;
    let mut next = Instant::now() + interval;
    loop {
        let woken = wait(init.as_ref(), memory.as_ref(), next)?;
        let due = Instant::now() >= next;
        let ended = woken.init || (due && live.status()? == Status::Stopped);
        // The kernel may hold a notification back for 10 ms (cgroup v2), in which the killed container is gone: its end is
        // the last chance to look.
        if woken.memory || ended {
            report_memory(live, &mut memory)?;
        }
        if ended {
            return Ok(());
        }
        if due {
            match print_stats(live) {
                // Its cgroup went while it was read.
                Err(_) if live.status()? == Status::Stopped => return Ok(()),
                told => told?,
            }
            next = Instant::now() + interval;
        }
    }
}

/// An engine that cannot tell of memory still has its statistics told.
fn watch_memory(live: &Live) -> Result<Option<OomWatch>> {
    match live.engine.out_of_memory_events(&live.container) {
        Err(error) if error.is::<FeatureNotSupported>() => Ok(None),
        other => other.map(Some),
    }
}

fn report_memory(live: &Live, memory: &mut Option<OomWatch>) -> Result<()> {
    let Some(watch) = memory else { return Ok(()) };
    if !watch.acknowledge()? {
        return Ok(());
    }
    // cgroup v1 tells of its removal in the same way; then there is nothing left that could be watched.
    match watch_memory(live) {
        Ok(_) => output::print_json(&Event { kind: "oom", id: &live.container.record.id, data: None }),
        Err(_) => {
            *memory = None;
            Ok(())
        }
    }
}

/// What happened while waiting.
struct Woken {
    init: bool,
    memory: bool,
}

fn wait(init: Option<&OwnedFd>, memory: Option<&OomWatch>, until: Instant) -> Result<Woken> {
    let has_memory = memory.is_some();
    let polled = init.map(|pidfd| PollFd::new(pidfd.as_fd(), process::end_events()));
    let memory = memory.map(|watch| PollFd::new(watch.as_fd(), watch.events()));
    let mut watched: Vec<PollFd<'_>> = polled.into_iter().chain(memory).collect();
    retry(|| {
        // Rounded up: a wait that ends too early would only be repeated.
        let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        poll(&mut watched, process::end_timeout(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)))
    })
    .on("poll", "the container")?;
    let mut ready = watched.iter().map(PollFd::revents);
    let init = init.is_some_and(|pidfd| process::has_ended(pidfd, ready.next().flatten()));
    let memory = has_memory && ready.next().flatten().is_some_and(|events| !events.is_empty());
    Ok(Woken { init, memory })
}
