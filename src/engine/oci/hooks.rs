//! Hooks (runtime-spec config.md, POSIX-platform hooks): programs that run at fixed moments with the container's state
//! on their standard input.

use crate::engine::Creation;
use crate::engine::launch::Stage2;
use crate::rpc::operation::HookOperation;
use crate::state::{Record, Status};
use crate::sys::On;
use crate::sys::process::{self, Program};
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{Hook, Spec};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What of a failed hook's output its error shows, in bytes.
const SHOWN: usize = 4096;

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

    /// Whether anything is run that may take its time.
    pub fn has_any(&self) -> bool {
        self.has_any_at_runtime() || !self.create_container.is_empty()
    }

    /// Whether there is anything to run before the container's root is entered.
    pub fn has_any_at_runtime(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }

    /// prestart and createRuntime run in the host's namespaces, when the container's are there with all their mounts.
    ///
    /// # Errors
    /// What stage2 failed with until now; which hook failed.
    pub fn run_at_runtime(&self, creation: &mut Creation<'_>) -> Result<()> {
        if !self.has_any_at_runtime() {
            return Ok(());
        }
        let Some(Stage2 { init, rpc }) = &mut creation.stage2 else { return Ok(()) };
        rpc.drain()?;
        self.run_for(creation.record, init.pid, &creation.launch.bundle.directory)
    }

    /// prestart and createRuntime of a container whose init is `pid`.
    ///
    /// # Errors
    /// Which hook failed.
    pub fn run_for(&self, record: &Record, pid: i32, bundle: &Path) -> Result<()> {
        let state = creation_state(record, pid)?;
        run("prestart", &self.prestart, &state, Some(bundle))?;
        run("createRuntime", &self.create_runtime, &state, Some(bundle))
    }
}

/// The state that a hook reads while the container is made.
///
/// # Errors
/// None that can happen: it is the serialisation's.
pub fn creation_state(record: &Record, pid: i32) -> Result<String> {
    Ok(serde_json::to_string(&record.oci_state(Status::Creating, pid))?)
}

/// Hooks in the container's namespaces: one without an environment of its own has the program's.
pub fn with_env(hooks: &[HookOperation], env: &[String]) -> Vec<HookOperation> {
    let with =
        |hook: &HookOperation| HookOperation { env: hook.env.clone().or_else(|| Some(env.to_vec())), ..hook.clone() };
    hooks.iter().map(with).collect()
}

/// What hooks run under beside their configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting<'a> {
    pub directory: Option<&'a Path>,
    /// A seccomp filter and its flags.
    pub filter: Option<(&'a [u8], u32)>,
}

/// Runs the hooks of one moment in order, until one fails.
///
/// # Errors
/// Which hook failed, how, and what it printed.
pub fn run(point: &str, hooks: &[HookOperation], state: &str, directory: Option<&Path>) -> Result<()> {
    run_in(point, hooks, state, Setting { directory, filter: None })
}

/// As [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_in(point: &str, hooks: &[HookOperation], state: &str, setting: Setting<'_>) -> Result<()> {
    (0..hooks.len()).try_for_each(|index| run_at(point, hooks, index, state, setting))
}

/// Runs every hook of one moment, those after a failed one as well.
///
/// # Errors
/// As [`run`], for the first that failed.
pub fn run_all(point: &str, hooks: &[HookOperation], state: &str, directory: Option<&Path>) -> Result<()> {
    let mut outcome = Ok(());
    for index in 0..hooks.len() {
        let result = run_at(point, hooks, index, state, Setting { directory, filter: None });
        outcome = outcome.and(result);
    }
    outcome
}

fn run_at(point: &str, hooks: &[HookOperation], index: usize, state: &str, setting: Setting<'_>) -> Result<()> {
    run_one(&hooks[index], state, setting)
        .map_err(|error| anyhow::anyhow!("error running {point} hook #{index}: {error:#}"))
}

fn run_one(hook: &HookOperation, state: &str, setting: Setting<'_>) -> Result<()> {
    let (program, mut ends) = prepare(hook, setting).on("exec", &hook.path)?;
    let pid = program.start().on("exec", &hook.path)?;
    let outcome = converse(pid, &mut ends, hook, state.as_bytes());
    if !matches!(outcome, Ok(Some(_))) {
        // A hook that times out is killed with all that it started, and itself where it has left its group.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let status = process::wait(pid).on("wait", &hook.path)?;
    let Some([stdout, stderr]) = outcome? else {
        bail!("hook ran past specified timeout of {:.1}s: {}", hook.timeout.unwrap_or_default() as f64, hook.path);
    };
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", process::signal_description(signal.unwrap_or_default())),
    };
    bail!("{}: {how}, stdout: {}, stderr: {}", hook.path, shown(&stdout), shown(&stderr))
}

