//! `rtx events` of supervised containers: what has happened to them, and with `--follow` what happens.

use super::args::EventsArgs;
use super::values::parse_interval;
use super::{Context, output, report};
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::logs::parse_moment;
use crate::state::{self, Event, Events, NotFound};
use crate::sys::{On, errno_of, retry};
use anyhow::{Result, anyhow, bail};
use chrono::{DateTime, FixedOffset};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::AsFd;
use std::path::Path;

/// What comes after it is wanted.
#[derive(Clone, Copy, Default)]
struct Since {
    seq: u64,
    time: Option<DateTime<FixedOffset>>,
}

impl Since {
    fn parse(text: Option<&str>, all: bool) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        match text.parse() {
            Ok(seq) if !all || seq == 0 => Ok(Self { seq, time: None }),
            Ok(_) => bail!("--since {text}: each container counts its own events: give a time with --all"),
            Err(_) => {
                let time = parse_moment(text, parse_interval(text).ok()).map_err(|why| anyhow!("--since: {why}"))?;
                Ok(Self { seq: 0, time: Some(time) })
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let time = || DateTime::parse_from_rfc3339(&event.time).ok();
        self.time.is_none_or(|since| time().is_none_or(|time| time >= since))
    }
}

/// Those of one container.
///
/// # Errors
/// Where it is not supervised.
pub fn of_one(args: &EventsArgs, live: Live, id: &str) -> Result<i32> {
    if !live.container.record.supervised {
        bail!("what happens to container {id:?} is not recorded: it is for those that are created with --supervise");
    }
    let since = Since::parse(args.since.as_deref(), false)?;
    let mut events = live.container.state.events(since.seq)?;
    loop {
        let found = events.read()?;
        for (event, line) in &found {
            if since.wants(event) {
                output::print(&format!("{line}\n"))?;
            }
        }
        if !args.follow || found.last().is_some_and(|(event, _)| event.kind == "deleted") || events.is_over() {
            return Ok(0);
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        retry(|| poll(&mut fds, PollTimeout::NONE)).on("poll", "the events")?;
    }
}

/// Those of all containers.
///
/// # Errors
/// The kernel's.
pub fn of_all(context: &Context, args: &EventsArgs) -> Result<i32> {
    let since = Since::parse(args.since.as_deref(), true)?;
    let root = context.root.as_path();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).on("inotify_init", "")?;
    if args.follow {
        std::fs::create_dir_all(root).map_err(|error| errno_of(&error)).on("mkdir", root.display())?;
        let kinds = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(root, kinds).on("inotify_add_watch", root.display())?;
    }
    let mut sources: BTreeMap<(String, u64), Events> = BTreeMap::new();
    loop {
        while inotify.read_events().is_ok() {}
        find_new(root, &mut sources)?;
        let mut found = Vec::new();
        for events in sources.values_mut() {
            found.extend(events.read()?);
        }
        // Times are of one form and one zone, so that their texts are in their order.
        found.sort_by(|(one, _), (other, _)| one.time.cmp(&other.time));
        for (_, line) in found.iter().filter(|(event, _)| since.wants(event)) {
            output::print(&format!("{line}\n"))?;
        }
        sources.retain(|_, events| !events.is_over());
        if !args.follow {
            return Ok(0);
        }
        let mut fds = vec![PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        fds.extend(sources.values().map(|events| PollFd::new(events.as_fd(), PollFlags::POLLIN)));
        retry(|| poll(&mut fds, PollTimeout::NONE)).on("poll", "the events")?;
    }
}

/// Whether a new container is a supervised one is only known when it has a record; until then it is watched as if it were.
fn find_new(root: &Path, sources: &mut BTreeMap<(String, u64), Events>) -> Result<()> {
    for id in state::list(root)? {
        match state::StateDir::open(root, &id) {
            Ok(state) => {
                let key = (id, state.inode());
                if let Entry::Vacant(place) = sources.entry(key) {
                    place.insert(state.events(0)?);
                }
            }
            Err(error) if error.is::<NotFound>() => {}
            Err(error) => report::remark(&format!("rtx events: container {id:?} is left out: {error:#}")),
        }
    }
    Ok(())
}
