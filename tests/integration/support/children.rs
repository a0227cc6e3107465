//! Waiting for processes with a time limit: our own children, and the orphans that runtimes hand over to us.
//!
//! The test process is a child subreaper, as conmon and containerd's shim are: a container's init becomes its child when
//! `create` ends, so its exit status can be read here as they would read it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

/// Makes orphaned descendants children of this process from now on.
pub fn become_subreaper() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_child_subreaper(Some(rustix::process::getpid())).expect("PR_SET_CHILD_SUBREAPER"));
}

/// Polls `done` until it gives a value or `limit` has passed.
pub fn poll_until<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(value) = done() {
            return Some(value);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}

/// Waits for a child that was spawned here; None when it takes longer than `limit`.
pub fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    poll_until(limit, || child.try_wait().expect("wait for a child"))
}

/// Waits for an orphan that was reparented to this process; None when it takes longer than `limit` or is not our child.
pub fn wait_orphan(pid: i32, limit: Duration) -> Option<ExitStatus> {
    let pid = Pid::from_raw(pid)?;
    poll_until(limit, || match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(Some(ExitStatus::from_raw(status.as_raw()))),
        Ok(None) => None,
        Err(_) => Some(None),
    })
    .flatten()
}

/// The exit status as a shell reports it: the code, or 128 plus the signal.
pub fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Field `number` (from 1) of /proc/PID/stat, see proc_pid_stat(5); None when there is no such process.
pub fn stat_field(pid: i32, number: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(number - 3).map(str::to_owned)
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    stat_field(pid, 3).is_some_and(|state| state != "Z" && state != "X")
}
