//! Hooks (runtime-spec config.md, POSIX-platform hooks): programs that run at fixed moments with the container's state
//! on their standard input.

use crate::engine::Creation;
use crate::engine::launch::Stage2;
use crate::rpc::operation::HookOperation;
use crate::state::{Record, Status};
use crate::sys::{On, describe, errno_of, process};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{Hook, Spec};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What of a failed hook's output its error shows, in bytes.
const SHOWN: u64 = 4096;

/// A hook of the configuration, ready to travel.
pub fn operation(hook: &Hook) -> HookOperation {
    let path = hook.path().to_string_lossy().into_owned();
    let args = hook.args().clone().filter(|args| !args.is_empty()).unwrap_or_else(|| vec![path.clone()]);
    HookOperation { path, args, env: hook.env().clone(), timeout: hook.timeout() }
}

/// All hooks of one moment.
pub fn operations(hooks: Option<&Vec<Hook>>) -> Vec<HookOperation> {
    hooks.map(|hooks| hooks.iter().map(operation).collect()).unwrap_or_default()
}

/// The hooks that run while a container is made.
#[derive(Default)]
pub struct CreationHooks {
    pub prestart: Vec<HookOperation>,
    pub create_runtime: Vec<HookOperation>,
    pub create_container: Vec<HookOperation>,
}

impl CreationHooks {
    pub fn new(spec: &Spec) -> Self {
        let hooks = spec.hooks().clone().unwrap_or_default();
        #[allow(deprecated)]
        let prestart = operations(hooks.prestart().as_ref());
        Self {
            prestart,
            create_runtime: operations(hooks.create_runtime().as_ref()),
            create_container: operations(hooks.create_container().as_ref()),
        }
    }

    /// prestart and createRuntime run in the host's namespaces, when the container's are there with all their mounts.
    ///
    /// # Errors
    /// What stage2 failed with until now; which hook failed.
    pub fn run_at_runtime(&self, creation: &mut Creation<'_>) -> Result<()> {
        if self.prestart.is_empty() && self.create_runtime.is_empty() {
            return Ok(());
        }
        let Some(Stage2 { init, rpc }) = &mut creation.stage2 else { return Ok(()) };
        rpc.drain()?;
        let state = creation_state(creation.record, init.pid)?;
        let directory = Some(creation.launch.bundle.directory.as_path());
        run("prestart", &self.prestart, &state, directory)?;
        run("createRuntime", &self.create_runtime, &state, directory)
    }
}

/// The state that a hook reads while the container is made.
///
/// # Errors
/// None that can happen: it is the serialisation's.
pub fn creation_state(record: &Record, pid: i32) -> Result<String> {
    Ok(serde_json::to_string(&record.oci_state(Status::Creating, pid))?)
}

/// Runs the hooks of one moment in order, until one fails.
///
/// # Errors
/// Which hook failed, how, and what it printed.
pub fn run(point: &str, hooks: &[HookOperation], state: &str, directory: Option<&Path>) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, directory) {
            bail!("error running {point} hook #{index}: {error:#}");
        }
    }
    Ok(())
}

fn run_one(hook: &HookOperation, state: &str, directory: Option<&Path>) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let [name, arguments @ ..] = hook.args.as_slice() {
        command.arg0(name).args(arguments);
    }
    match &hook.env {
        Some(env) => {
            command.env_clear();
            command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
        }
        // What conmon leaves in the environment names descriptors that are closed by now.
        None => {
            for name in ["_OCI_SYNCPIPE", "_OCI_STARTPIPE", "_OCI_ATTACHPIPE"] {
                command.env_remove(name);
            }
        }
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A hook that times out is killed with all that it started.
    command.process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| anyhow::anyhow!("exec {}: {}", hook.path, describe(errno_of(&error))))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook does not have to read its input.
        let _ = stdin.write_all(state.as_bytes());
    }
    wait(child, hook)
}

/// Waits for the hook while reading what it prints, so that it never blocks on a full pipe.
fn wait(mut child: Child, hook: &HookOperation) -> Result<()> {
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.max(0) as u64));
    let pidfd = process::pidfd_open(child.id() as i32).on("pidfd_open", &hook.path)?;
    let readers = [
        child.stdout.take().map(|mut pipe| std::thread::spawn(move || read_shown(&mut pipe))),
        child.stderr.take().map(|mut pipe| std::thread::spawn(move || read_shown(&mut pipe))),
    ];
    let timed_out = loop {
        let timeout = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => break true,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => break false,
            Err(errno) => return Err(errno).on("poll", &hook.path)?,
        }
    };
    if timed_out {
        let group = nix::unistd::Pid::from_raw(child.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    let status = child.wait().map_err(|error| errno_of(&error)).on("wait", &hook.path)?;
    if timed_out {
        bail!("hook ran past specified timeout of {:.1}s: {}", hook.timeout.unwrap_or_default() as f64, hook.path);
    }
    if status.success() {
        return Ok(());
    }
    let [stdout, stderr] = readers.map(|reader| reader.and_then(|reader| reader.join().ok()).unwrap_or_default());
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    bail!("{}: {how}, stdout: {}, stderr: {}", hook.path, stdout.trim_end(), stderr.trim_end())
}

fn read_shown(pipe: &mut impl Read) -> String {
    let mut shown = Vec::new();
    let _ = pipe.take(SHOWN).read_to_end(&mut shown);
    let _ = std::io::copy(pipe, &mut std::io::sink());
    String::from_utf8_lossy(&shown).replace('\n', "\\n")
}
