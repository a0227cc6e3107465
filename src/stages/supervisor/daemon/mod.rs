//! smaster as a process of its own. One poll(2) waits for everything: the end of init, what the program prints, clients,
//! orphans, and the next moment at which there is something to do.

mod ended;
mod restart;

use super::birth::Inherited;
use super::child::Helper;
use super::clients::{Clients, Wish};
use super::health::Health;
use super::output::{Output, Stream};
use super::streams::{self, CHUNK, Streams};
use super::{Settings, Supervision};
use crate::engine::InitProcess;
use crate::engine::oci::cgroup::OomWatch;
use crate::engine::oci::cgroup::leaf::Leaf;
use crate::rpc::frame::{self, Kind};
use crate::rpc::{Failure, Reply};
use crate::state::StateDir;
use crate::sys::{Errno, Error, On, fd, process, tty};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a command may take to say that it has started what has ended already.
const START_TIMEOUT: Duration = Duration::from_secs(1);

/// Before it is asked again what there is to do, where the kernel had no memory to look.
const PAUSE_WITHOUT_MEMORY: Duration = Duration::from_millis(10);

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
    leaf: Leaf,
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
        leaf: inherited.leaf,
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
            // Without smaster the container would lose its output and its end for want of a moment's memory.
            Err(Errno::ENOMEM) => std::thread::sleep(PAUSE_WITHOUT_MEMORY),
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
                if let Some(console) = self.streams.console() {
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