/// This process's ends of a hook's streams, which never block.
struct Ends {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

fn prepare(hook: &HookOperation, setting: Setting<'_>) -> nix::Result<(Program, Ends)> {
    let mut program = Program::new(&hook.path, &hook.args)?;
    match &hook.env {
        // Of two entries with one name the later one counts.
        Some(env) => {
            let entries: BTreeMap<_, _> = env.iter().filter_map(|entry| entry.split_once('=')).collect();
            program.environment(entries.iter().map(|(name, value)| format!("{name}={value}")))?;
        }
        // What conmon leaves in the environment names descriptors that are closed by now.
        None => program.environment_without(&["_OCI_SYNCPIPE", "_OCI_STARTPIPE", "_OCI_ATTACHPIPE"]),
    }
    if let Some(directory) = setting.directory {
        program.directory(directory.as_os_str())?;
    }
    program.own_group();
    if let Some((filter, flags)) = setting.filter {
        program.filter(filter.to_vec(), flags);
    }
    let [(input, stdin), (stdout, output), (stderr, error)] = [pipe()?, pipe()?, pipe()?];
    for end in [&stdin, &stdout, &stderr] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    program.streams([Some(input), Some(output), Some(error)]);
    Ok((program, Ends { stdin: Some(stdin), outputs: [Some(stdout), Some(stderr)] }))
}

fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC)
}

/// Writes the state to the hook and reads what it prints until it has ended: the first bytes of both streams; `None` when
/// its time is up. A hook need not read its input, and what it leaves running may keep its output open: nothing here waits
/// for either.
fn converse(pid: i32, ends: &mut Ends, hook: &HookOperation, state: &[u8]) -> Result<Option<[Vec<u8>; 2]>> {
    // A time that no clock reaches is none.
    let seconds = hook.timeout.map(|seconds| Duration::from_secs(seconds.max(0) as u64));
    let deadline = seconds.and_then(|seconds| Instant::now().checked_add(seconds));
    let pidfd = process::child_pidfd(pid).on("pidfd_open", &hook.path)?;
    let Ends { stdin, outputs } = ends;
    let (mut left, mut read) = (state, [Vec::new(), Vec::new()]);
    loop {
        let mut fds: Vec<PollFd> = pidfd.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)).collect();
        fds.extend(stdin.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        fds.extend(outputs.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, process::end_timeout(time_left(deadline))) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("poll", &hook.path)?,
        }
        let has_ended = match &pidfd {
            Some(_) => fds[0].any().unwrap_or(false),
            None => process::has_child_ended(pid),
        };
        if let Some(pipe) = stdin
            && !feed(pipe, &mut left)
        {
            *stdin = None;
        }
        for (output, read) in outputs.iter_mut().zip(&mut read) {
            if let Some(pipe) = output
                && !drain(pipe, read)
            {
                *output = None;
            }
        }
        if has_ended {
            return Ok(Some(read));
        }
    }
}

fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}

/// Writes what the pipe takes. `false` when nothing is left to write, or nobody reads.
fn feed(pipe: &OwnedFd, left: &mut &[u8]) -> bool {
    match nix::unistd::write(pipe, left) {
        Ok(written) => {
            *left = &left[written..];
            !left.is_empty()
        }
        Err(errno) => matches!(errno, Errno::EAGAIN | Errno::EINTR),
    }
}

/// Reads what is in the pipe, at most what a pipe holds, and keeps its first bytes. `false` at end-of-file.
fn drain(pipe: &OwnedFd, kept: &mut Vec<u8>) -> bool {
    let mut buffer = [0; SHOWN];
    for _ in 0..16 {
        match nix::unistd::read(pipe, &mut buffer) {
            Ok(0) => return false,
            Ok(length) => kept.extend_from_slice(&buffer[..length.min(SHOWN - kept.len())]),
            Err(Errno::EINTR) => {}
            Err(errno) => return errno == Errno::EAGAIN,
        }
    }
    true
}

fn shown(output: &[u8]) -> String {
    String::from_utf8_lossy(output).replace('\n', "\\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, timeout: Option<i64>, state: &str) -> (Result<()>, Duration) {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let hook = HookOperation { path: "/bin/sh".into(), args, env: None, timeout };
        let begin = Instant::now();
        (run("prestart", &[hook], state, None), begin.elapsed())
    }

    #[test]
    fn nothing_that_a_hook_leaves_undone_is_waited_for() {
        // It never reads a state that is larger than a pipe.
        let large = "x".repeat(1 << 20);
        let (result, time) = run_shell("sleep 30", Some(1), &large);
        assert!(
            result.unwrap_err().to_string().contains("ran past specified timeout") && time < Duration::from_secs(9)
        );
        // What it started keeps its output open.
        let (result, time) = run_shell("sleep 12 & echo why; exit 3", None, "{}");
        let error = result.unwrap_err().to_string();
        assert!(error.contains("exit status 3, stdout: why") && time < Duration::from_secs(9), "{error} {time:?}");
        let error = run_shell("kill -35 $$", None, "{}").0.unwrap_err().to_string();
        assert!(error.contains("signal: signal 35, stdout"), "{error}");
        assert!(run_shell("true", Some(i64::MAX), &large).0.is_ok());
        assert!(run_shell("test $(wc -c) = 1048576", None, &large).0.is_ok());
    }
}
