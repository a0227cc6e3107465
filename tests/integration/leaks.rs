//! Many lives: create, start, exec, kill, delete, a thousand times one after another and two hundred times eight at once,
//! and what is there afterwards that was not before. `RTX_TEST_LIVES` makes both shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::support::children::{is_alive, poll_until, shell_code, wait_orphan};
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

/// What the whole host has that one container must not add to, in words that say where it came from.
struct Before {
    mounts: BTreeSet<String>,
    ipc: usize,
}

impl Before {
    fn now() -> Before {
        Before { mounts: mount_points(), ipc: ipc_objects() }
    }

    /// What is there now and was not, apart from what tests that run at the same time have in directories of their own.
    fn added(&self, runtime: &Runtime, bundle: &Bundle, prefix: &str) -> BTreeSet<String> {
        let mut found = traces(runtime, bundle, prefix);
        let places = [runtime.scratch().display().to_string(), bundle.path().display().to_string(), prefix.to_owned()];
        let ours = |text: &str| places.iter().any(|place| text.contains(place));
        let of_others = |point: &str| point.contains("/rtx-") && !ours(point);
        found.extend(mount_points().difference(&self.mounts).filter(|p| !of_others(p)).map(|p| format!("mount {p}")));
        found.extend(descriptors().into_iter().filter(|t| ours(t)).map(|t| format!("descriptor of {t}")));
        let keys = read_lossy(Path::new("/proc/keys"));
        found.extend(keys.lines().filter(|line| ours(line)).map(|line| format!("key {line}")));
        for dir in ["/run", "/run/rtx", "/dev/shm", "/dev/mqueue"] {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path().display().to_string());
            found.extend(entries.filter(|path| ours(path)));
        }
        if ipc_objects() > self.ipc {
            found.insert(format!("{} System V objects instead of {}", ipc_objects(), self.ipc));
        }
        found
    }

    /// Fails unless all that was added goes away soon: the kernel collects keys and namespaces in the background.
    #[track_caller]
    fn assert_nothing_added(&self, runtime: &Runtime, bundle: &Bundle, prefix: &str) {
        let nothing = || self.added(runtime, bundle, prefix).is_empty().then_some(());
        if poll_until(Duration::from_secs(5), nothing).is_none() {
            panic!("left behind: {:#?}", self.added(runtime, bundle, prefix));
        }
    }
}

fn mount_points() -> BTreeSet<String> {
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// What this process's descriptors are open on. Other tests have theirs in the same process, on files of their own.
fn descriptors() -> Vec<String> {
    targets(std::process::id()).into_values().collect()
}

/// The descriptors of a process by number.
fn targets(pid: impl std::fmt::Display) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| {
        let number = entry.file_name().to_string_lossy().parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    entries.filter_map(target).collect()
}

/// How many System V queues, semaphores and segments the host's IPC namespace has.
fn ipc_objects() -> usize {
    let lines = |kind: &str| read_lossy(&Path::new("/proc/sysvipc").join(kind)).lines().count();
    ["msg", "sem", "shm"].into_iter().map(lines).sum()
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
    let status = wait_orphan(pid, Duration::from_secs(10));
    assert_eq!(status.map(shell_code), Some(137));
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
    let before = Before::now();
    for number in 0..lives(1000) {
        live(&runtime, &bundle, &format!("{prefix}-{number}"));
    }
    before.assert_nothing_added(&runtime, &bundle, &prefix);
}

#[test]
fn eight_at_a_time() {
    needs_root!();
    let _alone = alone();
    let (runtime, bundle) = (Runtime::under_test(), sleeper());
    let prefix = format!("rtxpar-{}", std::process::id());
    let before = Before::now();
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
    before.assert_nothing_added(&runtime, &bundle, &prefix);
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

/// A payload that is running has its three streams and nothing else: none of rtx's sockets, pipes, memfds or directories.
/// A process of `exec` neither.
#[test]
fn payloads_have_only_their_streams() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::new());
    bundle.args(&["/bin/sleep", "600"]);
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().ok();
    let is_payload = |pid: i32| read_lossy(Path::new(&format!("/proc/{pid}/cmdline"))).starts_with("/bin/sleep");
    let check = |pid: i32| {
        assert!(poll_until(Duration::from_secs(5), || is_payload(pid).then_some(())).is_some());
        let open = targets(pid);
        assert_eq!(open.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{open:?}");
        assert!(open.values().all(|target| !target.contains("memfd:") && !target.contains("socket:")), "{open:?}");
    };
    check(container.pid());
    let pid_file = runtime.scratch().join("exec.pid");
    let flags = ["--detach", "--pid-file", &pid_file.display().to_string()];
    container.exec(&flags, &["/bin/sleep", "601"]).ok();
    let pid = read_lossy(&pid_file).trim().parse().expect("a pid in the pid file");
    check(pid);
    container.kill("KILL").ok();
    // It is our child now, and the container's init cannot end before it was waited for (pid_namespaces(7)).
    assert_eq!(wait_orphan(pid, Duration::from_secs(10)).map(shell_code), Some(137));
}

/// The namespaces of a container end with it. They are held open here, so that no other can get their numbers meanwhile;
/// then nothing else may have them: no process, no mount, no other descriptor of this process.
#[test]
fn namespaces_end_with_the_container() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), sleeper());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().ok();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let mut held = Vec::new();
    for kind in kinds {
        let path = format!("/proc/{}/ns/{kind}", container.pid());
        let name = fs::read_link(&path).expect("a namespace").display().to_string();
        if Some(&*name) != fs::read_link(format!("/proc/self/ns/{kind}")).ok().as_deref().and_then(Path::to_str) {
            held.push((name, fs::File::open(path).expect("open a namespace")));
        }
    }
    assert!(held.len() >= 5, "{held:?}");
    assert_eq!(container.exec(&[], &["/bin/sh", "-c", "exit 3"]).code, 3);
    container.kill("KILL").ok();
    assert_eq!(container.wait_exit(), Some(137));
    container.delete(&[]).ok();
    let names: Vec<&str> = held.iter().map(|(name, _)| &**name).collect();
    let free = || users(&names).is_empty().then_some(());
    assert!(poll_until(Duration::from_secs(5), free).is_some(), "still used: {:?}", users(&names));
    let open = descriptors().into_iter().filter(|target| names.contains(&&**target)).count();
    assert_eq!(open, held.len());
}

/// The processes and mounts that use one of these namespaces (`net:[4026531840]`).
fn users(names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for namespace in fs::read_dir(process.path().join("ns")).into_iter().flatten().flatten() {
            let target = fs::read_link(namespace.path()).unwrap_or_default().display().to_string();
            if names.contains(&&*target) {
                found.push(format!("{} is in {target}", process.path().display()));
            }
        }
    }
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    found.extend(table.lines().filter(|line| names.iter().any(|name| line.contains(name))).map(str::to_owned));
    found
}
