//! Many lives: create, start, exec, kill, delete, a thousand times one after another and two hundred times eight at once,
//! and what is there afterwards that was not before. `RTX_TEST_LIVES` makes both shorter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::support::children::is_alive;
use crate::support::leftover::{cgroups, mounts_below};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, needs_root};

/// The tests of this file count descriptors and would count each other's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn lives(default: usize) -> usize {
    std::env::var("RTX_TEST_LIVES").ok().and_then(|n| n.parse().ok()).map_or(default, |n: usize| n.min(default))
}

/// create, start, exec, kill, delete; every command must succeed.
fn live(runtime: &Runtime, bundle: &Bundle, id: &str) {
    let pid_file = runtime.scratch().join(format!("{id}.pid"));
    let path = bundle.path().display().to_string();
    runtime.run(&["create", "--bundle", &path, "--pid-file", &pid_file.display().to_string(), id]).ok();
    let pid = read_lossy(&pid_file).trim().parse().expect("a pid in the pid file");
    runtime.run(&["start", id]).ok();
    assert_eq!(runtime.run(&["exec", id, "/bin/busybox", "sh", "-c", "exit 3"]).code, 3);
    runtime.run(&["kill", id, "KILL"]).ok();
    let status = crate::support::children::wait_orphan(pid, std::time::Duration::from_secs(10));
    assert_eq!(status.map(crate::support::children::shell_code), Some(137));
    runtime.run(&["delete", id]).ok();
    fs::remove_file(pid_file).expect("remove the pid file");
}

/// Everything of this runtime and bundle that exists: processes, mounts, cgroups, state.
fn traces(runtime: &Runtime, bundle: &Bundle, prefix: &str) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = cgroups(prefix).into_iter().map(|c| c.display().to_string()).collect();
    found.extend(mounts_below(&bundle.path().display().to_string()));
    found.extend(mounts_below(&runtime.root().display().to_string()));
    found.extend(fs::read_dir(runtime.root()).into_iter().flatten().flatten().map(|e| e.path().display().to_string()));
    let root = runtime.root().display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let command = read_lossy(&entry.path().join("cmdline"));
        let belongs = command.contains(&root) || read_lossy(&entry.path().join("cgroup")).contains(prefix);
        if belongs && is_alive(pid) {
            found.insert(format!("process {pid} {command}"));
        }
    }
    found
}

/// A bundle whose payload does nothing until it is killed.
fn sleeper() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.args(&["/bin/sleep", "600"]);
    bundle.write();
    bundle
}

#[test]
fn one_after_another() {
    needs_root!();
    let _alone = alone();
    let (runtime, bundle) = (Runtime::under_test(), sleeper());
    let prefix = format!("rtxseq-{}", std::process::id());
    for number in 0..lives(1000) {
        live(&runtime, &bundle, &format!("{prefix}-{number}"));
    }
    assert_eq!(traces(&runtime, &bundle, &prefix), BTreeSet::new());
}

#[test]
fn eight_at_a_time() {
    needs_root!();
    let _alone = alone();
    let (runtime, bundle) = (Runtime::under_test(), sleeper());
    let prefix = format!("rtxpar-{}", std::process::id());
    let (next, all) = (AtomicUsize::new(0), lives(200));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        break;
                    }
                    live(&runtime, &bundle, &format!("{prefix}-{number}"));
                }
            });
        }
    });
    assert_eq!(traces(&runtime, &bundle, &prefix), BTreeSet::new());
}

/// What a payload holds open is the caller's three streams, however often the caller leaks descriptors of its own.
#[test]
fn descriptors_of_the_caller_stay_outside() {
    needs_root!();
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("ls /proc/self/fd | tr '\\n' ' '; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let call =
        container.background("create", &[]).through_shell("exec 3</etc/passwd 7</etc/passwd 9</proc; exec \"$@\"");
    call.run().ok();
    let held: Vec<String> = fs::read_dir(format!("/proc/{}/fd", container.pid()))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| fs::read_link(e.path()).ok())
        .map(|t| t.display().to_string())
        .filter(|t| Path::new(t) == Path::new("/etc/passwd"))
        .collect();
    assert!(held.is_empty(), "the waiting init holds {held:?}");
    container.start().ok();
    container.wait_stdout("0 1 2 3");
    assert!(container.stdout().starts_with("0 1 2 3"), "3 is the directory that ls reads: {}", container.stdout());
}
