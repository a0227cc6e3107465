//! Hosts that have run out of something: a container is made as it should be, or an error says what was being done, and
//! nothing is left.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::support::runtime::{find_program, next_number};
use crate::support::{Bundle, Container, Output, Runtime, leftover, own_engine, skip};

/// How long a command may take on a host with thousands of cgroups or mounts, and slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Either the program's word, or one line of an error that is neither a crash nor nothing.
#[track_caller]
fn right_or_told(what: &str, output: &Output, stdout: &str) -> bool {
    if output.code == 0 {
        assert_eq!(stdout, "right\n", "{what}");
        return true;
    }
    assert_eq!(output.code, 1, "{what}: {}", output.stderr);
    assert!(output.stderr.contains(": ") && !output.stderr.contains("panicked"), "{what}: {:?}", output.stderr);
    false
}

/// Runs a container behind `words` for each of them, and says how many went well.
fn run_behind(runtime: &Runtime, bundle: &Bundle, each: impl IntoIterator<Item = Vec<String>>) -> (usize, usize) {
    let (mut right, mut told) = (0, 0);
    for words in each {
        let container = Container::new(runtime, bundle);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = container.background("run", &[]).through(&words).run();
        match right_or_told(&words.join(" "), &output, &container.stdout()) {
            true => right += 1,
            false => told += 1,
        }
        let left = leftover::of(&container.id, bundle.path(), &runtime.root());
        assert!(left.is_empty(), "{words:?}: left {left:?}");
    }
    (right, told)
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}

/// A state directory of so many KiB and files, all but `$3` KiB full; `$4` are the mount's options. Ends with 90 where the
/// container could not be deleted, with 91 where something stayed.
const DISK: &str = r#"
    root=$1 id=$2 free=$3 options=$4; shift 4; program=$1
    mkdir -p $root && mount -t tmpfs -o size=256k,$options tmpfs $root || exit 92
    head -c $(( (256 - free) * 1024 )) /dev/zero > $root/full@ 2>/dev/null
    [ "${options%ro}" = "$options" ] || mount -o remount,ro $root
    "$@"; code=$?
    if [ $code = 0 ]; then "$program" --root $root delete --force $id || exit 90; fi
    left=$(ls -A $root | grep -v '^full@$')
    [ -z "$left" ] || { echo "left: $left" >&2; exit 91; }
    exit $code"#;

fn create_on_disk(runtime: &Runtime, bundle: &Bundle, free: usize, options: &str) -> Output {
    let container = Container::new(runtime, bundle);
    let root = runtime.root().display().to_string();
    let free = free.to_string();
    let output = container
        .background("create", &[])
        .through(&["unshare", "-m", "sh", "-c", DISK, "sh", &root, &container.id, &free, options])
        .run();
    assert!(output.code < 2, "{free} KiB, {options}: code {} {}", output.code, output.stderr);
    let left = leftover::of(&container.id, bundle.path(), &runtime.root());
    assert!(left.is_empty(), "{free} KiB, {options}: left {left:?}");
    output
}

#[test]
fn a_full_disk() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let (mut made, mut told) = (0, 0);
    let room = (0..=32).step_by(4).map(|free| (free, "mode=755".to_owned()));
    let names = (2..12).map(|inodes| (256, format!("mode=755,nr_inodes={inodes}")));
    for (free, options) in room.chain(names) {
        let output = create_on_disk(&runtime, &bundle, free, &options);
        if output.code == 0 {
            made += 1;
        } else {
            told += 1;
            assert!(output.stderr.contains("no space left on device"), "{free} {options}: {}", output.stderr);
            assert!(output.stderr.contains("--root"), "{free} {options}: {}", output.stderr);
        }
    }
    let _ = writeln!(std::io::stderr(), "a full disk: {made} made, {told} told");
    assert!(made > 0 && told > 0);
}

#[test]
fn a_readonly_state_directory() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("true");
    let output = create_on_disk(&runtime, &bundle, 256, "mode=755,ro").fails(1, "read-only file system");
    assert!(output.stderr.contains("--root"), "{}", output.stderr);
}

