//! From smaster to stage2: the socket between them, the sealed executable, the clone.

use super::sealed::{self, Executable};
use crate::config::envelope::Sealed;
use crate::engine::{ExitStatus, InitProcess, SpawnRequest};
use crate::rpc::RpcClient;
use crate::rpc::client::{Stage2Died, Stage2Ended};
use crate::sys::clone::{self, Arena, Command};
use crate::sys::stat::Stat;
use crate::sys::{Errno, On, fd, mount, process, sched, socket};
use anyhow::{Context, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const NEEDS_USER_NAMESPACE: &str =
    "without root's privileges a container needs a user namespace: `rtx spec --rootless` writes such a configuration";

/// A stage2 that has been started. Until [`Self::release`] it dies with this value.
pub struct Stage2 {
    pub init: InitProcess,
    pub rpc: RpcClient,
    pub sealed: Sealed,
    /// It is told by this process when to execute its program. Otherwise it waits at the start barrier, or needs no word.
    pub awaits_start: bool,
    /// It has executed its program.
    pub has_begun: bool,
    tree: Option<OwnedFd>,
    arena: Box<Arena>,
    released: bool,
}

impl Stage2 {
    /// Starts stage2 as the request says. `inherited` counts the descriptors from 3 upwards that it keeps.
    ///
    /// # Errors
    /// The kernel's, with what it means for the caller.
    pub fn spawn(request: &SpawnRequest, inherited: u32) -> Result<Self> {
        let Executable { fd: executable, sealed, tree } = sealed::open_executable()?;
        if sealed != Sealed::ReadonlyMount {
            // Otherwise this has just been shown.
            mount::detect();
        }
        let (ours, theirs) = socket::pair().on("socketpair", "")?;
        // Right above what the payload inherits, which keeps its numbers: whatever else stage2 opens is above the two.
        let number = 3 + inherited as i32;
        let keep: Vec<i32> = (3..number).filter(|number| fd::is_open(*number)).collect();
        let executable = match executable.as_raw_fd() == number {
            true => fd::duplicate_above(&executable, number + 1).on("duplicate", "the executable")?,
            false => executable,
        };
        let argument = CString::new(number.to_string())?;
        let spawn_in = |cgroup: Option<&OwnedFd>| {
            clone::spawn(Command {
                executable: executable.as_fd(),
                arguments: vec![c"rtx".to_owned(), c"init".to_owned(), argument.clone()],
                keep: keep.clone(),
                socket: (theirs.as_fd(), number),
                namespaces: request.namespaces,
                cgroup: cgroup.map(AsFd::as_fd),
                ambient: request.namespaces & libc::CLONE_NEWUSER as u64 != 0,
            })
        };
        let spawn = || match (spawn_in(request.cgroup.as_deref()), &request.within) {
            (Err(Errno::EBUSY), Some(within)) => Ok(match within.open()? {
                Some(cgroup) => spawn_in(Some(&cgroup)),
                None => Err(Errno::EBUSY),
            }),
            (spawned, _) => anyhow::Ok(spawned),
        };
        let spawned = match &request.affinity {
            Some(mask) => on_processors(mask, spawn)??,
            None => spawn()?,
        };
        let lacks_privilege = matches!(spawned, Err(Errno::EPERM)) && !crate::sys::caps::has_sys_admin();
        let spawned = spawned.on("clone", "a process in new namespaces");
        let child = if lacks_privilege { spawned.context(NEEDS_USER_NAMESPACE)? } else { spawned? };
        // From here on an error ends the child before the memory that it runs on is freed.
        let init = InitProcess { pid: child.pid, pidfd: child.pidfd };
        let rpc = RpcClient::new(ours, child.pid);
        Ok(Self { init, rpc, sealed, awaits_start: false, has_begun: false, tree, arena: child.arena, released: false })
    }

    /// Explains an error by what became of stage2, where that says more: `who` it was to be. `memory_limit` is the container's,
    /// in bytes.
    pub fn explain(&self, error: anyhow::Error, who: &str, memory_limit: Option<i64>) -> anyhow::Error {
        if !error.is::<Stage2Ended>() && !error.is::<Stage2Died>() {
            return error;
        }
        if let Some(errno) = self.arena.failure() {
            return anyhow::anyhow!("execute rtx init: {}", crate::sys::describe(errno));
        }
        match (process::wait_and_leave(self.init.pid).map(ExitStatus::from), memory_limit) {
            (Ok(ExitStatus::Signaled(libc::SIGKILL)), Some(limit)) if limit > 0 => error.context(format!(
                "unable to set memory limit to {limit} (/linux/resources/memory/limit): init itself was killed, needing more"
            )),
            (Ok(ExitStatus::Signaled(signal @ (libc::SIGILL | libc::SIGSYS))), _) => error.context(format!(
                "{who} was killed by signal {signal}: {}: the seccomp profile has to allow execve and exit_group",
                process::signal_description(signal)
            )),
            (Ok(ExitStatus::Signaled(signal)), _) => {
                error.context(format!("{who} was killed by signal {signal}: {}", process::signal_description(signal)))
            }
            (Ok(ExitStatus::Exited(code)), _) => error.context(format!("{who} exited with {code}")),
            _ => error,
        }
    }

    /// Takes the mount apart that the executable was opened through. Has to be called before the payload runs.
    pub fn seal(&mut self) {
        self.tree = None;
    }

    /// Tells stage2 to execute its program, and waits until it has.
    ///
    /// # Errors
    /// Why it could not; [`Stage2Died`].
    pub fn start(&mut self) -> Result<()> {
        let pid = self.init.pid;
        self.rpc.start(|| Stat::of(pid).ok().flatten())?;
        self.has_begun = true;
        Ok(())
    }

    /// Waits until stage2 has executed its program, which it does without being told to.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn wait_executed(&mut self) -> Result<()> {
        let pid = self.init.pid;
        self.rpc.wait_executed(|| Stat::of(pid).ok().flatten())?;
        self.has_begun = true;
        Ok(())
    }

    /// Lets stage2 live on without this process: its parent will be the caller's subreaper.
    pub fn release(&mut self) {
        self.released = true;
    }
}

impl Drop for Stage2 {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let _ = process::pidfd_signal(&self.init.pidfd, libc::SIGKILL);
        // The arena is the child's stack until it has executed: it must be gone before the memory is.
        let _ = process::wait(self.init.pid);
    }
}

/// Runs `spawn` so that what it makes is born on these processors. This process goes back to its own.
fn on_processors<T>(mask: &[u64], spawn: impl FnOnce() -> T) -> Result<T> {
    let own = sched::affinity().on("ask for", "the CPU affinity")?;
    sched::set_affinity(mask).on("set", "the CPU affinity (/process/execCPUAffinity/initial)")?;
    let spawned = spawn();
    // The child must not be lost over a processor that has been taken away meanwhile.
    let _ = sched::set_affinity(&own);
    Ok(spawned)
}
