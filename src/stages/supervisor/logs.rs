//! Reading what the program has printed from the files that smaster writes, as it stands or as it grows.

use super::Settings;
use super::output::{Begin, Stream, paths, rotated};
use crate::config::supervision::OutputFormat;
use crate::sys::{Errno, On, errno_of};
use anyhow::{Result, bail};
use chrono::{DateTime, FixedOffset};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// One piece of output, as it was written at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub stream: Stream,
    /// Absent where only the bytes were kept.
    pub time: Option<DateTime<FixedOffset>>,
    /// With its newline, if it had one.
    pub text: Vec<u8>,
}

/// Everything that is written down of the output of one container.
pub struct Logs {
    format: OutputFormat,
    files: Vec<LogReader>,
    inotify: Inotify,
}

impl Logs {
    /// # Errors
    /// Where nothing is written down; the kernel's.
    pub fn open(settings: &Settings) -> Result<Self> {
        let Settings { output: settings, begin, .. } = settings;
        if settings.format == OutputFormat::None {
            bail!("the container was created with --output-format none: nothing of its output is kept");
        }
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).on("inotify_init", "")?;
        let streams = [Stream::Stdout, Stream::Stderr];
        let files: Vec<_> = paths(settings)
            .into_iter()
            .zip(streams)
            .enumerate()
            .map(|(number, (path, stream))| LogReader {
                path,
                stream,
                most: settings.max_files,
                begin: begin.get(number).cloned().flatten(),
                file: None,
                rest: Vec::new(),
                times: Times::default(),
                skipped: false,
            })
            .collect();
        if let Some(directory) = settings.file.parent() {
            let kinds = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
            inotify.add_watch(directory, kinds).on("inotify_add_watch", directory.display())?;
        }
        Ok(Self { format: settings.format, files, inotify })
    }

    /// What was written since the last call.
    ///
    /// # Errors
    /// The kernel's; a line that is none.
    pub fn read(&mut self, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        while self.inotify.read_events().is_ok() {}
        let format = self.format;
        self.files.iter_mut().try_for_each(|file| file.read(format, &mut each))
    }

    /// Whether something was missed since the last call of this: a file was removed, as newer ones took its place, before it
    /// was read to its end, or at all.
    pub fn has_skipped(&mut self) -> bool {
        self.files.iter_mut().filter(|file| file.skipped).map(|file| file.skipped = false).count() > 0
    }
}

impl AsFd for Logs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

struct LogReader {
    path: PathBuf,
    stream: Stream,
    most: u32,
    /// What is before that is another container's.
    begin: Option<Begin>,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    times: Times,
    skipped: bool,
}

impl LogReader {
    fn read(&mut self, format: OutputFormat, each: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        loop {
            self.read_open(format, each)?;
            let Some(next) = self.next_file()? else { return Ok(()) };
            // What was added to the old one before it was left.
            self.read_open(format, each)?;
            let (next, follows) = next;
            self.skipped |= !follows;
            self.file = Some(next);
            self.rest.clear();
        }
    }

    /// The file after the one that is open: the oldest, or the one that was begun when it was full; and whether it is.
    fn next_file(&self) -> Result<Option<(File, bool)>> {
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.ino());
        let mut newer = None;
        for number in 0..self.most.max(1) {
            let path = rotated(&self.path, number);
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(|error| errno_of(&error)).on("open", path.display())?,
            };
            let meta = file.metadata().map_err(|error| errno_of(&error)).on("stat", path.display())?;
            if open == Some(meta.ino()) {
                return Ok(newer.map(|file| (file, true)));
            }
            if open.is_none()
                && let Some(begin) = self.begin.as_ref().filter(|begin| begin.is_in(&meta))
            {
                file.seek(SeekFrom::Start(begin.offset))
                    .map_err(|error| errno_of(&error))
                    .on("seek", path.display())?;
                return Ok(Some((file, true)));
            }
            newer = Some(file);
        }
        // What was open is gone, or nothing was.
        Ok(newer.map(|file| (file, open.is_none())))
    }

    fn read_open(&mut self, format: OutputFormat, each: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = match file.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(|error| errno_of(&error)).on("read", self.path.display())?,
            };
            if length == 0 {
                return Ok(());
            }
            if format == OutputFormat::Plain {
                each(Entry { stream: self.stream, time: None, text: buffer[..length].to_vec() })?;
                continue;
            }
            self.rest.extend_from_slice(&buffer[..length]);
            let Some(end) = memchr::memrchr(b'\n', &self.rest) else { continue };
            let mut begin = 0;
            for at in memchr::memchr_iter(b'\n', &self.rest[..=end]) {
                let line = &self.rest[begin..at];
                begin = at + 1;
                let times = &mut self.times;
                let entry =
                    if format == OutputFormat::K8sFile { parse_k8s(line, times) } else { parse_json(line, times) };
                // Half a line of a smaster that was killed, or of a full disk.
                entry.map_or(Ok(()), &mut *each)?;
            }
            self.rest.drain(..=end);
        }
    }
}

fn parse_k8s(line: &[u8], times: &mut Times) -> Option<Entry> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = times.parse(fields.next()?)?;
    let stream = stream(fields.next()?)?;
    let is_whole = fields.next()? == b"F";
    let rest = fields.next().unwrap_or_default();
    let mut text = Vec::with_capacity(rest.len() + 1);
    text.extend_from_slice(rest);
    if is_whole {
        text.push(b'\n');
    }
    Some(Entry { stream, time: Some(time), text })
}