#[test]
fn few_descriptors() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("echo right");
    bundle.mount("/data", "tmpfs", "tmpfs", &[]).make_dir("source");
    // The default configuration would raise the limit, which nobody without privileges may.
    bundle.bind("source", "/bound", &["rbind"]).remove("/process/rlimits");
    // Each hierarchy of cgroup v1 takes some.
    let limits = (3..80).map(|number| words(&["prlimit", &format!("--nofile={number}:{number}")]));
    let (right, told) = run_behind(&runtime, &bundle, limits);
    let _ = writeln!(std::io::stderr(), "few descriptors: {right} right, {told} told");
    assert!(right > 0 && told > 0);
}

/// From too little for the program itself, where there is nobody who could say anything, up to enough.
#[test]
fn little_memory() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo right");
    let (mut begun, mut right) = (false, 0);
    for quarter in 4..400 {
        let container = Container::new(&runtime, &bundle);
        let limit = format!("--as={}", quarter << 18);
        let output = container.background("run", &[]).through(&["prlimit", &limit]).run();
        // The kernel's word for a program that it cannot load, and the language's runtime's for one that lacks memory.
        let is_unloadable = !begun && [137, 139].contains(&output.code);
        let says_so = ["memory", "allocate"].iter().any(|word| output.stderr.contains(word));
        let is_aborted = [127, 134].contains(&output.code) && says_so;
        if !is_unloadable && !is_aborted {
            begun = true;
            right += usize::from(right_or_told(&limit, &output, &container.stdout()));
        }
        let left = leftover::of(&container.id, bundle.path(), &runtime.root());
        assert!(left.is_empty(), "{limit}: left {left:?}");
        if right > 8 {
            return;
        }
    }
    panic!("100 MiB are not enough");
}

/// The container's own limit, down to less than a program can start with.
#[test]
fn little_memory_for_the_container() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("echo right");
    bundle.set("/linux/resources", json!({}));
    for kibi in [0, 4, 64, 256, 512, 1024, 4096] {
        bundle.set("/linux/resources/memory", json!({ "limit": kibi << 10 }));
        let container = Container::new(&runtime, &bundle);
        let output = container.run(&[]);
        // 137: it was made, and the kernel ended it for want of memory.
        assert!([0, 1, 137].contains(&output.code), "{kibi} KiB: code {} {}", output.code, output.stderr);
        assert!(output.code != 1 || output.stderr.contains(": "), "{kibi} KiB: {:?}", output.stderr);
    }
}

/// A cgroup of the hierarchy for pids, with all that is below it.
struct Pids(PathBuf);

