//! Supervised containers for programs that embed rtx. Such a program asks [`crate::called_by_itself`] first of all, because
//! rtx executes the program that it is part of.

use crate::stages::deletion;
use crate::stages::ending;
use crate::stages::lifecycle::{self, Live};
use crate::stages::supervisor::logs::Logs;
use crate::stages::supervisor::output::Stream;
use crate::stages::supervisor::view::{self, View};
use crate::stages::supervisor::wait::{self, Condition, Waited};
use crate::state::{Event, Events, Status};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The containers of one state directory.
///
/// ```no_run
/// fn main() -> anyhow::Result<()> {
///     let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
///     if let Some(code) = rtx::called_by_itself(&arguments) {
///         std::process::exit(code);
///     }
///     let supervisor = rtx::Supervisor::new("/run/my-jobs");
///     let container = supervisor.container("job-1").bundle("/srv/bundles/job").restart("on-failure:3").create()?;
///     container.start()?;
///     println!("it ended with {}", container.wait(None)?);
///     for event in container.events(0)?.until_deleted(false) {
///         let event = event?;
///         println!("{} {} {}", event.seq, event.kind, event.data);
///     }
///     container.delete(false)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Supervisor {
    root: PathBuf,
}

impl Supervisor {
    /// The directory is made when the first container is.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A container to be created.
    pub fn container(&self, id: &str) -> Builder {
        Builder { root: self.root.clone(), id: id.to_owned(), bundle: PathBuf::from("."), flags: Vec::new() }
    }

    /// A container that is there.
    ///
    /// # Errors
    /// [`crate::state::NotFound`]; where it is not supervised.
    pub fn open(&self, id: &str) -> Result<Container> {
        let live = Live::open(&self.root, id)?;
        if !live.container.record.supervised {
            bail!("container {id:?} is not supervised");
        }
        Ok(Container { root: self.root.clone(), id: id.to_owned() })
    }

    /// The ids of all containers, supervised or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ids(&self) -> Result<Vec<String>> {
        crate::state::list(&self.root)
    }
}

/// What a container is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    root: PathBuf,
    id: String,
    bundle: PathBuf,
    flags: Vec<OsString>,
}

impl Builder {
    /// The working directory, if nothing is said.
    #[must_use]
    pub fn bundle(mut self, directory: impl Into<PathBuf>) -> Self {
        self.bundle = directory.into();
        self
    }

    /// `no`, `on-failure`, `on-failure:N` or `always`.
    #[must_use]
    pub fn restart(self, policy: &str) -> Self {
        self.flag("--restart", policy)
    }

    /// `k8s-file`, `json-lines`, `plain` or `none`.
    #[must_use]
    pub fn output_format(self, format: &str) -> Self {
        self.flag("--output-format", format)
    }

    /// Where the program's output is kept, when the container is gone too.
    #[must_use]
    pub fn output_file(self, path: impl AsRef<Path>) -> Self {
        self.flag("--output-file", path.as_ref())
    }

    /// After so many bytes the output goes on in a new file; of all together `files` are kept.
    #[must_use]
    pub fn output_limit(self, bytes: u64, files: u32) -> Self {
        self.flag("--output-max-size", bytes.to_string()).flag("--output-max-files", files.to_string())
    }

    /// Standard input stays open for those who attach.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.flags.push("--interactive".into());
        self
    }

    fn flag(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.flags.extend([name.into(), value.into()]);
        self
    }

    /// Creates the container, by this program as it calls itself: smaster comes of a process with one thread.
    ///
    /// # Errors
    /// Whatever failed; nothing of the container is left then.
    pub fn create(self) -> Result<Container> {
        let Self { root, id, bundle, flags } = self;
        let mut command = Command::new("/proc/self/exe");
        command.args(["smaster", "call"]).arg(&root).arg(&id).arg("create").arg("--supervise").args(flags);
        command.arg("--bundle").arg(bundle).arg(&id);
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().context("execute this program")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(Container { root, id })
    }
}

/// A supervised container. It outlives this value and this program.
#[derive(Debug, Clone)]
pub struct Container {
    root: PathBuf,
    id: String,
}

impl Container {
    pub fn id(&self) -> &str {
        &self.id
    }

    fn live(&self) -> Result<Live> {
        Live::open(&self.root, &self.id)
    }

    /// Lets the program run.
    ///
    /// # Errors
    /// Why it could not be executed; where the container is in another state.
    pub fn start(&self) -> Result<()> {
        lifecycle::start(&self.root, &self.id, None)
    }

