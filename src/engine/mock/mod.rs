//! The `mock` engine: containers without a process, for testing what calls a runtime, without privileges. Every command
//! answers and every state is reachable; annotations say how the program that is not there behaves ([`script`]), and the
//! container's record says how far it has come ([`life`]). Its pid is 0, because there is none.

mod life;
mod script;

use crate::engine::oci::cgroup::Stats;
use crate::engine::{
    Capabilities, Container, Creation, EngineOperations, ExecConfig, Execution, ExitStatus, InitProcess, LaunchConfig,
    Outcome, Provider,
};
use crate::state::{Record, Status};
use crate::sys::{Errno, On, fd};
use anyhow::Result;
use life::Life;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oci_spec::runtime::LinuxResources;
use script::Script;
use std::os::fd::AsFd;
use std::time::Duration;

pub static PROVIDER: Provider = Provider {
    name: "mock",
    about: "no process at all, for testing what calls a runtime; annotations say what happens",
    capabilities: Capabilities {
        isolates: false,
        needs_privileges: false,
        exec: true,
        pause: true,
        update: true,
        stats: true,
        terminal: false,
    },
    make: || Box::new(MockEngine),
    make_payload: None,
    unavailable: || None,
    schema: || serde_json::json!({ "type": "object", "additionalProperties": false }),
};

/// How often a foreground run looks whether another command has ended or paused the container.
const LOOK: Duration = Duration::from_millis(20);

pub struct MockEngine;

impl EngineOperations for MockEngine {
    fn name(&self) -> &'static str {
        PROVIDER.name
    }

    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()> {
        Script::read(launch.bundle.spec.annotations().iter().flatten())?;
        // Whoever gave the socket waits for a terminal that would never come.
        if launch.options.console_socket.is_some() {
            return Err(self.unsupported("a console socket"));
        }
        launch.engine_state = Some(Life::default().to_json()?);
        Ok(())
    }

    fn create_container(&mut self, creation: &mut Creation<'_>) -> Result<()> {
        script(creation.record)?.may("create")
    }

    fn monitor_container(&mut self, container: &Container, _init: Option<&InitProcess>) -> Result<ExitStatus> {
        let script = script(&container.record)?;
        say(&script.stdout)?;
        wait(container, &script)
    }

    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()> {
        match outcome {
            Outcome::NotCreated => Ok(()),
            // What is pretended to fail must not keep the container there for good.
            Outcome::Deleted { force: true, .. } => Ok(()),
            Outcome::Deleted { container, .. } => script(&container.record)?.may("delete"),
        }
    }

    fn start_container(&mut self, container: &mut Container) -> Result<()> {
        script(&container.record)?.may("start")?;
        change(container, |life, _| {
            life.start(life::now());
            Ok(())
        })
    }

    fn status(&self, container: &Container) -> Result<Status> {
        if !container.record.complete {
            return Ok(Status::Creating);
        }
        Ok(Life::of(&container.record)?.status(&script(&container.record)?, life::now()))
    }

    fn exec_directly(&mut self, container: &Container, _exec: &mut ExecConfig) -> Result<Option<Execution>> {
        let script = script(&container.record)?;
        script.may("exec")?;
        Ok(Some(Execution::Pretended(ExitStatus::Exited(script.exit_code.unwrap_or(0)))))
    }

    fn kill(&mut self, container: &mut Container, signal: i32, _all: bool) -> Result<()> {
        script(&container.record)?.may("kill")?;
        let id = container.record.id.clone();
        change(container, |life, script| {
            if life.status(script, life::now()) == Status::Stopped {
                return Err(Errno::ESRCH).on("signal init of", id).map_err(Into::into);
            }
            if let Some(end) = script.end_by(signal) {
                life.end(end);
            }
            Ok(())
        })
    }

    fn pause(&mut self, container: &mut Container) -> Result<()> {
        script(&container.record)?.may("pause")?;
        change(container, |life, _| {
            life.pause(life::now());
            Ok(())
        })
    }

    fn resume(&mut self, container: &mut Container) -> Result<()> {
        script(&container.record)?.may("resume")?;
        change(container, |life, _| {
            life.resume(life::now());
            Ok(())
        })
    }

    fn processes(&self, _container: &Container) -> Result<Vec<i32>> {
        Ok(Vec::new())
    }

    fn stats(&self, _container: &Container) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(Stats::default())?)
    }

    fn update(&mut self, container: &mut Container, _resources: &LinuxResources) -> Result<Box<dyn FnOnce()>> {
        script(&container.record)?.may("update")?;
        Ok(Box::new(|| {}))
    }
}

fn script(record: &Record) -> Result<Script> {
    Script::read(&record.annotations)
}

/// Changes how far the container has come, and keeps it.
fn change(container: &mut Container, how: impl FnOnce(&mut Life, &Script) -> Result<()>) -> Result<()> {
    let mut life = Life::of(&container.record)?;
    how(&mut life, &script(&container.record)?)?;
    container.record.engine_state = Some(life.to_json()?);
    container.state.write_record(&container.record)
}

fn say(text: &str) -> Result<()> {
    Ok(fd::print(text.as_bytes()).on("write", "the mock program's output")?)
}

/// Waits for an end that may come by itself, from another command, or by a signal to this one, which its caller blocks
/// while it runs in the foreground.
fn wait(container: &Container, script: &Script) -> Result<ExitStatus> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags).on("signalfd", "")?;
    loop {
        let record = container.state.record()?;
        let life = Life::of(&record)?;
        if let Some(end) = life.ended(script, life::now()) {
            return Ok(end);
        }
        let left = life.left(script, life::now()).unwrap_or(LOOK).min(LOOK);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("poll", "signals")?,
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if let Some(end) = script.end_by(signal.ssi_signo as i32) {
                keep_end(container, end)?;
                return Ok(end);
            }
        }
    }
}

/// `run --keep` leaves the container behind, stopped.
fn keep_end(container: &Container, end: ExitStatus) -> Result<()> {
    let mut record = container.state.record()?;
    let mut life = Life::of(&record)?;
    life.end(end);
    record.engine_state = Some(life.to_json()?);
    container.state.write_record(&record)
}
