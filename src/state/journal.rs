//! The events of a supervised container: `events.jsonl` in its state directory, a JSON object a line, numbered without a gap,
//! written by whoever causes one. Readers read the file, so that none of them can hold anybody up.

use super::StateDir;
use super::supervision::now;
use crate::sys::{Errno, On, errno_of, retry};
use anyhow::Result;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

pub(super) const EVENTS: &str = "events.jsonl";
/// What came before, when the file had become large.
pub(super) const EARLIER: &str = "events.jsonl.1";
const LARGEST: u64 = 1 << 20;
/// No event is longer, so that the last one is found in the end of the file.
const LONGEST: usize = 64 * 1024;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub id: String,
    pub data: Box<RawValue>,
}

impl StateDir {
    /// Adds an event. Its number is one more than that of the last.
    ///
    /// # Errors
    /// The kernel's; then nothing of it is in the file.
    pub fn add_event(&self, kind: &str, data: &impl Serialize) -> Result<()> {
        let mut data = serde_json::value::to_raw_value(data)?;
        if data.get().len() > LONGEST / 2 {
            data = serde_json::value::to_raw_value(&serde_json::json!({ "left": "out, being too long" }))?;
        }
        let mut file = self.lock_events()?;
        let mut seq = last_seq(&mut file)?;
        let mut end = file.seek(SeekFrom::End(0)).map_err(|error| errno_of(&error)).on("seek", EVENTS)?;
        if end >= LARGEST {
            renameat(self.as_fd(), EVENTS, self.as_fd(), EARLIER).on("rename", EVENTS)?;
            // Whoever waits for the lock of the old file looks for the new one afterwards.
            let rotated = std::mem::replace(&mut file, self.lock_events()?);
            drop(rotated);
            if file.metadata().is_ok_and(|meta| meta.len() > 0) {
                seq = last_seq(&mut file)?;
            }
            end = file.seek(SeekFrom::End(0)).map_err(|error| errno_of(&error)).on("seek", EVENTS)?;
        }
        let event = Event { seq: seq + 1, time: now(), kind: kind.to_owned(), id: self.id().to_owned(), data };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        file.write_all(&line)
            .map_err(|error| {
                // Half a line of a full disk would be read as none, and so would be what follows on it.
                let _ = file.set_len(end);
                errno_of(&error)
            })
            .on("write", format_args!("{}/{EVENTS}", self.id()))?;
        Ok(())
    }

    fn lock_events(&self) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        loop {
            let fd = openat(self.as_fd(), EVENTS, flags, Mode::S_IRUSR | Mode::S_IWUSR)
                .on("open", format_args!("{}/{EVENTS}", self.id()))?;
            let file = File::from(fd);
            retry(|| file.lock().map_err(|error| errno_of(&error))).on("lock", EVENTS)?;
            let named = openat(self.as_fd(), EVENTS, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            if let Ok(named) = named
                && inode(&named) == inode(&file)
            {
                return Ok(file);
            }
        }
    }

    /// Begins to read the events after number `after`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn events(self, after: u64) -> Result<Events> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).on("inotify_init", "")?;
        // Before the first look, so that nothing happens between that and the first wait.
        let kinds = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(&self.path(), kinds).on("inotify_add_watch", self.id())?;
        Ok(Events { state: self, inotify, file: None, rest: Vec::new(), last: after })
    }
}

/// The number of the last event; what a killed writer left of one after it is removed.
fn last_seq(file: &mut File) -> Result<u64> {
    let read = |file: &mut File| -> std::io::Result<Vec<u8>> {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST as u64)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        if let Some(torn) = tail.iter().rposition(|byte| *byte == b'\n').map(|at| tail.len() - at - 1)
            && torn > 0
        {
            file.set_len(length - torn as u64)?;
            tail.truncate(tail.len() - torn);
        }
        Ok(tail)
    };
    let tail = read(file).map_err(|error| errno_of(&error)).on("read", EVENTS)?;
    let last = tail.split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice::<Event>(line).ok());
    Ok(last.map_or(0, |event| event.seq))
}

fn inode(fd: impl AsFd) -> Option<u64> {
    fstat(fd).ok().map(|stat| stat.st_ino)
}

/// A reader of events, wherever it has come to.
pub struct Events {
    state: StateDir,
    inotify: Inotify,
    /// The file that is being read.
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    last: u64,
}

impl Events {
    /// The events that are there by now and were not returned yet, with their lines.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self) -> Result<Vec<(Event, String)>> {
        while self.inotify.read_events().is_ok() {}
        let mut found = Vec::new();
        if self.file.is_none() {
            // What was rotated away before this reader came.
            self.read_named(EARLIER, &mut found)?;
            self.file = self.open(EVENTS)?;
        }
        loop {
            self.read_open(&mut found)?;
            let Some(file) = &self.file else { return Ok(found) };
            let next = self.open(EVENTS)?;
            match &next {
                Some(next) if inode(next) != inode(file) => {}
                _ => return Ok(found),
            }
            // It was rotated, perhaps more than once.
            self.read_open(&mut found)?;
            self.read_named(EARLIER, &mut found)?;
            self.file = next;
        }
    }

    fn open(&self, name: &str) -> Result<Option<File>> {
        match openat(self.state.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()) {
            Err(Errno::ENOENT) => Ok(None),
            other => Ok(Some(other.on("open", name)?.into())),
        }
    }

    fn read_named(&mut self, name: &str, found: &mut Vec<(Event, String)>) -> Result<()> {
        let current = self.file.take();
        self.file = self.open(name)?;
        self.rest.clear();
        let outcome = self.read_open(found);
        self.rest.clear();
        self.file = current;
        outcome
    }

    fn read_open(&mut self, found: &mut Vec<(Event, String)>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.rest).map_err(|error| errno_of(&error)).on("read", EVENTS)?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // A line that is no event is nobody's loss: its number is given to another.
            let Ok(event) = serde_json::from_slice::<Event>(line) else { continue };
            if event.seq > self.last {
                self.last = event.seq;
                found.push((event, String::from_utf8_lossy(line).into_owned()));
            }
        }
        Ok(())
    }

    /// Whether the container has been removed, and with it the source of events.
    pub fn is_over(&self) -> bool {
        self.state.is_removed()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
