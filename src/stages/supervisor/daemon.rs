//! smaster as a process of its own. One poll(2) waits for everything: the end of init, what the program prints, clients,
//! orphans, and the next moment at which there is something to do.

use super::birth::Inherited;
use super::child::Helper;
use super::clients::{Clients, Wish};
use super::health::Health;
use super::output::{Output, Stream};
use super::streams::{self, CHUNK, Streams};
use super::{Settings, Supervision, again};
use crate::config::supervision::RestartPolicy;
use crate::engine::oci::cgroup::OomWatch;
use crate::engine::{ExitStatus, InitProcess, Outcome};
use crate::rpc::frame::{self, Kind};
use crate::rpc::{Failure, Reply};
use crate::stages::lifecycle::Live;
use crate::state::{Busy, End, Phase, StateDir, now};
use crate::sys::{Errno, Error, On, fd, process, socket, tty};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another command may have the lock of a container that has ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command may take to say that it has started what has ended already.
const START_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What smaster is waiting for.
enum Run {
    /// The end of the container.
    Up(InitProcess),
    /// The time of its restart.
    Waiting(Instant),
    /// A restart, and what it has said.
    Making {
        helper: Helper,
        socket: OwnedFd,
        reply: Option<(Reply, Vec<OwnedFd>)>,
    },
    Over,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Init,
    Memory,
    Output(Stream),
    Input,
    Client(usize),
    Helper,
}

struct Smaster {
    root: PathBuf,
    state: StateDir,
    supervision: Supervision,
    run: Run,
    streams: Streams,
    output: Output,
    clients: Clients,
    signals: SignalFd,
    memory: Option<OomWatch>,
    /// Memory ran out in this run.
    out_of_memory: bool,
    up_since: Instant,
    restarts_in_a_row: u32,
    health: Option<Health>,
    buffer: Vec<u8>,
}

pub fn main(root: &Path, id: &str, arguments: &[OsString]) -> i32 {
    let inherited = arguments.first().and_then(|text| serde_json::from_str::<Inherited>(text.to_str()?).ok());
    let Some(inherited) = inherited else { return super::not_a_command() };
    let own = |number| fd::inherited(number).on("open", format_args!("descriptor {number}"));
    let Ok(command) = own(inherited.command) else { return 1 };
    let begun = begin(root, id, inherited).and_then(|smaster| match say(&command, Reply::default()) {
        // Without a command nobody waits for that.
        Err(error) if error.downcast_ref::<Error>().is_none_or(|error| error.errno != Errno::EPIPE) => Err(error),
        _ => Ok(smaster),
    });
    let smaster = match begun {
        Ok(smaster) => smaster,
        // The command removes the container, also where it hears no more than that this process is gone.
        Err(error) => {
            let failure = Some(Failure::from_error(&error.context("begin to watch the container")));
            let _ = say(&command, Reply { failure, ..Reply::default() });
            return 1;
        }
    };
    drop(command);
    i32::from(smaster.watch().is_err())
}

fn say(command: &OwnedFd, reply: Reply) -> Result<()> {
    frame::send(command, Kind::Reply, &reply, &[])
}