impl Pids {
    fn new() -> Option<Pids> {
        let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let hierarchy = hierarchy.into_iter().find(|path| path.join("cgroup.procs").exists())?;
        let path = hierarchy.join(format!("rtxtest-limits-{}-{}", std::process::id(), next_number()));
        fs::create_dir(&path).ok()?;
        Some(Pids(path))
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        for child in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(child.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_pid_table() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo right");
    let Some(group) = Pids::new().filter(|group| group.0.join("pids.max").exists()) else {
        skip!("no cgroup whose processes could be limited");
    };
    let script = "echo $1 > $0/pids.max; echo $$ > $0/cgroup.procs; shift; exec \"$@\"";
    let path = group.0.display().to_string();
    let limits = (1..=6).map(|most| words(&["sh", "-c", script, &path, &most.to_string()]));
    let (right, told) = run_behind(&runtime, &bundle, limits);
    let _ = writeln!(std::io::stderr(), "a full pid table: {right} right, {told} told");
    assert!(right > 0 && told > 0);
}

#[test]
fn ten_thousand_cgroups() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo right; exec sleep 600");
    let Some(group) = Pids::new() else { skip!("no cgroup hierarchy to fill") };
    for number in 0..10_000 {
        fs::create_dir(group.0.join(number.to_string())).expect("make a cgroup");
    }
    let container = Container::new(&runtime, &bundle);
    let patiently = |invocation: crate::support::runtime::Invocation| invocation.start().wait_within(PATIENCE).ok();
    patiently(container.background("run", &["--detach"]));
    container.wait_stdout("right");
    patiently(container.exec_call(&[], &["true"]));
    patiently(runtime.invoke(&["delete", "--force", &container.id]));
}

/// Thirteen copies of all that is there, one in the other.
const MOUNTS: &str = r#"
    d=$0; mkdir -p $d; mount -t tmpfs tmpfs $d || exit 92; i=0
    while [ $i -lt 13 ]; do i=$((i + 1)); mkdir $d/$i; mount --rbind $d $d/$i || exit 92; done
    [ $(wc -l < /proc/self/mountinfo) -gt 5000 ] || exit 93
    exec "$@""#;

#[test]
fn five_thousand_mounts() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo right; wc -l < /proc/self/mountinfo");
    let mounts = bundle.make_dir("many").display().to_string();
    let container = Container::new(&runtime, &bundle);
    let call = container.background("run", &[]).through(&["unshare", "-m", "sh", "-c", MOUNTS, &mounts]);
    let output = call.start().wait_within(PATIENCE).ok();
    let stdout = container.stdout();
    let count: usize = stdout.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number of mounts");
    assert!(count < 100, "{count} mounts in the container; {}", output.stderr);
}

/// As a network file system may be: whatever is done to a file takes its time. Commands that meet find no half of anything.
#[test]
fn a_slow_state_directory() {
    let runtime = own_engine!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let calls = "inject=openat,mkdirat,renameat,unlinkat,unlink,rmdir,flock,read,write,newfstatat:delay_enter=3000";
    let runtime = runtime.wrapped(&["strace", "-o", "/dev/null", "-e", calls]);
    let bundle = Bundle::shell("echo right; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let patiently = |words: &[&str]| runtime.invoke(words).start().wait_within(PATIENCE);
    let creating = container.background("run", &["--detach"]).start();
    while runtime.root().read_dir().map_or(true, |mut entries| entries.next().is_none()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (state, list) = (patiently(&["state", &container.id]), patiently(&["list", "--quiet"]));
    assert!(state.code == 0 || state.stderr.contains("does not exist"), "{}", state.stderr);
    assert_eq!(list.code, 0, "{}", list.stderr);
    creating.wait_within(PATIENCE).ok();
    let commands = ["kill", "delete"].map(|verb| runtime.invoke(&[verb, &container.id]).start());
    for output in commands.map(|command| command.wait_within(PATIENCE)) {
        assert!(output.code < 2, "{}", output.stderr);
    }
    patiently(&["delete", "--force", &container.id]).ok();
}

#[test]
fn more_arguments_than_the_kernel_takes() {
    let runtime = own_engine!();
    for (count, length) in [(1, 200_000), (30_000, 100)] {
        let mut bundle = Bundle::shell("echo right");
        let base = bundle.spec.clone();
        for pointer in ["/process/env", "/process/args"] {
            bundle.spec = base.clone();
            let list = bundle.spec.pointer_mut(pointer).and_then(|list| list.as_array_mut()).expect("a list");
            list.extend((0..count).map(|number| json!(format!("A{number}={}", "x".repeat(length)))));
            let container = Container::new(&runtime, &bundle);
            let output = container.background("run", &[]).start().wait_within(PATIENCE);
            output.fails(1, "argument list too long");
        }
    }
}

/// With room for one process more, where an exec needs two for a moment.
#[test]
fn an_exec_that_the_limit_of_processes_refuses_says_so() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    bundle.set("/linux/resources/pids", json!({ "limit": 2 }));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    container.exec(&[], &["true"]).fails(255, "/linux/resources/pids/limit");
    runtime.run(&["update", "--pids-limit", "3", &container.id]).ok();
    container.exec(&[], &["true"]).ok();
}
