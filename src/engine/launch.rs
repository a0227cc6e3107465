//! What stages and engines hand each other.

use super::join::Within;
use crate::config::bundle::Bundle;
use crate::config::envelope::{OciConfig, Starter};
use crate::rpc::RpcClient;
use crate::state::{Record, Recording, StateDir};
use anyhow::{Context, Result};
use oci_spec::runtime::{Hooks, Spec};
use serde_json::value::RawValue;
use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// How a caller wants a container or a process launched: what the command line says beside the bundle.
#[derive(Debug, Clone, Default)]
pub struct LaunchOptions {
    /// The console goes to this socket.
    pub console_socket: Option<OsString>,
    /// This command stays and relays the terminal.
    pub foreground: bool,
    /// This command removes the container when that has ended.
    pub attended: bool,
    /// This command starts the container as soon as it is complete, and nobody else does.
    pub started_at_once: bool,
    /// Whoever is to hear of the container may do so when its program has begun.
    pub announced_later: bool,
    /// smaster is to be a process of its own, which has the other end of a terminal.
    pub supervised: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub systemd_cgroup: bool,
    pub no_cgroup: bool,
    /// Descriptors to pass on, from 3 upwards, those of LISTEN_FDS first.
    pub preserve_fds: u32,
    pub listen_fds: u32,
    /// The caller's NOTIFY_SOCKET (sd_notify(3)).
    pub notify_socket: Option<OsString>,
    /// Runs an engine that isolates nothing.
    pub allow_unconfined: bool,
    /// Whether a host's privileges are missing: another user than root, or a user namespace.
    pub rootless: bool,
}

impl LaunchOptions {
    /// Whether rtx itself copies to and from the container's terminal.
    pub fn relays(&self) -> bool {
        self.foreground || self.supervised
    }
}

/// A container that is about to be created. stage1 fills it; smaster only reads it.
pub struct LaunchConfig {
    pub id: String,
    pub bundle: Bundle,
    pub options: LaunchOptions,
    /// The engine's own part of the configuration file.
    pub engine_config: serde_json::Value,
    pub starter: Starter,
    pub oci_config: OciConfig,
    /// Where state is kept, for what an engine keeps beside it.
    pub root: PathBuf,
    /// What the engine needs to find the container's parts again; recorded before any of them is made.
    pub engine_state: Option<Box<RawValue>>,
    /// For the user; nothing stops because of them.
    pub warnings: Vec<String>,
}

/// A process that is about to join a container.
pub struct ExecConfig {
    pub process: oci_spec::runtime::Process,
    pub options: LaunchOptions,
    pub ignore_paused: bool,
    /// A cgroup below the container's to join, for all controllers or for those named (`controller:path`).
    pub sub_cgroups: Vec<String>,
    pub starter: Starter,
    pub oci_config: OciConfig,
    /// Where state is kept.
    pub root: PathBuf,
    pub warnings: Vec<String>,
}

/// How smaster is to make stage2.
#[derive(Default)]
pub struct SpawnRequest {
    /// `CLONE_NEW*` of the clone itself.
    pub namespaces: u64,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<Rc<OwnedFd>>,
    /// To be born in where that one has no room for processes.
    pub within: Option<Within>,
    /// Processors to be born on: bit n of word n/64 is processor n.
    pub affinity: Option<Vec<u64>>,
}

/// The container's first process, a child of this one.
pub struct InitProcess {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// A container that smaster is creating.
pub struct Creation<'a> {
    pub launch: &'a LaunchConfig,
    pub record: &'a mut Record,
    /// Where the record is kept meanwhile.
    pub recording: &'a mut Recording,
    pub state: &'a StateDir,
    /// Absent for an engine without a stage2.
    pub stage2: Option<Stage2<'a>>,
    pub warnings: Vec<String>,
}

pub struct Stage2<'a> {
    pub init: &'a mut InitProcess,
    pub rpc: &'a mut RpcClient,
}

/// A container that exists.
pub struct Container {
    pub state: StateDir,
    pub record: Record,
    spec: OnceCell<Arc<Spec>>,
    hooks: OnceCell<Hooks>,
}

impl Container {
    pub fn new(state: StateDir, record: Record) -> Self {
        Self { state, record, spec: OnceCell::new(), hooks: OnceCell::new() }
    }

    /// With the hooks of its configuration, for the command that has just created it.
    pub fn with_hooks(self, hooks: Hooks) -> Self {
        Self { hooks: OnceCell::from(hooks), ..self }
    }

    /// Locks its state again, as [`StateDir::lock_again`] does. What is known of the configuration stays known.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lock_again(self) -> Result<Option<Self>> {
        let Self { state, record, spec, hooks } = self;
        Ok(state.lock_again()?.map(|state| Self { state, record, spec, hooks }))
    }

    /// The hooks of the saved configuration: what start and delete need of it.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn hooks(&self) -> Result<&Hooks> {
        #[derive(serde::Deserialize)]
        struct OnlyHooks {
            hooks: Option<Hooks>,
        }
        if let Some(hooks) = self.hooks.get() {
            return Ok(hooks);
        }
        let config: OnlyHooks = serde_json::from_slice(&self.state.config()?)
            .with_context(|| format!("the configuration of container {:?} is damaged", self.record.id))?;
        Ok(self.hooks.get_or_init(|| config.hooks.unwrap_or_default()))
    }

    /// The configuration that the container was created with, read once.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn spec(&self) -> Result<&Arc<Spec>> {
        if let Some(spec) = self.spec.get() {
            return Ok(spec);
        }
        let damaged = || format!("the configuration of container {:?} is damaged", self.record.id);
        let mut value = serde_json::from_slice(&self.state.config()?).with_context(damaged)?;
        crate::config::check::normalise(&mut value);
        let spec = serde_json::from_value(value).with_context(damaged)?;
        Ok(self.spec.get_or_init(|| Arc::new(spec)))
    }
}

/// Why a container's parts are to be removed.
pub enum Outcome<'a> {
    /// The creation failed; the engine still holds what it made.
    NotCreated,
    /// An earlier command created it, or tried to. With `force` there must be nothing left afterwards.
    Deleted { container: &'a Container, force: bool },
}

/// What an engine without a stage2 made of an `exec`.
pub enum Execution {
    /// A child of this process, which runs the program already.
    Process(InitProcess),
    /// There is no process, and never was: this is how it ended.
    Pretended(ExitStatus),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

impl From<std::process::ExitStatus> for ExitStatus {
    fn from(status: std::process::ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Signaled(status.signal().unwrap_or_default()), Self::Exited)
    }
}

impl ExitStatus {
    /// As shells and runtimes report it: 128 and the signal's number for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}
