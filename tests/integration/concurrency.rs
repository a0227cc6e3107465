//! Commands that meet at one container, fifty at a time: one wins, the others are told why not, nobody ever reads half a state,
//! and nothing is left.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::runtime::Invocation;
use crate::support::{Bundle, Container, Output, Runtime, leftover, own_engine};

/// How many commands meet.
const MANY: usize = 50;

/// Starts all, then waits for all, while others look at the container all the time.
fn storm(container: &Container<'_>, calls: Vec<Invocation>) -> Vec<Output> {
    let done = AtomicBool::new(false);
    let (runtime, id) = (container.runtime, container.id.as_str());
    std::thread::scope(|scope| {
        scope.spawn(|| look(runtime, id, &done));
        let running: Vec<_> = calls.into_iter().map(Invocation::start).collect();
        let outputs = running.into_iter().map(|running| running.end_within(std::time::Duration::from_secs(120)));
        let outputs: Vec<Result<Output, String>> = outputs.collect();
        done.store(true, Ordering::Relaxed);
        outputs.into_iter().map(|output| output.expect("a command ends")).collect()
    })
}

/// Whoever asks gets the whole truth of some moment.
fn look(runtime: &Runtime, id: &str, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let state = runtime.run(&["state", id]);
        match state.code {
            0 => {
                let state: Value = serde_json::from_str(&state.stdout).expect("state prints JSON");
                let known = ["creating", "created", "running", "paused", "stopped"];
                assert!(state["id"] == *id && known.iter().any(|status| state["status"] == *status), "{state}");
            }
            _ => drop(state.fails(1, "container does not exist")),
        }
        let list = runtime.run(&["list", "--format", "json"]).ok();
        assert_eq!(list.stderr, "", "list saw half a state");
        let list: Value = serde_json::from_str(&list.stdout).expect("list prints JSON");
        assert!(list.as_array().is_some_and(|list| list.len() <= 1), "{list}");
    }
}

/// Every loser says why, in one line of the known ones. Returns how many succeeded.
#[track_caller]
fn judge(outputs: &[Output], reasons: &[&str]) -> usize {
    for output in outputs.iter().filter(|output| output.code != 0) {
        let text = output.stderr.trim();
        let is_told = text.starts_with("rtx ") && reasons.iter().any(|reason| text.contains(reason));
        assert!(is_told && text.lines().count() == 1, "exit code {}: {text:?}", output.code);
    }
    outputs.iter().filter(|output| output.code == 0).count()
}

fn nothing_left(container: &Container<'_>) {
    let left = || leftover::of(&container.id, container.bundle.path(), &container.runtime.root());
    let gone =
        crate::support::children::poll_until(std::time::Duration::from_secs(20), || left().is_empty().then_some(()));
    assert!(gone.is_some(), "left: {:?}", left());
}

fn many(call: impl Fn(usize) -> Invocation) -> Vec<Invocation> {
    (0..MANY).map(call).collect()
}

fn create(container: &Container<'_>) -> Invocation {
    let bundle = container.bundle.path().display().to_string();
    container.runtime.invoke(&["create", "--bundle", &bundle, &container.id])
}

#[test]
fn of_two_creates_one_wins() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    // At first there is nothing, then what a killed create left.
    for remains in [false, true, true] {
        let container = Container::new(&runtime, &bundle);
        if remains {
            let state = runtime.root().join(&container.id);
            std::fs::create_dir_all(&state).expect("make a state directory");
            let config = state.join("config.json");
            std::fs::write(&config, bundle.spec.to_string()).expect("write a configuration");
            // One that others can read is a bundle's.
            std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("change its mode");
        }
        let outputs = storm(&container, many(|_| create(&container)));
        assert_eq!(judge(&outputs, &["already exists"]), 1);
        assert_eq!(container.status(), "created");
        container.start().ok();
        assert_eq!(container.status(), "running");
        container.delete(&["--force"]).ok();
        nothing_left(&container);
    }
}

#[test]
fn of_many_deletes_one_wins() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let pid = container.pid();
    container.kill("KILL").ok();
    container.wait_exit();
    let outputs = storm(&container, many(|_| runtime.invoke(&["delete", &container.id])));
    assert_eq!(judge(&outputs, &["container does not exist"]), 1);
    nothing_left(&container);
    // With force there is nothing to fail for.
    container.run_detached(&[]).ok();
    assert_ne!(container.pid(), pid);
    let outputs = storm(&container, many(|_| runtime.invoke(&["delete", "--force", &container.id])));
    assert_eq!(judge(&outputs, &[]), MANY);
    container.wait_exit();
    nothing_left(&container);
}

