//! Learning of out-of-memory kills. v1: an eventfd registered for memory.oom_control (admin-guide/cgroup-v1/memory.rst,
//! section 10). v2: memory.events, which poll(2) reports as changed.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Cgroup, file};

/// A watch on one container's memory cgroup. Poll its descriptor for [`OomWatch::events`], then call
/// [`OomWatch::acknowledge`].
pub struct OomWatch {
    source: Source,
}

enum Source {
    /// The kernel takes the watch away when the eventfd is closed.
    V1(EventFd),
    V2 {
        events: File,
        kills: u64,
    },
}

impl Cgroup {
    /// Begins to watch. An error where the container has no memory cgroup.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        if let Some(place) = self.placement().v1("memory") {
            let directory = place.directory();
            let on = |what: &str| format!("watch {}/memory.oom_control: {what}", directory.display());
            let dir = file::open_dir(nix::fcntl::AT_FDCWD, &directory).with_context(|| on("open the cgroup"))?;
            let control = File::open(directory.join("memory.oom_control")).with_context(|| on("open"))?;
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let event = EventFd::from_value_and_flags(0, flags).with_context(|| on("eventfd"))?;
            let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
            file::write(&dir, "cgroup.event_control", &line).with_context(|| on("write to cgroup.event_control"))?;
            return Ok(OomWatch { source: Source::V1(event) });
        }
        let place = self.placement().unified().filter(|_| self.placement().is_pure_v2());
        let place = place.ok_or_else(|| anyhow!("the container has no memory cgroup to watch"))?;
        let path = place.directory().join("memory.events");
        let events = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut watch = OomWatch { source: Source::V2 { events, kills: 0 } };
        watch.acknowledge()?;
        Ok(watch)
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1(event) => event.as_fd(),
            Source::V2 { events, .. } => events.as_fd(),
        }
    }
}

impl OomWatch {
    /// What to poll the descriptor for.
    pub fn events(&self) -> PollFlags {
        match self.source {
            Source::V1(_) => PollFlags::POLLIN,
            Source::V2 { .. } => PollFlags::POLLPRI,
        }
    }

    /// True if memory ran out since the last call (v1 signals the removal of the cgroup too: ask whether it exists).
    pub fn acknowledge(&mut self) -> Result<bool> {
        match &mut self.source {
            Source::V1(event) => match event.read() {
                Ok(count) => Ok(count > 0),
                Err(nix::errno::Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno).context("read the eventfd of memory.oom_control"),
            },
            Source::V2 { events, kills } => {
                let mut text = String::new();
                let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
                if read.is_err_and(|error| error.raw_os_error() != Some(libc::ENODEV)) {
                    return Err(anyhow!("read memory.events: the kernel refuses it"));
                }
                let count = |line: &str| line.strip_prefix("oom_kill ")?.parse::<u64>().ok();
                let now = text.lines().find_map(count).unwrap_or(*kills);
                Ok(std::mem::replace(kills, now) < now)
            }
        }
    }
}
