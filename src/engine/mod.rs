//! Engines: what an isolation technique has to do, behind one trait, and the table of those there are.

pub mod checkpoint;
pub mod error;
mod glance;
pub mod join;
pub mod launch;
#[cfg(feature = "engine-libcontainer")]
pub mod libcontainer;
pub mod live;
pub mod mock;
pub mod native;
pub mod oci;
pub mod remains;
pub mod table;

pub use checkpoint::{CheckpointRequest, RestoreRequest, Restored};
pub use error::FeatureNotSupported;
pub use launch::{
    Container, Creation, ExecConfig, Execution, ExitStatus, InitProcess, LaunchConfig, LaunchOptions, Outcome,
    SpawnRequest,
};
pub use table::{Capabilities, PROVIDERS, Provider, find};

use crate::rpc::server::Perform;
use crate::rpc::{RpcClient, server};
use crate::state::{Brief, Glance, Status};
use anyhow::Result;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

/// The operations of an engine that run in stage1 and smaster. Behind each stands who calls it.
///
/// An engine that cannot do something returns [`FeatureNotSupported`], as the default methods do. Callers try, and
/// handle that; they do not ask first.
pub trait EngineOperations {
    fn name(&self) -> &'static str;

    /// stage1: checks that this engine can run the bundle here and decides everything that can be decided. Changes
    /// nothing outside memory.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()>;

    /// smaster: makes what has to be there before the first process is, and says how to make that. An engine without a
    /// stage2 returns `None`. What [`LaunchConfig::engine_state`] says
    /// after it is recorded before there is a process.
    ///
    /// # Errors
    /// The kernel's.
    fn prepare_spawn(&mut self, _launch: &mut LaunchConfig) -> Result<Option<SpawnRequest>> {
        Ok(None)
    }

    /// smaster: builds the container up to the point where only the start is missing.
    ///
    /// # Errors
    /// Whatever failed, here or in stage2.
    fn create_container(&mut self, creation: &mut Creation<'_>) -> Result<()>;

    /// stage1: whether a smaster that is a process of its own may watch containers of this engine.
    ///
    /// # Errors
    /// [`FeatureNotSupported`].
    fn check_supervision(&self) -> Result<()> {
        Err(self.unsupported("supervised containers (--supervise)"))
    }

    /// smaster: everything has succeeded, from now on the container outlives this process.
    fn commit_container(&mut self) {}

    /// smaster, foreground mode: waits until the container has ended. `init` is this process's child; an engine without
    /// a stage2 has none.
    ///
    /// # Errors
    /// The kernel's.
    fn monitor_container(&mut self, _container: &Container, _init: Option<&InitProcess>) -> Result<ExitStatus> {
        Err(self.unsupported("waiting for the container"))
    }

    /// smaster: removes what `outcome` says is no longer needed. May be called for a container that was half made or
    /// half removed.
    ///
    /// # Errors
    /// What could not be removed, by name.
    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()>;

    /// `start`: lets a created container run its program.
    ///
    /// # Errors
    /// Why the program could not be executed.
    fn start_container(&mut self, _container: &mut Container) -> Result<()> {
        Err(self.unsupported("start"))
    }

    /// `state`, and whatever depends on it.
    ///
    /// # Errors
    /// The kernel's.
    fn status(&self, container: &Container) -> Result<Status>;

    /// `list`: the same, of a container whose directory is not opened for it. `None` where it takes a closer look.
    ///
    /// # Errors
    /// As [`Self::status`].
    fn glance(&self, _record: &Brief, _glance: &Glance) -> Result<Option<Status>> {
        Ok(None)
    }

    /// `exec`, asked first: an engine without a stage2 runs the process itself and says what there is now. With one it
    /// answers `None`, and [`Self::prepare_exec`] and [`Self::enter_container`] follow.
    ///
    /// # Errors
    /// Whatever is wrong with the request; why the program could not be executed.
    fn exec_directly(&mut self, _container: &Container, _exec: &mut ExecConfig) -> Result<Option<Execution>> {
        Ok(None)
    }

    /// `exec`, stage1 part: decides how a process joins the container.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    fn prepare_exec(&mut self, _container: &Container, _exec: &mut ExecConfig) -> Result<SpawnRequest> {
        Err(self.unsupported("exec"))
    }

    /// `exec`, smaster part: what stage2 has to do to get into the container.
    ///
    /// # Errors
    /// Whatever failed, here or in stage2.
    fn enter_container(&mut self, _exec: &ExecConfig, _init: &mut InitProcess, _rpc: &mut RpcClient) -> Result<()> {
        Err(self.unsupported("exec"))
    }