fn parse_json(line: &[u8], times: &mut Times) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Line<'a> {
        time: &'a str,
        stream: &'a str,
        log: String,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let (time, stream) = (times.parse(line.time.as_bytes())?, stream(line.stream.as_bytes())?);
    Some(Entry { stream, time: Some(time), text: line.log.into_bytes() })
}

/// What was read from the program at once has one time, which is not parsed again for each line of it.
#[derive(Default)]
struct Times {
    text: Vec<u8>,
    time: Option<DateTime<FixedOffset>>,
}

impl Times {
    fn parse(&mut self, text: &[u8]) -> Option<DateTime<FixedOffset>> {
        if self.text != text {
            self.time = DateTime::parse_from_rfc3339(std::str::from_utf8(text).ok()?).ok();
            self.text = text.to_vec();
        }
        self.time
    }
}

fn stream(text: &[u8]) -> Option<Stream> {
    [Stream::Stdout, Stream::Stderr].into_iter().find(|stream| stream.name().as_bytes() == text)
}

/// Keeps the last lines of what goes through it.
pub struct Tail {
    lines: usize,
    kept: std::collections::VecDeque<Entry>,
    ends: usize,
}

impl Tail {
    pub fn new(lines: usize) -> Self {
        Self { lines, kept: std::collections::VecDeque::new(), ends: 0 }
    }

    /// Takes what was written at once, which may be many lines.
    pub fn push(&mut self, entry: Entry) {
        for line in entry.text.split_inclusive(|byte| *byte == b'\n') {
            let begins = self.kept.back().is_none_or(|last| ends_line(last, Some(entry.stream)));
            self.ends += usize::from(begins);
            self.kept.push_back(Entry { stream: entry.stream, time: entry.time, text: line.to_vec() });
        }
        while self.ends > self.lines
            && let Some(first) = self.kept.pop_front()
        {
            self.ends -= usize::from(ends_line(&first, self.kept.front().map(|next| next.stream)));
        }
    }

    pub fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.kept.into_iter()
    }
}

/// Whether another line begins after this: also where the other stream goes on, or else the last line of a stream that has no
/// newline would be one with the first line of the other.
fn ends_line(entry: &Entry, next: Option<Stream>) -> bool {
    entry.text.ends_with(b"\n") || next != Some(entry.stream)
}

/// A moment that is given as RFC 3339, or as a time before now such as `10m`.
///
/// # Errors
/// Where it is neither.
pub fn parse_moment(text: &str, ago: Option<std::time::Duration>) -> Result<DateTime<FixedOffset>, String> {
    if let Some(ago) = ago.and_then(|ago| chrono::Duration::from_std(ago).ok()) {
        return Ok((chrono::Utc::now() - ago).fixed_offset());
    }
    DateTime::parse_from_rfc3339(text).map_err(|_| {
        format!("'{text}' is neither a time such as 2026-01-31T12:00:00Z nor how long ago it was, such as 10m")
    })
}

/// That a file is not there is told in other words elsewhere.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::sys::Error>().is_some_and(|error| error.errno == Errno::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let mut times = Times::default();
        let mut parse_k8s = |line: &[u8]| parse_k8s(line, &mut times);
        let entry = parse_k8s(b"2026-01-31T12:00:00.5Z stderr F a b ").unwrap();
        assert_eq!((entry.stream, entry.text.as_slice()), (Stream::Stderr, &b"a b \n"[..]));
        assert_eq!(parse_k8s(b"2026-01-31T12:00:00.5Z stdout P ").unwrap().text, b"");
        assert_eq!(parse_k8s(b"yesterday stdout F a"), None);
        let line = br#"{"time":"2026-01-31T12:00:00Z","stream":"stdout","log":"a\n"}"#;
        let entry = parse_json(line, &mut Times::default()).unwrap();
        assert_eq!((entry.stream, entry.text.as_slice()), (Stream::Stdout, &b"a\n"[..]));
    }

    #[test]
    fn the_last_lines_are_kept_whole() {
        let entry = |text: &str| Entry { stream: Stream::Stdout, time: None, text: text.as_bytes().to_vec() };
        let tail = |lines: usize, texts: &[&str]| {
            let mut tail = Tail::new(lines);
            texts.iter().for_each(|text| tail.push(entry(text)));
            let bytes: Vec<u8> = tail.into_entries().flat_map(|entry| entry.text).collect();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(tail(2, &["a\n", "b\n", "c\n"]), "b\nc\n");
        assert_eq!(tail(2, &["a\nb\nc\nd"]), "c\nd");
        assert_eq!(tail(1, &["a\n", "b", "c", "d\n"]), "bcd\n");
        assert_eq!(tail(0, &["a\n"]), "");
        assert_eq!(tail(0, &["a", "b\n"]), "");
    }

    #[test]
    fn a_line_is_of_one_stream() {
        let tail = |lines: usize, entries: &[(Stream, &str)]| {
            let mut tail = Tail::new(lines);
            for (stream, text) in entries {
                tail.push(Entry { stream: *stream, time: None, text: text.as_bytes().to_vec() });
            }
            let bytes: Vec<u8> = tail.into_entries().flat_map(|entry| entry.text).collect();
            String::from_utf8(bytes).unwrap()
        };
        let entries = [(Stream::Stdout, "a\n"), (Stream::Stdout, "b"), (Stream::Stdout, "c"), (Stream::Stderr, "d\n")];
        assert_eq!(tail(1, &entries), "d\n");
        assert_eq!(tail(2, &entries), "bcd\n");
        assert_eq!(tail(3, &entries), "a\nbcd\n");
        assert_eq!(tail(1, &[(Stream::Stdout, "a"), (Stream::Stderr, "b"), (Stream::Stdout, "c")]), "c");
    }
}