    /// # Errors
    /// Where the container is gone.
    pub fn status(&self) -> Result<Status> {
        self.live()?.status()
    }

    /// Everything else that is known of it.
    ///
    /// # Errors
    /// Where the container is gone.
    pub fn state(&self) -> Result<View> {
        let live = self.live()?;
        View::of(&live.container.state, &live.container.record)?.context("the container is not supervised")
    }

    /// Waits until the container has ended for good: its exit code, or 128 and the signal's number.
    ///
    /// # Errors
    /// Where that takes longer than `patience`; where nobody knows how it ended.
    pub fn wait(&self, patience: Option<Duration>) -> Result<i32> {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        match wait::wait(&self.root, &self.id, Condition::Stopped, deadline)? {
            Waited::Ended(code) => Ok(code),
            Waited::Met => bail!("nobody saw how container {:?} ended", self.id),
            Waited::TimedOut => bail!("container {:?} has not ended in time", self.id),
        }
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// Where there is none.
    pub fn kill(&self, signal: i32) -> Result<()> {
        lifecycle::kill(&self.root, &self.id, signal, false)
    }

    /// Ends it for good: SIGTERM, and SIGKILL after `patience`.
    ///
    /// # Errors
    /// Where even that does not end it.
    pub fn stop(&self, patience: Duration) -> Result<()> {
        ending::stop(&self.root, &self.id, libc::SIGTERM, patience)
    }

    /// Runs another program in it, with this program's standard streams, and returns its exit code.
    ///
    /// # Errors
    /// Where this program cannot be executed; 255 is what a failed `exec` returns.
    pub fn exec(&self, words: &[&str]) -> Result<i32> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["smaster", "call"]).arg(&self.root).arg(&self.id).arg("exec").arg(&self.id).args(words);
        let status = command.status().context("execute this program")?;
        Ok(status.code().unwrap_or(255))
    }

    /// What its program has printed by now, piece by piece.
    ///
    /// # Errors
    /// Where nothing of it is kept; the error of `each`.
    pub fn output(&self, mut each: impl FnMut(Stream, &[u8]) -> Result<()>) -> Result<()> {
        let live = self.live()?;
        let (supervision, _) = view::known(&live.container.state)?.context("the container is not supervised")?;
        Logs::open(&supervision.settings)?.read(|entry| each(entry.stream, &entry.text))
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pause(&self) -> Result<()> {
        lifecycle::pause(&self.root, &self.id)
    }

    /// # Errors
    /// Where it is not paused.
    pub fn resume(&self) -> Result<()> {
        lifecycle::resume(&self.root, &self.id)
    }

    /// What has happened to it after event number `after`, and what happens.
    ///
    /// # Errors
    /// Where the container is gone.
    pub fn events(&self, after: u64) -> Result<EventStream> {
        let events = self.live()?.container.state.events(after)?;
        Ok(EventStream { events, found: VecDeque::new(), waits: true, over: false })
    }

    /// Removes it; with `force` a running one as well.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn delete(&self, force: bool) -> Result<()> {
        deletion::delete(&self.root, &self.id, force).map(drop)
    }
}

/// The events of a container, in order. Ends with the container's deletion.
pub struct EventStream {
    events: Events,
    found: VecDeque<Event>,
    waits: bool,
    over: bool,
}

impl EventStream {
    /// Whether to wait for those that are still to come; `false` ends with the last that is there.
    #[must_use]
    pub fn until_deleted(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }

    fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.found.pop_front() {
                self.over = event.kind == "deleted";
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            // Asked first: what was written before it was removed is still read.
            let is_last = self.events.is_over() || !self.waits;
            self.found.extend(self.events.read()?.into_iter().map(|(event, _)| event));
            if self.found.is_empty() && is_last {
                return Ok(None);
            }
            if self.found.is_empty() {
                let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
                crate::sys::retry(|| poll(&mut fds, PollTimeout::NONE))?;
            }
        }
    }
}

impl Iterator for EventStream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

/// `rtx smaster call ROOT ID WORDS...`: a command of rtx in a process of its own.
// As stage2: the stack of a waiting init would have room for it.
#[inline(never)]
pub(crate) fn call(root: &Path, words: &[OsString]) -> i32 {
    crate::sys::process::learn_of_ends();
    let mut arguments: Vec<OsString> = vec!["rtx".into(), "--root".into(), root.into()];
    arguments.extend(words.iter().cloned());
    crate::cli::main(arguments)
}