fn begin(root: &Path, id: &str, inherited: Inherited) -> Result<Smaster> {
    let own = |number| fd::inherited(number).on("open", format_args!("descriptor {number}"));
    let listener = own(inherited.listener)?;
    let streams = Streams::inherited(inherited.streams)?;
    streams::leave_standard_streams()?;
    let _ = process::set_name(c"rtx-smaster");
    // No file system is kept busy.
    let _ = nix::unistd::chdir("/");
    SigSet::all().thread_block().on("block", "signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::from(nix::sys::signal::Signal::SIGCHLD), flags).on("signalfd", "")?;
    let state = StateDir::open(root, id)?;
    let supervision: Supervision = state.supervision()?.context("nothing is known of smaster")?;
    let Settings { output, launch, health, .. } = &supervision.settings;
    let output = Output::open(output).context("the program's output")?;
    let clients = Clients::new(listener, launch.terminal)?;
    let health = health.clone().map(Health::new);
    let init = state.record()?.init.context("the container has no first process")?;
    let pidfd = process::pidfd_open(init.pid).on("pidfd_open", init.pid)?;
    let mut smaster = Smaster {
        root: root.to_owned(),
        run: Run::Up(InitProcess { pid: init.pid, pidfd }),
        state,
        supervision,
        streams,
        output,
        clients,
        signals,
        memory: None,
        out_of_memory: false,
        up_since: Instant::now(),
        restarts_in_a_row: 0,
        health,
        buffer: vec![0; CHUNK],
    };
    smaster.watch_memory();
    Ok(smaster)
}

impl Smaster {
    fn watch(mut self) -> Result<()> {
        while !matches!(self.run, Run::Over) {
            for (source, events) in self.wait()? {
                self.handle(source, events);
            }
            self.clients.drop_gone();
            self.act_on_time();
        }
        self.finish();
        Ok(())
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>> {
        let mut fds = vec![
            (Source::Signals, PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)),
            (Source::Listener, PollFd::new(self.clients.listener.as_fd(), PollFlags::POLLIN)),
        ];
        for (stream, fd) in self.streams.outputs() {
            fds.push((Source::Output(stream), PollFd::new(fd, PollFlags::POLLIN)));
        }
        if let Some(input) = self.streams.input().filter(|_| !self.streams.takes_input()) {
            fds.push((Source::Input, PollFd::new(input, PollFlags::POLLOUT)));
        }
        if let Some(memory) = &self.memory {
            fds.push((Source::Memory, PollFd::new(memory.as_fd(), memory.events())));
        }
        match &self.run {
            Run::Up(init) => fds.push((Source::Init, PollFd::new(init.pidfd.as_fd(), process::end_events()))),
            Run::Making { socket, reply: None, .. } => {
                fds.push((Source::Helper, PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            }
            _ => {}
        }
        for (index, client) in self.clients.all.iter().enumerate() {
            // Whose typing the program does not read has to wait.
            let wanted = !client.attached || self.streams.takes_input();
            let events = if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push((Source::Client(index), PollFd::new(client.socket.as_fd(), events)));
        }
        let (sources, mut fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
        match poll(&mut fds, process::end_timeout(self.timeout())) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("poll", "the container")?,
        }
        let ready = sources.into_iter().zip(fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())));
        // Of init there may be nothing that poll(2) tells.
        let matters = |(source, events): &(Source, PollFlags)| !events.is_empty() || matches!(source, Source::Init);
        Ok(ready.filter(matters).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let restart = if let Run::Waiting(until) = &self.run { Some(*until) } else { None };
        let check = self.health.as_ref().filter(|_| matches!(self.run, Run::Up(_))).map(Health::deadline);
        let Some(next) = restart.into_iter().chain(check).min() else { return PollTimeout::NONE };
        let left = next.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Listener => self.clients.accept(),
            Source::Output(stream) => self.copy(stream),
            Source::Input => self.streams.flush_input(),
            Source::Memory => self.look_at_memory(),
            Source::Client(index) => self.hear(index),
            Source::Helper => self.hear_helper(),
            Source::Init => {
                if let Run::Up(init) = &self.run
                    && process::has_ended(&init.pidfd, Some(events))
                {
                    let pid = init.pid;
                    self.init_has_ended(pid);
                }
            }
        }
    }

    fn copy(&mut self, stream: Stream) {
        if let Some(length @ 1..) = self.streams.read(stream, &mut self.buffer) {
            let lost = self.output.lost;
            self.output.write(stream, &self.buffer[..length]);
            self.clients.copy(stream, &self.buffer[..length]);
            if lost == 0 && self.output.lost > 0 {
                self.tell("output_lost", json!({ "bytes": self.output.lost }));
            }
        }
    }

    fn hear(&mut self, index: usize) {
        match self.clients.hear(index) {
            Wish::Nothing => {}
            Wish::Type(bytes) => self.streams.feed(&bytes),
            Wish::Resize(rows, columns) => {
                if let Some(console) = &self.streams.console {
                    let _ = tty::set_size(console, rows, columns);
                }
            }
            Wish::CloseInput => self.streams.close_input(),
            Wish::Stop => {
                let _ = self.state.set_to_stop();
                if matches!(self.run, Run::Waiting(_)) {
                    self.run = Run::Over;
                }
            }
        }
    }

    /// Children other than init, which is waited for where its end is dealt with: helpers, and the container's orphans.
    fn reap(&mut self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, flags) {
            let Some(pid) = status.pid() else { return };
            match &self.run {
                Run::Up(init) if init.pid == pid.as_raw() => return,
                // Any other may be the new init, which ended before its maker did.
                Run::Making { helper, .. } if helper.pid != pid.as_raw() => {
                    if !process::child_has_ended(helper.pid) {
                        return;
                    }
                    let helper = helper.pid;
                    let _ = waitpid(Pid::from_raw(helper), None);
                    self.helper_has_ended();
                }
                Run::Making { .. } => {
                    let _ = waitpid(pid, None);
                    self.helper_has_ended();
                }
                _ => {
                    let _ = waitpid(pid, None);
                    self.child_has_ended(pid.as_raw(), code(status));
                }
            }
        }
    }

    fn child_has_ended(&mut self, pid: i32, code: i32) {
        let Some(health) = &mut self.health else { return };
        let before = health.status;
        if health.ended(pid, code) && health.status != before {
            let status = health.status.name();
            self.supervision.health = Some(status.to_owned());
            self.save();
            self.tell("health", json!({ "status": status, "exitCode": code }));
        }
    }

    fn init_has_ended(&mut self, pid: i32) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        let status = match crate::sys::retry(|| waitid(Id::Pid(Pid::from_raw(pid)), flags)) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::Signaled(signal as i32)),
            // A thread of it was the one that poll(2) told of.
            Ok(_) => return,
            Err(_) => None,
        };
        self.look_at_memory();
        // The removal of its cgroup would pass for another shortage.
        self.memory = None;
        self.drain();
        if let Some(health) = &mut self.health {
            health.stop();
        }
        let signal = if let Some(ExitStatus::Signaled(signal)) = status { Some(signal) } else { None };
        let exit_code = if let Some(ExitStatus::Exited(code)) = status { Some(code) } else { None };
        let killed = status.is_some_and(|status| status.code() == 128 + libc::SIGKILL);
        let oom_killed = self.out_of_memory && killed;
        let end = End { exit_code, signal, oom_killed, finished_at: now() };
        self.tell("stopped", &end);
        self.supervision.output_lost = self.output.lost;
        self.supervision.end = Some(end);
        self.decide(status != Some(ExitStatus::Exited(0)));
    }

    fn drain(&mut self) {
        let Self { streams, output, clients, buffer, .. } = self;
        streams.drain(output, buffer, |stream, bytes| clients.copy(stream, bytes));
        *streams = Streams::default();
    }

    /// Whether the container is made anew, and when.
    fn decide(&mut self, failed: bool) {
        let Settings { restart, backoff, .. } = &self.supervision.settings;
        if self.up_since.elapsed() >= Duration::from_millis(backoff.reset_after) {
            self.restarts_in_a_row = 0;
        }
        let wanted = match restart {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure(None) => failed,
            RestartPolicy::OnFailure(Some(most)) => failed && self.restarts_in_a_row < *most,
        };
        // A container that was never started has nothing to be repeated.
        let wanted = wanted && !self.state.is_to_stop() && (self.state.started_at().is_some() || self.is_again());
        if !wanted {
            self.supervision.phase = Phase::Ending;
            self.save();
            self.run = Run::Over;
            return;
        }
        let delay = Duration::from_millis(backoff.delay(self.restarts_in_a_row, chance()));
        self.restarts_in_a_row += 1;
        self.supervision.phase = Phase::Restarting;
        self.save();
        self.tell("restarting", json!({ "delayMs": delay.as_millis() as u64, "inARow": self.restarts_in_a_row }));
        self.run = Run::Waiting(Instant::now() + delay);
    }

    fn is_again(&self) -> bool {
        self.supervision.restarts > 0
    }

    fn act_on_time(&mut self) {
        match &mut self.run {
            Run::Waiting(until) if Instant::now() >= *until => self.restart(),
            Run::Up(_) => {
                if let Some(health) = &mut self.health {
                    let _ = health.act(&self.root, self.state.id());
                }
            }
            _ => {}
        }
    }

    fn restart(&mut self) {
        self.supervision.restarts += 1;
        self.save();
        let begun = self.begin_restart();
        self.run = match begun {
            Ok((helper, socket)) => Run::Making { helper, socket, reply: None },
            Err(error) => return self.restart_has_failed(&format!("{error:#}")),
        };
    }

    fn begin_restart(&mut self) -> Result<(Helper, OwnedFd)> {
        let settings = &self.supervision.settings;
        let (streams, ends) = streams::make(settings.launch.terminal, settings.stdin)?;
        streams.do_not_wait()?;
        let (ours, theirs) = socket::pair().on("socketpair", "")?;
        let helper = Helper::start::<&str>("again", &self.root, self.state.id(), &[], Some((theirs, ends)))
            .on("start", "a restart")?;
        self.streams = streams;
        Ok((helper, ours))
    }

    fn hear_helper(&mut self) {
        let Run::Making { socket, reply, .. } = &mut self.run else { return };
        *reply = match frame::receive(&*socket) {
            Ok(Some(frame)) => frame.parse().ok().map(|reply| (reply, frame.fds)),
            _ => None,
        };
        // At end-of-file its end is near; until then there is nothing more to hear.
        if reply.is_none() {
            *reply = Some((Reply::default(), Vec::new()));
        }
    }

    fn helper_has_ended(&mut self) {
        if matches!(self.run, Run::Making { reply: None, .. }) {
            self.hear_helper();
        }
        let Run::Making { reply, .. } = std::mem::replace(&mut self.run, Run::Over) else { return };
        let (reply, mut fds) = reply.unwrap_or_default();
        let (Some(pid), None) = (reply.moved_to, &reply.failure) else {
            let why = reply.failure.map_or_else(|| "the restart was killed".to_owned(), |failure| failure.message);
            return self.restart_has_failed(&why);
        };
        let Ok(pidfd) = process::pidfd_open(pid) else {
            return self.restart_has_failed("its first process cannot be watched");
        };
        self.streams.console = fds.pop();
        let _ = self.streams.do_not_wait();
        self.run = Run::Up(InitProcess { pid, pidfd });
        self.up_since = Instant::now();
        self.out_of_memory = false;
        self.watch_memory();
        self.health = self.supervision.settings.health.clone().map(Health::new);
        self.supervision.health = self.health.as_ref().map(|health| health.status.name().to_owned());
        self.supervision.phase = Phase::Watching;
        self.save();
        self.reap();
    }

    fn restart_has_failed(&mut self, why: &str) {
        self.drain();
        if why == again::STOPPED {
            self.supervision.phase = Phase::Ending;
            self.save();
            self.run = Run::Over;
            return;
        }
        self.tell("failed_to_start", json!({ "error": why }));
        self.up_since = Instant::now();
        self.decide(true);
    }

    fn watch_memory(&mut self) {
        let live = Live::open(&self.root, self.state.id());
        self.memory = live.and_then(|live| live.engine.out_of_memory_events(&live.container)).ok();
    }

    fn look_at_memory(&mut self) {
        let Some(watch) = &mut self.memory else { return };
        match watch.acknowledge() {
            Ok(true) => {
                // cgroup v1 tells of its removal in the same way.
                let live = Live::open(&self.root, self.state.id());
                if live.is_ok_and(|live| live.engine.out_of_memory_events(&live.container).is_ok()) {
                    self.out_of_memory = true;
                    self.tell("oom", json!({}));
                } else {
                    self.memory = None;
                }
            }
            Ok(false) => {}
            Err(_) => self.memory = None,
        }
    }

    /// The container has ended for good: what it held goes, its state stays until it is deleted.
    fn finish(&mut self) {
        self.memory = None;
        let locked = self.lock().and_then(Live::with);
        let cleaned = locked.and_then(|mut live| {
            live.engine.cleanup_container(Outcome::Deleted { container: &live.container, force: true })?;
            self.supervision.cleaned = true;
            self.supervision.phase = Phase::Ended;
            self.state.write_supervision(&self.supervision)
        });
        if let Err(error) = cleaned {
            self.tell("cleanup_failed", json!({ "error": format!("{error:#}") }));
            self.supervision.phase = Phase::Ended;
            self.save();
        }
        if let Some(end) = &self.supervision.end {
            self.clients.tell_end(end);
        }
    }

    /// The `start` of a program that ended at once may still have the lock; a command that deletes the container cleans up
    /// itself.
    fn lock(&self) -> Result<StateDir> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match StateDir::open_locked_within(&self.root, self.state.id(), LOOK_AGAIN) {
                Err(error) if error.is::<Busy>() && !self.state.is_being_deleted() && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    /// A full disk costs what would have been written, and nothing else.
    fn save(&self) {
        let _ = self.state.write_supervision(&self.supervision);
    }

    fn tell(&self, kind: &str, data: impl serde::Serialize) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.state.is_being_started() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.state.add_event(kind, &data);
    }
}

fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 255,
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