#[test]
fn delete_against_create() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let call = |index: usize| match index % 2 {
        0 => create(&container),
        _ => runtime.invoke(&["delete", "--force", &container.id]),
    };
    let outputs = storm(&container, many(call));
    let of = |kind: usize| outputs.iter().skip(kind).step_by(2).cloned().collect::<Vec<_>>();
    assert_eq!(judge(&of(1), &[]), MANY / 2);
    // A create that takes longer than a delete waits is ended by that, and cannot say anything.
    let told: Vec<Output> = of(0).into_iter().filter(|output| output.code != 137).collect();
    judge(&told, &["already exists"]);
    container.delete(&["--force"]).ok();
    reap();
    nothing_left(&container);
}

/// Waits for what the runtimes handed over to us, of which no test has a pid.
fn reap() {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").expect("read /proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let parent = crate::support::children::stat_field(pid, 4);
        let name = crate::support::runtime::read_lossy(&entry.path().join("comm"));
        if parent.as_deref() == Some(&own) && name.starts_with("rtx-init") {
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}

/// Why a process cannot join that would have a moment before.
const ENDED: [&str; 3] =
    ["container does not exist", "cannot exec in a stopped container", "exec failed: container rtxtest-"];

/// What fails then is told as the container's end, and not as something of the process's own.
fn exec_against(runtime: &Runtime, end: impl Fn(&str) -> Vec<&str> + Sync, is_removed: bool) {
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(runtime, &bundle);
    container.run_detached(&[]).ok();
    let call = |index: usize| match index {
        25 => runtime.invoke(&end(&container.id)),
        _ => runtime.invoke(&["exec", &container.id, "/bin/true"]),
    };
    let outputs = storm(&container, many(call));
    assert_eq!(outputs[25].code, 0, "{}", outputs[25].stderr);
    container.wait_exit();
    // The program itself may be what was killed.
    let told: Vec<Output> = outputs.into_iter().filter(|output| output.code != 137).collect();
    judge(&told, &ENDED);
    if !is_removed {
        container.delete(&["--force"]).ok();
    }
    nothing_left(&container);
}

#[test]
fn delete_against_exec() {
    exec_against(&own_engine!(), |id| vec!["delete", "--force", id], true);
}

#[test]
fn kill_against_exec() {
    exec_against(&own_engine!(), |id| vec!["kill", id, "KILL"], false);
}

#[test]
fn kill_against_start() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    for _ in 0..3 {
        let container = Container::new(&runtime, &bundle);
        container.create().ok();
        let call = |index: usize| match index % 2 {
            0 => runtime.invoke(&["start", &container.id]),
            _ => runtime.invoke(&["kill", &container.id, "KILL"]),
        };
        let outputs = storm(&container, many(call));
        let reasons = ["already running", "has stopped", "not running", "killed before it executed its program"];
        judge(&outputs, &reasons);
        assert!(outputs.iter().step_by(2).filter(|output| output.code == 0).count() <= 1, "started twice");
        assert!(outputs.iter().skip(1).step_by(2).any(|output| output.code == 0), "nobody killed it");
        assert_eq!(container.wait_exit(), Some(137));
        assert_eq!(container.status(), "stopped");
        container.delete(&[]).ok();
        nothing_left(&container);
    }
}

#[test]
fn update_against_pause() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let call = |index: usize| match index % 3 {
        0 => runtime.invoke(&["update", "--pids-limit", &(100 + index).to_string(), &container.id]),
        1 => runtime.invoke(&["pause", &container.id]),
        _ => runtime.invoke(&["resume", &container.id]),
    };
    let outputs = storm(&container, many(call));
    let of = |kind: usize| outputs.iter().skip(kind).step_by(3).cloned().collect::<Vec<_>>();
    let updates = of(0);
    assert_eq!(judge(&updates, &[]), updates.len());
    let (pauses, resumes) = (judge(&of(1), &["it is paused"]), judge(&of(2), &["container not paused"]));
    assert!(pauses == resumes || pauses == resumes + 1, "{pauses} pauses, {resumes} resumes");
    let expected = if pauses == resumes { "running" } else { "paused" };
    assert_eq!(container.status(), expected);
    if expected == "paused" {
        runtime.run(&["resume", &container.id]).ok();
    }
    assert_eq!(container.exec(&[], &["/bin/true"]).code, 0);
    container.delete(&["--force"]).ok();
    container.wait_exit();
    nothing_left(&container);
}
