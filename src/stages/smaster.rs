//! smaster: creates the container, commits it, or undoes everything.

use super::spawn::Stage2;
use super::stage1::Prepared;
use crate::config::envelope::{Common, Envelope, VERSION};
use crate::engine::oci::seccomp_listener;
use crate::engine::{self, Creation, EngineOperations, LaunchConfig, Outcome};
use crate::state::{AlreadyExists, ProcessIdentity, Record, StateDir, Status};
use crate::sys::{On, heap};
use crate::trace;
use anyhow::{Context, Result};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// A container that is complete, and waits to be started or has begun.
pub struct Created {
    pub container: engine::Container,
    pub engine: Box<dyn EngineOperations>,
    /// Absent for an engine without a stage2. While this value lives, it is this process's child.
    pub stage2: Option<Stage2>,
    /// The master of the container's terminal, if it has one.
    pub console: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

/// Makes the container. Where that fails, nothing of it is left. One that is to be started as soon as it is complete has begun
/// already, if there is nothing to be done between: stage2 goes on by itself, without the two looks of both processes at each
/// other.
///
/// # Errors
/// Whatever failed first.
#[inline(never)]
pub fn create(prepared: Prepared) -> Result<Created> {
    let _mark = trace::span("smaster: create");
    let Prepared { launch, .. } = &prepared;
    heap::reserve().on("reserve", "memory to make a container with")?;
    let state = match StateDir::create(&launch.root, &launch.id, &launch.bundle.raw) {
        Err(error) if error.is::<AlreadyExists>() => {
            if !crate::state::is_abandoned(&launch.root, &launch.id) {
                return Err(error);
            }
            super::deletion::remove_abandoned(&launch.root, &launch.id)?;
            StateDir::create(&launch.root, &launch.id, &launch.bundle.raw)?
        }
        other => other?,
    };
    create_in(prepared, state, false)
}

/// Makes the container in a state directory that is locked. Where that fails, the directory goes as well, unless it is to be
/// kept.
///
/// # Errors
/// Whatever failed first.
pub(super) fn create_in(prepared: Prepared, state: StateDir, keep: bool) -> Result<Created> {
    let Prepared { mut launch, mut engine } = prepared;
    let mut undo = Undo { engine: &mut *engine, state: Some(state), stage2: None, committed: false, keep };
    let result = build(&mut undo, &mut launch);
    let (record, console, warnings) = match result {
        Ok(built) => built,
        Err(error) => {
            let error = match &undo.stage2 {
                Some(stage2) => stage2.explain(error, "init", memory_limit(&launch)),
                None => error,
            };
            drop(undo);
            return Err(run_poststop(&launch, error));
        }
    };
    undo.committed = true;
    undo.engine.commit_container();
    let stage2 = undo.stage2.take();
    let state = undo.state.take();
    drop(undo);
    let state = state.context("the state directory of the container is gone")?;
    let hooks = launch.bundle.spec.hooks().clone().unwrap_or_default();
    let container = engine::Container::new(state, record).with_hooks(hooks);
    Ok(Created { container, engine, stage2, console, warnings })
}

/// What a failed creation has to undo, in the order that needs nothing of what was undone before: the process first,
/// then the engine's parts, the state last, so that a clean-up that is killed half-way can be found and repeated.
struct Undo<'a> {
    engine: &'a mut dyn EngineOperations,
    state: Option<StateDir>,
    stage2: Option<Stage2>,
    committed: bool,
    /// The state directory is older than this creation.
    keep: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let _mark = trace::span("undo");
        self.stage2 = None;
        let _ = self.engine.cleanup_container(Outcome::NotCreated);
        if let Some(state) = self.state.take().filter(|_| !self.keep) {
            let _ = state.remove();
        }
    }
}

type Built = (Record, Option<OwnedFd>, Vec<String>);

