//! A picture that needs nothing but itself: a band for each process with its steps and system calls above a common
//! axis, and what the calls of each cost together. What is pointed at tells its name and duration.

use super::Timeline;
use super::processes::{NamedCall, Process};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1400.0;
const MARGIN: f64 = 20.0;
const ROW: f64 = 18.0;
/// What is left of the time in which the container's own program runs.
const GAP: f64 = 60.0;
/// Calls in the table of each process.
const TOP: usize = 8;

/// The wait that is not rtx's own time.
const WAIT: &str = "wait for the end";

/// From nanoseconds to a place in the picture.
struct Axis {
    end: u64,
    /// A time that is drawn narrow.
    wait: Option<(u64, u64)>,
    /// Pixels for a nanosecond elsewhere.
    scale: f64,
}

impl Axis {
    fn new(processes: &[Process]) -> Self {
        let steps = || processes.iter().flat_map(|process| &process.steps);
        let ends = processes.iter().flat_map(|process| &process.calls).map(|call| call.end);
        let end = steps().map(|step| step.end).chain(ends).max().unwrap_or(1).max(1);
        let wait = steps().find(|step| step.name == WAIT).map(|step| (step.start, step.end));
        // A wait that is short is shown as it is.
        let wait = wait.filter(|(start, stop)| (stop - start) * 10 > end);
        let scale = match wait {
            Some((start, stop)) => (WIDTH - 2.0 * MARGIN - GAP) / (end - (stop - start)).max(1) as f64,
            None => (WIDTH - 2.0 * MARGIN) / end as f64,
        };
        Self { end, wait, scale }
    }

    fn x(&self, time: u64) -> f64 {
        let plain = |time: u64| time as f64 * self.scale;
        MARGIN
            + match self.wait {
                Some((start, stop)) if time >= stop => plain(time - (stop - start)) + GAP,
                Some((start, stop)) if time > start => {
                    plain(start) + GAP * (time - start) as f64 / (stop - start) as f64
                }
                _ => plain(time),
            }
    }
}

/// The whole file.
pub fn draw(timeline: &Timeline) -> String {
    let axis = Axis::new(&timeline.processes);
    let mut body = String::new();
    let mut y = 58.0;
    for process in &timeline.processes {
        y = band(&mut body, &axis, process, y);
    }
    ruler(&mut body, &axis, y);
    y += 40.0;
    for process in timeline.processes.iter().filter(|process| !process.calls.is_empty()) {
        y = table(&mut body, process, y);
    }
    let total = match axis.wait {
        Some((start, stop)) => {
            format!("{} without the container's own {}", ms(axis.end - (stop - start)), ms(stop - start))
        }
        None => ms(axis.end),
    };
    let missing =
        timeline.missing.as_ref().map(|missing| format!("; no system calls of {missing}")).unwrap_or_default();
    let title = format!(
        "{}: {total}; before that {} of CPU for the start of the program and its command line{missing}",
        timeline.command,
        ms(timeline.before)
    );
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut picture, MARGIN, 20.0, &title);
    let mut x = MARGIN;
    for (kind, colour) in KINDS {
        rectangle(&mut picture, (x, 30.0, 10.0, 10.0), colour, kind);
        text(&mut picture, x + 14.0, 39.0, kind);
        x += 30.0 + 7.0 * kind.len() as f64;
    }
    picture + &body + "</svg>\n"
}