    /// `kill`: `all` asks for every process of the container.
    ///
    /// # Errors
    /// `ESRCH` where there is nothing to signal.
    fn kill(&mut self, _container: &mut Container, _signal: i32, _all: bool) -> Result<()> {
        Err(self.unsupported("kill"))
    }

    /// `pause`.
    ///
    /// # Errors
    /// The kernel's.
    fn pause(&mut self, _container: &mut Container) -> Result<()> {
        Err(self.unsupported("pause"))
    }

    /// `resume`.
    ///
    /// # Errors
    /// The kernel's.
    fn resume(&mut self, _container: &mut Container) -> Result<()> {
        Err(self.unsupported("resume"))
    }

    /// `ps`: the pids of every process of the container, as the caller's pid namespace has them.
    ///
    /// # Errors
    /// The kernel's.
    fn processes(&self, _container: &Container) -> Result<Vec<i32>> {
        Err(self.unsupported("ps"))
    }

    /// `events --stats`: the `data` of runc's stats event.
    ///
    /// # Errors
    /// The kernel's.
    fn stats(&self, _container: &Container) -> Result<serde_json::Value> {
        Err(self.unsupported("events"))
    }

    /// `events`: what becomes readable when the container ran out of memory.
    ///
    /// # Errors
    /// The kernel's.
    fn out_of_memory_events(&self, _container: &Container) -> Result<oci::cgroup::OomWatch> {
        Err(self.unsupported("events of memory"))
    }

    /// `update`.
    ///
    /// What is returned takes it back, for something that fails later.
    ///
    /// # Errors
    /// What the kernel refused, by file and value; nothing has changed then.
    fn update(
        &mut self,
        _container: &mut Container,
        _resources: &oci_spec::runtime::LinuxResources,
    ) -> Result<Box<dyn FnOnce()>> {
        Err(self.unsupported("update"))
    }

    /// `update` of Intel RDT.
    ///
    /// # Errors
    /// What the kernel refused, by file and value.
    fn update_schemata(&mut self, _container: &mut Container, _rdt: &oci_spec::runtime::LinuxIntelRdt) -> Result<()> {
        Err(self.unsupported("update of Intel RDT schemata"))
    }

    /// `checkpoint`: saves the processes of a running container, which end by that unless the request says otherwise.
    ///
    /// # Errors
    /// Why they could not be saved. They run on then.
    fn checkpoint(&mut self, _container: &Container, _request: &CheckpointRequest) -> Result<()> {
        Err(self.unsupported("checkpoint"))
    }

    /// `restore`, smaster part: makes a container from what `checkpoint` saved. It runs when this returns.
    ///
    /// # Errors
    /// Why it could not be made. [`Self::cleanup_container`] removes what was.
    fn restore_container(&mut self, _creation: &mut Creation<'_>, _request: &RestoreRequest) -> Result<Restored> {
        Err(self.unsupported("restore"))
    }

    /// The typed refusal of this engine.
    fn unsupported(&self, feature: &'static str) -> anyhow::Error {
        FeatureNotSupported { engine: self.name(), feature: feature.into() }.into()
    }
}

/// Who has started a payload.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// smaster, at the other end of its socket.
    Smaster(BorrowedFd<'a>),
    /// Whoever came to the start barrier.
    Other(BorrowedFd<'a>),
}

impl AsFd for Caller<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let (Self::Smaster(fd) | Self::Other(fd)) = self;
        *fd
    }
}

/// The operations of an engine that run in stage2, the process that becomes the payload.
pub trait PayloadOperations: Perform {
    /// After Finish: gives up every privilege that the payload must not have. Returns what smaster is told.
    ///
    /// # Errors
    /// Whatever failed.
    fn finish(&mut self, context: &mut server::Context) -> Result<()>;

    /// After smaster has been told of the finish: what confines this process so that it could not have been told. smaster
    /// is at the other end of the socket and waits for what [`crate::rpc::RpcClient`] knows of.
    ///
    /// # Errors
    /// Whatever failed; smaster is told.
    fn confine(&mut self, _smaster: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    /// Before the wait at the start barrier: closes every descriptor of rtx's own but that. Whoever joins the container
    /// meanwhile, with the capability to trace, would find it.
    ///
    /// # Errors
    /// The kernel's.
    fn close_all_but(&mut self, barrier: BorrowedFd<'_>) -> Result<()>;

    /// Becomes the payload. `caller` is the only descriptor of rtx's own that may still be open when the program is looked up
    /// and executed, and is told that it is about to be. Where that is smaster, there is nobody without it who knows of this
    /// process.
    ///
    /// # Errors
    /// Why the program could not be executed.
    fn start_process(&mut self, caller: Caller<'_>) -> Result<Infallible>;
}
