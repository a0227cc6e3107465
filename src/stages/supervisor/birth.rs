//! From a command to a smaster of its own: fork, make the container, execute anew.

use super::settings::{SavedLaunch, Settings};
use super::streams::{self, Streams};
use super::{Supervision, output};
use crate::config::supervision::OutputFormat;
use crate::engine::oci::cgroup::leaf::Leaf;
use crate::engine::{Container, live};
use crate::rpc::frame::{self, Kind};
use crate::rpc::{Failure, Reply};
use crate::stages::stage1::Prepared;
use crate::stages::{deletion, sealed, smaster};
use crate::state::{Liveness, Phase, ProcessIdentity, StateDir};
use crate::sys::{On, errno_of, fd, process, socket};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::AtFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

/// How long another command may have the lock of a container that has to go.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A supervised container that waits to be started.
pub struct Born {
    /// Of smaster.
    pub pid: i32,
    /// Of the container's first process.
    pub init: i32,
    pub warnings: Vec<String>,
}

/// The descriptors that smaster finds open, by number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Inherited {
    /// To the command that waits for smaster to be there.
    pub command: i32,
    pub listener: i32,
    /// As [`Streams::numbers`].
    pub streams: [Option<i32>; 4],
    /// The cgroups that smaster is in.
    pub leaf: Leaf,
}

/// Makes the container and its smaster. This process must have one thread.
///
/// # Errors
/// Whatever failed; nothing of the container is left then.
pub fn create(prepared: Prepared, settings: Settings) -> Result<Born> {
    let (ours, theirs) = socket::pair().on("socketpair", "")?;
    let command = std::process::id();
    match process::fork().on("fork", "smaster")? {
        Some(child) => {
            let (root, id) = (prepared.launch.root.clone(), prepared.launch.id.clone());
            drop((theirs, prepared));
            let mut born = Born { pid: child, init: 0, warnings: Vec::new() };
            match hear(&ours, &mut born) {
                Ok(()) => Ok(born),
                Err(error) => {
                    drop(ours);
                    // Who tells of a failure has undone what it made.
                    if error.is::<Failure>() && born.init == 0 {
                        let _ = process::wait(child);
                    } else {
                        remove_unheard(&root, &id, child);
                    }
                    Err(error)
                }
            }
        }
        None => {
            drop(ours);
            let Err(error) = become_smaster(prepared, settings, &theirs, command);
            let failure = Some(Failure::from_error(&error));
            let _ = frame::send(&theirs, Kind::Reply, &Reply { failure, ..Reply::default() }, &[]);
            std::process::exit(1)
        }
    }
}

/// Ends a smaster that has not come to say that it watches, or could not be heard to say so, and removes what it has made: what
/// was never completed is nobody's, and a complete container is its own as long as no other smaster is known. Until it is
/// waited for its pid can be no other's.
fn remove_unheard(root: &Path, id: &str, smaster: i32) {
    let _ = nix::sys::signal::kill(Pid::from_raw(smaster), Signal::SIGKILL);
    let _ = process::wait_and_leave(smaster);
    let found = StateDir::open_locked_within(root, id, LOCK_TIMEOUT);
    let is_left = found.as_ref().is_ok_and(|state| state.is_abandoned() || is_of(state, smaster).unwrap_or(false));
    let _ = process::wait(smaster);
    if let Some(state) = found.ok().filter(|_| is_left) {
        let _ = deletion::delete_locked(root, state, true, None);
    }
}

/// Whether a container is a smaster's that has ended and was not waited for, or of one that had not yet written down that it is.
fn is_of(state: &StateDir, smaster: i32) -> Result<bool> {
    Ok(match state.supervision::<Settings>()? {
        Some(Supervision { smaster: known, .. }) => known.pid == smaster && known.liveness()? == Liveness::Zombie,
        None => state.record()?.supervised,
    })
}

/// The command's side: waits until smaster watches.
fn hear(smaster: &OwnedFd, born: &mut Born) -> Result<()> {
    let pid = born.pid;
    loop {
        let reply: Reply = match frame::receive(smaster)? {
            Some(frame) => frame.parse()?,
            None => {
                let how = process::wait_and_leave(pid).on("wait for", "smaster")?;
                bail!("smaster has ended before it watched the container: {how}");
            }
        };
        born.warnings.extend(reply.warnings);
        if let Some(failure) = reply.failure {
            return Err(anyhow!(failure));
        }
        match reply.moved_to {
            Some(init) => born.init = init,
            None => return Ok(()),
        }
    }
}