fn band(out: &mut String, axis: &Axis, process: &Process, y: f64) -> f64 {
    text(out, MARGIN, y + 12.0, &format!("{} (pid {})", process.name, process.pid));
    let top = y + ROW;
    let depth = process.steps.iter().map(|step| step.depth + 1).max().unwrap_or(0);
    for step in &process.steps {
        let (x, width) = (axis.x(step.start), axis.x(step.end) - axis.x(step.start));
        let place = (x, top + step.depth as f64 * ROW, width.max(0.5), ROW - 2.0);
        let colour = if step.name == WAIT { "#eee" } else { ["#cfe3f5", "#b5d3ee"][step.depth % 2] };
        rectangle(out, place, colour, &format!("{}: {}", step.name, ms(step.end - step.start)));
        // Seven pixels are about a letter.
        if width > 7.0 * step.name.len() as f64 {
            text(out, x + 3.0, place.1 + 12.0, &step.name);
        }
    }
    let row = top + depth as f64 * ROW;
    for call in &process.calls {
        let (x, width) = (axis.x(call.start), axis.x(call.end) - axis.x(call.start));
        let result = call.result.map_or_else(|| "no return".to_owned(), |result| format!("= {result}"));
        let about = format!("{} {result}: {}", call.name, ms(call.end - call.start));
        rectangle(out, (x, row, width.max(0.4), ROW), colour(&call.name), &about);
    }
    row + ROW + 12.0
}

/// A line with the milliseconds.
fn ruler(out: &mut String, axis: &Axis, y: f64) {
    let own = axis.end - axis.wait.map_or(0, |(start, stop)| stop - start);
    let steps =
        [10_000u64, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 100_000_000];
    let step = steps.into_iter().find(|step| own / step <= 20).unwrap_or(1_000_000_000);
    let mut time = 0;
    while time <= axis.end {
        if axis.wait.is_none_or(|(start, stop)| time <= start || time >= stop) {
            let x = axis.x(time);
            let _ = writeln!(out, "<path d=\"M{x:.1} {y:.1}v5\" stroke=\"#888\"/>");
            text(out, x, y + 17.0, &ms(time));
            time += step;
        } else {
            // To the first mark after the wait, however long that was.
            time = axis.wait.map_or(axis.end, |(_, stop)| stop.div_ceil(step) * step);
        }
    }
}

/// The calls that cost most, together.
fn table(out: &mut String, process: &Process, y: f64) -> f64 {
    let mut sums: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for NamedCall { name, start, end, .. } in &process.calls {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + end - start, sum.1 + 1);
    }
    let all: u64 = sums.values().map(|(time, _)| time).sum();
    text(out, MARGIN, y, &format!("{}: {} system calls, {} in them", process.name, process.calls.len(), ms(all)));
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
    let line: Vec<String> =
        sums.iter().take(TOP).map(|(name, (time, count))| format!("{name} × {count}: {}", ms(*time))).collect();
    text(out, MARGIN, y + 15.0, &line.join("   "));
    y + 40.0
}

const KINDS: [(&str, &str); 6] = [
    ("mounts", "#e07b39"),
    ("processes", "#c0392b"),
    ("identity", "#8e44ad"),
    ("memory", "#7f8c8d"),
    ("messages and waiting", "#f1c40f"),
    ("files", "#27ae60"),
];

fn colour(call: &str) -> &'static str {
    let kind = match call {
        "mount" | "umount2" | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "move_mount" | "open_tree"
        | "open_tree_attr" | "mount_setattr" | "pivot_root" | "chroot" => 0,
        "clone" | "clone3" | "vfork" | "fork" | "execve" | "execveat" | "exit" | "exit_group" | "wait4" | "waitid"
        | "kill" | "pidfd_open" | "pidfd_send_signal" | "setns" | "unshare" => 1,
        "prctl" | "capset" | "capget" | "seccomp" | "setuid" | "setgid" | "setresuid" | "setresgid" | "setgroups"
        | "keyctl" | "setsid" | "umask" => 2,
        "mmap" | "munmap" | "mprotect" | "mremap" | "madvise" | "brk" => 3,
        "sendmsg" | "recvmsg" | "sendto" | "recvfrom" | "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "accept"
        | "accept4" | "connect" | "socketpair" | "futex" => 4,
        _ => 5,
    };
    KINDS[kind].1
}

fn rectangle(out: &mut String, (x, y, width, height): (f64, f64, f64, f64), colour: &str, about: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
        escape(about)
    );
}

fn text(out: &mut String, x: f64, y: f64, what: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(what));
}

fn ms(nanoseconds: u64) -> String {
    format!("{:.3} ms", nanoseconds as f64 / 1e6)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
