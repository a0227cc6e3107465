//! `rtx logs`: what the program of a supervised container has printed, each stream on the same one of this command.

use super::Context;
use super::args::LogsArgs;
use super::report;
use super::values::parse_interval;
use crate::config::supervision::OutputFormat;
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::logs::{Entry, Logs, Tail, parse_moment};
use crate::stages::supervisor::output::Stream;
use crate::stages::supervisor::view;
use crate::state::Phase;
use crate::sys::{On, errno_of, fd, process, retry};
use anyhow::{Result, anyhow, bail};
use chrono::{DateTime, FixedOffset};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Write;
use std::os::fd::AsFd;

pub fn logs(context: &Context, args: LogsArgs) -> Result<i32> {
    let live = Live::open(&context.root, &args.id)?;
    let state = &live.container.state;
    let known = if live.container.record.supervised { view::known(state)? } else { None };
    let Some((supervision, _)) = known else {
        bail!(
            "the output of container {:?} went where its creator had it go: rtx keeps that of supervised ones",
            args.id
        )
    };
    let since = args.since.as_ref().map(|text| parse_moment(text, parse_interval(text).ok())).transpose();
    let since = since.map_err(|why| anyhow!("--since: {why}"))?;
    let settings = &supervision.settings.output;
    let has_times = settings.format != OutputFormat::Plain;
    if !has_times && (since.is_some() || args.timestamps) {
        bail!("the output of container {:?} is kept without times (--output-format plain)", args.id);
    }
    let mut logs = Logs::open(&supervision.settings)?;
    let mut printer = Printer::new(since, args.timestamps);
    // Before the first look: what is printed after it wakes the wait.
    let smaster = supervision.smaster.open().ok();
    if let Some(lines) = args.tail {
        let mut tail = Tail::new(lines);
        logs.read(|entry| {
            tail.push(entry);
            Ok(())
        })?;
        tail.into_entries().try_for_each(|entry| printer.print(entry))?;
    } else {
        logs.read(|entry| printer.print(entry))?;
    }
    printer.flush()?;
    while let (true, Some(smaster)) = (args.follow, &smaster) {
        let mut fds =
            [PollFd::new(logs.as_fd(), PollFlags::POLLIN), PollFd::new(smaster.as_fd(), process::end_events())];
        retry(|| poll(&mut fds, process::end_timeout(PollTimeout::NONE))).on("poll", "the output")?;
        let has_ended = process::has_ended(smaster, fds[1].revents());
        logs.read(|entry| printer.print(entry))?;
        printer.flush()?;
        if logs.has_skipped() {
            report::remark(&format!(
                "rtx logs {}: output is missing here: its file was removed before it was read (see --output-max-files)",
                args.id
            ));
        }
        if has_ended || view::known(state)?.is_none_or(|(supervision, _)| supervision.phase == Phase::Ended) {
            logs.read(|entry| printer.print(entry))?;
            printer.flush()?;
            break;
        }
    }
    Ok(0)
}

/// What is printed at once.
const AT_ONCE: usize = 64 * 1024;

struct Printer {
    since: Option<DateTime<FixedOffset>>,
    timestamps: bool,
    at_start: [bool; 2],
    /// What is to be printed, all of it on one stream: where that changes, what came before has to be out.
    text: Vec<u8>,
    stream: Stream,
}

impl Printer {
    fn new(since: Option<DateTime<FixedOffset>>, timestamps: bool) -> Self {
        Self { since, timestamps, at_start: [true; 2], text: Vec::new(), stream: Stream::Stdout }
    }

    fn print(&mut self, entry: Entry) -> Result<()> {
        if self.since.is_some_and(|since| entry.time.is_some_and(|time| time < since)) {
            return Ok(());
        }
        if entry.stream != self.stream || self.text.len() >= AT_ONCE {
            // With times a record is a line, also where both streams are shown in one place: the rest of this one, if it is
            // still to come, has its own time.
            let at_start = &mut self.at_start[index(self.stream)];
            if self.timestamps && entry.stream != self.stream && !*at_start {
                self.text.push(b'\n');
                *at_start = true;
            }
            self.flush()?;
            self.stream = entry.stream;
        }
        let at_start = &mut self.at_start[index(entry.stream)];
        if let Some(time) = entry.time.filter(|_| self.timestamps && *at_start) {
            self.text.extend(time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true).into_bytes());
            self.text.push(b' ');
        }
        *at_start = entry.text.ends_with(b"\n");
        self.text.extend(entry.text);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = match self.stream {
            Stream::Stdout => fd::print(&self.text).map_err(std::io::Error::from),
            Stream::Stderr => std::io::stderr().write_all(&self.text),
        };
        self.text.clear();
        Ok(written.map_err(|error| errno_of(&error)).on("write", self.stream.name())?)
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}
