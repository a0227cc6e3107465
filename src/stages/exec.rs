//! `exec`: the same stages for a process that joins a container: it is decided, made, told how to join, and becomes
//! its program at once, without a start barrier.

use super::foreground::{self, Signals};
use super::lifecycle::Live;
use super::relay::Terminal;
use super::spawn::Stage2;
use super::stage1::check_console_socket;
use crate::config::envelope::{Common, Envelope, VERSION};
use crate::engine::oci::{seccomp_listener, wait_for};
use crate::engine::{ExecConfig, Execution, ExitStatus, InitProcess};
use crate::rpc::client::{Stage2Died, Stage2Ended};
use crate::state::{ProcessIdentity, Record, Status};
use crate::sys::stat::Stat;
use crate::sys::{On, process};
use crate::trace;
use anyhow::{Result, bail};
use serde_json::value::RawValue;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A process that has joined.
pub struct Joined<'a> {
    pub init: &'a InitProcess,
    pub console: Option<&'a OwnedFd>,
    pub warnings: &'a [String],
}

/// What `exec` wants beside the process.
pub struct ExecOptions<'a> {
    pub detach: bool,
    pub no_subreaper: bool,
    /// Called when the process has joined; its program may have begun by then.
    pub joined: &'a mut dyn FnMut(Joined<'_>) -> Result<()>,
}

/// How long all of a container takes to be killed, one process after another.
const KILL_PATIENCE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs a process in a container: to its end, or with `detach` until it has executed its program.
///
/// # Errors
/// Why it could not be run. It is gone then.
pub fn exec(live: Live, exec: ExecConfig, options: ExecOptions<'_>) -> Result<Option<ExitStatus>> {
    let record = live.container.record.clone();
    let explain = |error| explain(&record, error);
    match live.status().map_err(explain)? {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Paused if !exec.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Creating => bail!("cannot exec in a container that is still being created"),
        Status::Created | Status::Running | Status::Paused => {}
    }
    begin(live, exec, options).map_err(explain)
}

/// Of a container that ends meanwhile that is the reason for whatever fails.
pub fn explain(record: &Record, error: anyhow::Error) -> anyhow::Error {
    let was_killed = error.is::<Stage2Died>() || error.is::<Stage2Ended>();
    // Who is killed alone learns that so much later.
    let patience = if was_killed { KILL_PATIENCE } else { Duration::ZERO };
    let has_ended = record.init.as_ref().is_some_and(|init| ends_within(init, patience));
    if has_ended { error.context(format!("container {} has ended", record.id)) } else { error }
}

/// Whether a process runs no program any more. It may be long before it has ended: init of a pid namespace waits for all others.
fn ends_within(init: &ProcessIdentity, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match init.look() {
            Ok(Some(stat)) if !stat.is_ending() => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn begin(mut live: Live, mut exec: ExecConfig, options: ExecOptions<'_>) -> Result<Option<ExitStatus>> {
    let terminal = exec.process.terminal().unwrap_or(false);
    check_console_socket(terminal, &exec.options)?;
    let caller = if terminal && !options.detach { Some(Terminal::find()?) } else { None };
    if let Some(execution) = live.engine.exec_directly(&live.container, &mut exec)? {
        return watch_direct(execution, options);
    }
    let mark = trace::span("stage1: prepare");
    let request = live.engine.prepare_exec(&live.container, &mut exec)?;
    drop(mark);
    if !options.detach && !options.no_subreaper {
        process::set_child_subreaper(true).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
    }
    let signals = if options.detach { None } else { Some(Signals::catch()?) };
    let inherited = exec.options.preserve_fds + exec.options.listen_fds;
    let mark = trace::span("spawn stage2");
    let mut stage2 = Stage2::spawn(&request, inherited)?;
    drop(mark);
    let console = match join(&mut live, &mut exec, &mut stage2) {
        Ok(console) => console,
        Err(error) => return Err(stage2.explain(error, "the process", None)),
    };
    let warnings = stage2.rpc.take_warnings();
    (options.joined)(Joined { init: &stage2.init, console: console.as_ref(), warnings: &warnings })?;
    let pid = stage2.init.pid;
    let mark = trace::span("wait for the program");
    if let Err(error) = stage2.rpc.wait_executed(|| Stat::of(pid).ok().flatten()) {
        return Err(stage2.explain(error, "the process", None));
    }
    drop(mark);
    stage2.release();
    let Some(signals) = signals else { return Ok(None) };
    let mut relay = foreground::relay(console, caller)?;
    foreground::watch(&stage2.init, relay.as_mut(), &signals, None)?;
    wait_for(&stage2.init).map(Some)
}

/// The rest for an engine that starts processes itself, or only pretends to.
fn watch_direct(execution: Execution, options: ExecOptions<'_>) -> Result<Option<ExitStatus>> {
    match execution {
        Execution::Pretended(status) => Ok((!options.detach).then_some(status)),
        Execution::Process(init) => {
            (options.joined)(Joined { init: &init, console: None, warnings: &[] })?;
            if options.detach {
                return Ok(None);
            }
            foreground::watch(&init, None, &Signals::catch()?, None)?;
            wait_for(&init).map(Some)
        }
    }
}

fn join(live: &mut Live, exec: &mut ExecConfig, stage2: &mut Stage2) -> Result<Option<OwnedFd>> {
    let _mark = trace::span("smaster: join");
    exec.starter.sealed = stage2.sealed;
    exec.starter.timeline = trace::is_on();
    let envelope = Envelope {
        version: VERSION,
        engine_name: live.engine.name().to_owned(),
        common: Common { id: live.container.record.id.clone(), state: String::new() },
        starter: exec.starter.clone(),
        oci_config: exec.oci_config.clone(),
        engine_config: RawValue::from_string("null".to_owned())?,
    };
    stage2.rpc.configure(&envelope, &[])?;
    live.engine.enter_container(exec, &mut stage2.init, &mut stage2.rpc)?;
    stage2.rpc.finish()?;
    stage2.seal();
    let listens = exec.oci_config.process.seccomp.as_ref().is_some_and(|plan| plan.listener.is_some());
    if !listens {
        stage2.rpc.wait_closed()?;
    }
    let console = stage2.rpc.wait()?.pop();
    if let Some(listener) = exec.oci_config.process.seccomp.as_ref().and_then(|plan| plan.listener.as_ref()) {
        let record = &live.container.record;
        let container = (live.status()?, record.init.as_ref().map_or(0, |init| init.pid));
        seccomp_listener::hand_over(listener, record, container, &stage2.init, &mut stage2.rpc)?;
    }
    Ok(console)
}
