//! The foreground mode: this command stays until the process has ended, passes signals on, and relays the terminal.

use super::notify::NotifyProxy;
use super::relay::{Relay, Terminal};
use super::smaster::{self, Created};
use super::stage1::Prepared;
use super::{deletion, lifecycle};
use crate::engine::{ExitStatus, InitProcess};
use crate::rpc::client::Stage2Died;
use crate::sys::process::{self, Child};
use crate::sys::{Errno, On, fd};
use crate::trace;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The signals that this command gets, held back from the moment it creates something until it can pass them on.
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// # Errors
    /// The kernel's.
    pub fn catch() -> Result<Self> {
        let mut set = SigSet::all();
        // A fault of this command is its own, and a broken pipe shows as an error.
        for signal in
            [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGPIPE]
        {
            set.remove(signal);
        }
        set.thread_block().on("block", "signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { fd: SignalFd::with_flags(&set, flags).on("signalfd", "")? })
    }

    /// The next signal that has come, if one has.
    pub fn next(&self) -> Option<i32> {
        self.fd.read_signal().ok().flatten().map(|signal| signal.ssi_signo as i32)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What `run` wants beside the container.
pub struct RunOptions<'a> {
    /// Does not become the parent of the container's orphans.
    pub no_subreaper: bool,
    /// Leaves the container when it has ended.
    pub keep: bool,
    /// Called when the container is created, with init's pid. Its program may have begun, and is ended where this fails.
    pub created: &'a mut dyn FnMut(&Created) -> Result<()>,
}

/// A container that has run to its end.
pub struct Ended {
    pub status: ExitStatus,
    /// What the poststop hooks failed with, which changes nothing.
    pub failed_hooks: Vec<String>,
}

/// Creates a container, starts it, waits for its end and removes it.
///
/// # Errors
/// Whatever failed; the container is removed then as well.
#[inline(never)]
pub fn run(prepared: Prepared, options: RunOptions<'_>) -> Result<Ended> {
    let terminal = match prepared.launch.oci_config.process.terminal {
        true => Some(Terminal::find()?),
        false => None,
    };
    if !options.no_subreaper {
        process::set_child_subreaper(true).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
    }
    let signals = Signals::catch()?;
    let notify_socket = prepared.launch.options.notify_socket.clone();
    let mut created = smaster::create(prepared)?;
    let outcome = started(&mut created, options.created, terminal, &signals, notify_socket.as_deref());
    let Created { container, engine, stage2, .. } = created;
    // Init is dead by now, or has to be.
    drop(stage2);
    if options.keep && outcome.is_ok() {
        return Ok(Ended { status: outcome?, failed_hooks: Vec::new() });
    }
    let removed = deletion::destroy_unlocked(container, engine);
    let status = outcome?;
    let failed_hooks = removed.context("remove the container after its end")?;
    Ok(Ended { status, failed_hooks })
}

fn started(
    created: &mut Created,
    announce: &mut dyn FnMut(&Created) -> Result<()>,
    terminal: Option<Terminal>,
    signals: &Signals,
    notify_socket: Option<&OsStr>,
) -> Result<ExitStatus> {
    announce(created)?;
    let notify = NotifyProxy::bind(&created.container.state, notify_socket)?;
    created.container.state.unlock();
    let mut relay = relay(created.console.take(), terminal)?;
    match lifecycle::start_created(&mut created.container, &mut *created.engine, created.stage2.as_mut()) {
        // It was seen to run, and whoever has ended it then has ended what this command runs.
        Err(error) if error.is::<Stage2Died>() && created.stage2.as_ref().is_some_and(|stage2| stage2.awaits_start) => {
        }
        other => other?,
    }
    let Some(stage2) = &mut created.stage2 else {
        return created.engine.monitor_container(&created.container, None);
    };
    watch(&stage2.init, relay.as_mut(), signals, notify)?;
    let status = created.engine.monitor_container(&created.container, Some(&stage2.init))?;
    stage2.release();
    Ok(status)
}

/// Passes signals on, relays the terminal and tells the service manager that the process is ready, until it has ended. It
/// is not reaped.
///
/// # Errors
/// The kernel's.
pub fn watch(
    init: &InitProcess,
    mut relay: Option<&mut Relay>,
    signals: &Signals,
    mut notify: Option<NotifyProxy>,
) -> Result<()> {
    let [stdin, ..] = fd::standard_streams();
    let _mark = trace::span("wait for the end");
    let _paused = trace::paused();
    loop {
        let mut fds = vec![
            PollFd::new(init.pidfd.as_fd(), process::end_events()),
            PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(relay) = &relay {
            fds.extend(relay.poll_fds(stdin));
        }
        fds.extend(notify.iter().map(|notify| PollFd::new(notify.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, process::end_timeout(PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("poll", "the container")?,
        }
        let mut ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        drop(fds);
        // For as long as the service manager knows of this process, this one is the service's main process.
        if let Some(proxy) = &notify
            && ready.pop().is_some_and(|ready| !ready.is_empty())
            // A service manager that has gone is no reason to end the service.
            && proxy.pass_on(std::process::id() as i32).unwrap_or(true)
        {
            notify = None;
        }
        // Before the signals are read, the first of which is often that of this end.
        if process::has_ended(&init.pidfd, Some(ready[0])) {
            if let Some(relay) = relay {
                relay.drain(signals);
            }
            return Ok(());
        }
        if ready[1].contains(PollFlags::POLLIN) {
            pass_signals(init, relay.as_deref(), signals);
        }
        if let Some(terminal) = &mut relay
            && !terminal.pump(&ready[2..])?
        {
            relay = None;
        }
    }
}

fn pass_signals(init: &InitProcess, relay: Option<&Relay>, signals: &Signals) {
    while let Some(signal) = signals.next() {
        match signal {
            libc::SIGCHLD => reap_orphans(init),
            libc::SIGWINCH => {
                if let Some(relay) = relay {
                    relay.resize();
                }
            }
            signal => {
                let _ = process::pidfd_signal(&init.pidfd, signal);
            }
        }
    }
}

/// As their subreaper this command gets the orphans of the container's processes; init itself is left for later.
fn reap_orphans(init: &InitProcess) {
    while let Ok(Some((pid, _))) = process::ended(Child::Any) {
        if pid == init.pid {
            return;
        }
        let _ = process::try_wait(pid);
    }
}

/// The relay between both terminals, if there are both.
///
/// # Errors
/// Where the caller's cannot be made raw.
pub fn relay(master: Option<OwnedFd>, terminal: Option<Terminal>) -> Result<Option<Relay>> {
    match (master, terminal) {
        (Some(master), Some(terminal)) => Relay::new(master, terminal).map(Some),
        _ => Ok(None),
    }
}