fn become_smaster(
    prepared: Prepared,
    mut settings: Settings,
    command: &OwnedFd,
    command_pid: u32,
) -> Result<Infallible> {
    // Until the container is complete it goes with the command, as it would if that made it itself.
    process::set_parent_death_signal(libc::SIGKILL).on("prctl", "PR_SET_PDEATHSIG")?;
    if nix::unistd::getppid().as_raw() as u32 != command_pid {
        bail!("the command has ended");
    }
    nix::unistd::setsid().on("setsid", "")?;
    process::set_child_subreaper(true).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
    settings.launch = SavedLaunch::of(&prepared.launch, &*prepared.engine);
    let root = prepared.launch.root.clone();
    let (mut streams, ends) = streams::make(settings.launch.terminal, settings.stdin)?;
    ends.adopt()?;
    let mut created = smaster::create(prepared)?;
    streams.set_console(created.console.take());
    let outcome = hand_over(&mut created, settings, streams, command, root.as_os_str());
    let Err(error) = outcome;
    let smaster::Created { container, engine, stage2, .. } = created;
    drop(stage2);
    let _ = deletion::destroy(container, engine);
    Err(error)
}

/// Writes down what smaster has to know, and becomes smaster.
fn hand_over(
    created: &mut smaster::Created,
    settings: Settings,
    streams: Streams,
    command: &OwnedFd,
    root: &OsStr,
) -> Result<Infallible> {
    let Container { state, record, .. } = &created.container;
    let mut settings = settings;
    if settings.output.file.as_os_str().is_empty() && settings.output.format != OutputFormat::None {
        settings.output.file = std::path::Path::new(root).join(state.id()).join("output");
        std::fs::create_dir(&settings.output.file).map_err(|error| errno_of(&error)).on("mkdir", "output")?;
        settings.output.file.push("log");
    }
    // Whoever asked for a file that cannot be written hears of it now.
    output::Output::open(&settings.output).context("the program's output")?;
    settings.begin = output::begin(&settings.output);
    let pid = std::process::id() as i32;
    let supervision = Supervision {
        version: Supervision::VERSION,
        smaster: ProcessIdentity::of(pid).on("look at", "smaster")?,
        phase: Phase::Watching,
        created_at: record.created.clone(),
        end: None,
        restarts: 0,
        health: settings.health.as_ref().map(|_| super::health::Status::Starting.name().to_owned()),
        output_lost: 0,
        cleaned: false,
        settings,
    };
    state.write_supervision(&supervision)?;
    let listener = state.make_supervisor_socket()?;
    let init = record.init.as_ref().map_or(0, |init| init.pid);
    let bundle = &record.bundle;
    state.add_event("created", &serde_json::json!({ "bundle": bundle, "engine": record.engine, "pid": init }))?;
    let told = Reply { warnings: std::mem::take(&mut created.warnings), moved_to: Some(init), ..Reply::default() };
    frame::send(command, Kind::Reply, &told, &[])?;

    let executable = sealed::open_executable()?.fd;
    let inherited = Inherited {
        command: command.as_raw_fd(),
        listener: listener.as_raw_fd(),
        streams: streams.numbers(),
        leaf: live::enter_leaf(&created.container),
    };
    for number in inherited.streams.into_iter().flatten().chain([inherited.command, inherited.listener]) {
        fd::keep_number_on_exec(number);
    }
    let words = [b"rtx".as_slice(), b"smaster", b"watch", root.as_bytes(), state.id().as_bytes()];
    let mut arguments = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    arguments.push(CString::new(serde_json::to_vec(&inherited)?)?);
    // For hooks and restarts; what was meant for the command alone stays behind.
    let environment = std::env::vars_os()
        .filter(|(name, _)| {
            !matches!(name.to_str(), Some("LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "NOTIFY_SOCKET"))
        })
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        });
    let environment: Vec<CString> = environment.collect();
    process::set_parent_death_signal(0).on("prctl", "PR_SET_PDEATHSIG")?;
    let executed = nix::unistd::execveat(executable.as_fd(), c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH);
    inherited.leaf.leave();
    Ok(executed.on("execute", "smaster")?)
}