fn build(undo: &mut Undo<'_>, launch: &mut LaunchConfig) -> Result<Built> {
    let Undo { engine, state: Some(state), stage2, .. } = undo else { anyhow::bail!("there is no state directory") };
    // The record follows when what the engine makes first is there and found to be nobody else's, and before there is a
    // process: without a record nothing is to be killed.
    let mark = trace::span("prepare_spawn: cgroups");
    let request = engine.prepare_spawn(launch)?;
    drop(mark);
    let mut record = new_record(launch, engine.name(), state.owner());
    let mut recording = state.begin_record(&record)?;
    let begins_by_itself = can_begin_by_itself(launch);
    if let Some(request) = &request {
        let inherited = launch.options.preserve_fds + launch.options.listen_fds;
        let mark = trace::span("spawn stage2");
        let spawned = stage2.insert(Stage2::spawn(request, inherited)?);
        drop(mark);
        launch.starter.sealed = spawned.sealed;
        let starts_here = is_started_here(launch);
        spawned.awaits_start = starts_here && !begins_by_itself;
        let barrier = if starts_here { None } else { Some(state.make_barrier()?) };
        configure(spawned, launch, engine.name(), &record, barrier.as_ref())?;
    }
    let mut creation = Creation {
        launch,
        record: &mut record,
        recording: &mut recording,
        state,
        stage2: stage2.as_mut().map(|stage2| engine::launch::Stage2 { init: &mut stage2.init, rpc: &mut stage2.rpc }),
        warnings: Vec::new(),
    };
    let mark = trace::span("create_container");
    if let Err(error) = engine.create_container(&mut creation) {
        return Err(match &mut creation.stage2 {
            Some(stage2) => stage2.rpc.or_earlier_failure(error),
            None => error,
        });
    }
    drop(mark);
    let mut warnings = std::mem::take(&mut creation.warnings);
    let mut console = None;
    if let Some(stage2) = stage2 {
        let pid = stage2.init.pid;
        record.init = Some(ProcessIdentity::of(pid).on("look at", format_args!("process {pid}"))?);
        record.starting = begins_by_itself;
        // From Finish on stage2 becomes independent of this process. If that ends before the record is complete, `delete
        // --force` has to know whom to end; written while stage2 is at work, it costs no time.
        recording.add(&record)?;
        if !begins_by_itself {
            stage2.rpc.finish()?;
        }
        // Meanwhile stage2 is still at work.
        stage2.seal();
        if begins_by_itself {
            stage2.rpc.finish()?;
        }
        let mark = trace::span("wait for stage2");
        if begins_by_itself {
            stage2.rpc.wait_closed()?;
        }
        console = stage2.rpc.wait()?.pop();
        drop(mark);
        if let Some(listener) = launch.oci_config.process.seccomp.as_ref().and_then(|plan| plan.listener.as_ref()) {
            let container = (Status::Creating, pid);
            seccomp_listener::hand_over(listener, &record, container, &stage2.init, &mut stage2.rpc)?;
        }
        if begins_by_itself {
            stage2.wait_executed()?;
            record.starting = false;
        }
        warnings.append(&mut stage2.rpc.take_warnings());
    }
    record.complete = true;
    recording.add(&record)?;
    Ok((record, console, warnings))
}

/// Whether this process starts the container and nobody else can. What runs first in the container may take its time, and
/// meanwhile it has not started.
fn is_started_here(launch: &LaunchConfig) -> bool {
    launch.options.started_at_once && launch.oci_config.start_container.is_empty()
}

/// Whether nothing is to be done between the completion of the container and its start: no terminal or listener to pass on,
/// nothing to tell, no hook that could ask what state it is in.
fn can_begin_by_itself(launch: &LaunchConfig) -> bool {
    let plan = &launch.oci_config.process;
    let listens = plan.seccomp.as_ref().is_some_and(|plan| plan.listener.is_some());
    let hooks = launch.bundle.spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_ref());
    is_started_here(launch)
        && launch.options.announced_later
        && !plan.terminal
        && !listens
        && launch.options.notify_socket.is_none()
        && hooks.is_none_or(Vec::is_empty)
}

fn configure(
    stage2: &mut Stage2,
    launch: &LaunchConfig,
    engine_name: &str,
    record: &Record,
    barrier: Option<&OwnedFd>,
) -> Result<()> {
    let mut starter = launch.starter.clone();
    starter.barrier = barrier.map(|_| 0);
    starter.awaits_start = stage2.awaits_start;
    starter.timeline = trace::is_on();
    let state = if launch.oci_config.start_container.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&record.oci_state(Status::Created, 0))?
    };
    let envelope = Envelope {
        version: VERSION,
        engine_name: engine_name.to_owned(),
        common: Common { id: launch.id.clone(), state },
        starter,
        oci_config: launch.oci_config.clone(),
        engine_config: RawValue::from_string(launch.engine_config.to_string())?,
    };
    stage2.rpc.configure(&envelope, barrier.map(AsFd::as_fd).as_slice())
}

pub(super) fn new_record(launch: &LaunchConfig, engine: &str, owner: u32) -> Record {
    let annotations = launch.bundle.spec.annotations().clone().unwrap_or_default();
    Record {
        version: Record::VERSION,
        id: launch.id.clone(),
        engine: engine.to_owned(),
        bundle: launch.bundle.directory.clone(),
        rootfs: launch.bundle.rootfs.clone(),
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        owner,
        complete: false,
        starting: false,
        attended: launch.options.attended,
        init: None,
        annotations: BTreeMap::from_iter(annotations),
        supervised: launch.options.supervised,
        engine_state: launch.engine_state.clone(),
    }
}

fn memory_limit(launch: &LaunchConfig) -> Option<i64> {
    launch.bundle.spec.linux().as_ref()?.resources().as_ref()?.memory().as_ref()?.limit()
}

/// poststop belongs to a container that was created as far as its runtime hooks, even if the creation failed after.
/// That one of them failed as well changes nothing but what is told.
fn run_poststop(launch: &LaunchConfig, error: anyhow::Error) -> anyhow::Error {
    let record = new_record(launch, "", nix::unistd::geteuid().as_raw());
    match super::lifecycle::run_poststop(&launch.bundle.spec, &record) {
        Ok(()) => error,
        Err(hook) => error.context(format!("{hook:#}, after the container could not be made")),
    }
}
