//! The commands on a container that is there: list, ps, update, pause, resume, events.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::children::poll_until;
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, skip};

const MIB: u64 = 1 << 20;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
}

fn running<'a>(runtime: &'a Runtime, bundle: &'a Bundle) -> Container<'a> {
    let container = Container::new(runtime, bundle);
    container.run_detached(&[]).ok();
    container
}

/// A container that has limits and waits.
fn limited() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle
        .set("/linux/resources/memory", json!({ "limit": 64 * MIB }))
        .set("/linux/resources/pids", json!({ "limit": 50 }));
    bundle
}

/// What a container's cgroups have in `file`; None where this host has no such file.
fn cgroup(container: &Container, file: &str) -> Option<String> {
    let directories = leftover::cgroups(&container.id);
    let found = directories.iter().map(|directory| directory.join(file)).find(|path| path.exists())?;
    Some(read_lossy(&found).trim().to_owned())
}

/// `update` with `flags`, which are separated by blanks, and then the value of a file, where the host has it.
#[track_caller]
fn updates(container: &Container, flags: &str, file: &str, value: &str) {
    if cgroup(container, file).is_none() {
        return;
    }
    let words: Vec<&str> = ["update"].into_iter().chain(flags.split(' ')).chain([&*container.id]).collect();
    container.runtime.run(&words).ok();
    assert_eq!(cgroup(container, file).as_deref(), Some(value), "{file} after update {flags}");
}

#[test]
fn each_limit_can_be_updated() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    let container = running(&runtime, &bundle);
    if cgroup(&container, "memory.limit_in_bytes").is_none() {
        skip!("needs cgroup v1 controllers");
    }
    let unlimited = "9223372036854771712";
    for (flags, file, value) in [
        ("--memory 32M", "memory.limit_in_bytes", "33554432"),
        ("--memory=-1", "memory.limit_in_bytes", unlimited),
        ("--memory 64M --memory-swap 128M", "memory.memsw.limit_in_bytes", "134217728"),
        ("--memory-swap -1", "memory.memsw.limit_in_bytes", unlimited),
        ("--memory-reservation 16M", "memory.soft_limit_in_bytes", "16777216"),
        ("--cpu-share 512", "cpu.shares", "512"),
        ("--cpu-period 50000 --cpu-quota 25000", "cpu.cfs_quota_us", "25000"),
        ("--cpu-period 40000", "cpu.cfs_period_us", "40000"),
        ("--cpu-burst 10000", "cpu.cfs_burst_us", "10000"),
        ("--cpu-quota -1 --cpu-burst 0", "cpu.cfs_quota_us", "-1"),
        ("--cpu-idle 1", "cpu.idle", "1"),
        ("--cpu-idle 0", "cpu.idle", "0"),
        ("--cpuset-cpus 0", "cpuset.cpus", "0"),
        ("--cpuset-mems 0", "cpuset.mems", "0"),
        ("--pids-limit 7", "pids.max", "7"),
        ("--pids-limit -1", "pids.max", "max"),
        ("--blkio-weight 50", "blkio.bfq.weight", "50"),
    ] {
        updates(&container, flags, file, value);
    }
    assert_eq!(cgroup(&container, "cpu.shares").as_deref(), Some("512"), "leaving idle gives the shares back");
}

#[test]
fn update_reads_json_from_a_file_and_from_stdin() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    let container = running(&runtime, &bundle);
    let file = bundle.make_file("limits.json", r#"{"pids":{"limit":21}}"#).display().to_string();
    runtime.run(&["update", &format!("--resources={file}"), &container.id]).ok();
    assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("21"));
    // As callers written in Go send it: everything, with zeros for what stays.
    let all = r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"cpus":""},"pids":{"limit":22},"devices":[]}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(all).run().ok();
    assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("22"));
    assert_eq!(parse(&runtime.run(&["events", "--stats", &container.id]).ok().stdout)["data"]["pids"]["limit"], 22);
    if let Some(limit) = cgroup(&container, "memory.limit_in_bytes") {
        assert_eq!(limit, (64 * MIB).to_string(), "a zero is no limit");
    }
}

/// As callers write what they do not give: a limit of no processes, or an object without one.
#[test]
fn update_of_processes_that_are_not_given() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    let container = running(&runtime, &bundle);
    for nothing in [r#"{"pids":{"limit":0}}"#, r#"{"pids":{},"cpu":{"shares":700}}"#] {
        runtime.invoke(&["update", "--resources", "-", &container.id]).input(nothing).run().ok();
        assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("50"), "{nothing}");
    }
}

/// Whatever of it the configuration knew nothing of.
#[test]
fn an_update_that_fails_takes_everything_back() {
    let runtime = own_engine!();
    needs_root!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = running(&runtime, &bundle);
    let files = ["pids.max", "cpu.shares", "cpu.weight", "memory.soft_limit_in_bytes", "memory.low", "cpuset.cpus"];
    let seen = || files.map(|file| cgroup(&container, file));
    let before = seen();
    assert!(before[0].is_some(), "{before:?}");
    let request = r#"{"pids":{"limit":10},"cpu":{"shares":700,"cpus":"4095"},"memory":{"reservation":16777216}}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(request).run().fails(1, "/cpu/cpus: ");
    assert_eq!(seen(), before);
    // What somebody else has written since is what was there.
    let pids =
        leftover::cgroups(&container.id).into_iter().map(|place| place.join("pids.max")).find(|file| file.exists());
    fs::write(pids.expect("a cgroup with pids.max"), "33").expect("write pids.max");
    let request = r#"{"pids":{"limit":10},"cpu":{"cpus":"4095"}}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(request).run().fails(1, "/cpu/cpus: ");
    assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("33"));
    // And what is taken as such afterwards can be had.
    runtime.run(&["update", "--pids-limit", "9", "--cpu-share", "700", &container.id]).ok();
    assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("9"));
}

#[test]
fn update_gives_the_oom_killer_back() {
    let runtime = own_engine!();
    needs_root!();
    let mut bundle = limited();
    bundle.set("/linux/resources/memory/disableOOMKiller", json!(true));
    if !Path::new("/sys/fs/cgroup/memory/memory.oom_control").exists() {
        skip!("cgroup v2 has no way to disable the OOM killer");
    }
    let container = running(&runtime, &bundle);
    let is_disabled =
        || cgroup(&container, "memory.oom_control").is_some_and(|text| text.contains("oom_kill_disable 1"));
    assert!(is_disabled());
    let request = r#"{"memory":{"disableOOMKiller":false}}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(request).run().ok();
    assert!(!is_disabled());
}

/// Of version 2, where swap has a limit of its own.
#[test]
fn an_update_of_memory_leaves_swap_as_it_is() {
    let runtime = own_engine!();
    needs_root!();
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        skip!("needs cgroup v2 alone");
    }
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    bundle.set("/linux/resources/memory", json!({ "limit": 64 * MIB, "swap": 128 * MIB }));
    let container = running(&runtime, &bundle);
    runtime.run(&["update", "--memory", "256M", &container.id]).ok();
    assert_eq!(cgroup(&container, "memory.max"), Some((256 * MIB).to_string()));
    if let Some(swap) = cgroup(&container, "memory.swap.max") {
        assert_eq!(swap, (64 * MIB).to_string());
    }
    runtime.run(&["update", "--memory-swap", "300M", &container.id]).ok();
    assert_eq!(cgroup(&container, "memory.max"), Some((256 * MIB).to_string()));
}

#[test]
fn update_refuses_what_is_wrong_and_changes_nothing() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let container = running(&runtime, &bundle);
    let update = |flags: &[&str]| runtime.run(&[&["update"], flags, &[&*container.id]].concat());
    update(&["--memory", "abc"]).fails(1, "invalid value for memory: invalid size: 'abc'");
    update(&["--memory-swap", "10M"]).fails(1, "--memory-swap: memory+swap limit should be >= memory limit");
    update(&["--cpu-quota", "5"]).fails(1, "invalid limits: --cpu-quota: ");
    update(&["--l3-cache-schema", "L3:0=f"]).fails(1, "--l3-cache-schema: ");
    update(&["--resources", "/nope"]).fails(1, "/nope: no such file or directory");
    let json = |text: &str| runtime.invoke(&["update", "--resources", "-", &container.id]).input(text).run();
    json("root:x").fails(1, "standard input is not valid JSON");
    json(r#"{"cpu":5,"pids":{"limit":"x"}}"#).fails(1, "/pids/limit: must be a number");
    // The pids are written before the kernel refuses the CPUs, or after: in either case they are as they were.
    let output = update(&["--pids-limit", "9", "--cpuset-cpus", "4095"]);
    assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{}", output.stderr);
    assert!(output.stderr.contains(": --cpuset-cpus: "), "{}", output.stderr);
    json(r#"{"cpu":{"cpus":"4095"}}"#).fails(1, ": /cpu/cpus: ");
    assert_eq!(cgroup(&container, "pids.max").as_deref(), Some("50"));
    container.kill("KILL").ok();
    container.wait_exit();
    update(&["--pids-limit", "9"]).fails(1, "container not running");
}

#[test]
fn what_changes_nothing_is_told_once() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), limited());
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    bundle.set("/linux/resources/memory", json!({ "kernel": MIB, "kernelTCP": MIB }));
    let told = Container::new(&runtime, &bundle).create().ok().stderr;
    for name in ["kernel", "kernelTCP"] {
        assert_eq!(told.matches(&format!("/linux/resources/memory/{name}: ")).count(), 1, "{told}");
    }
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn of_two_devices_with_one_path_the_first_is_there() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("stat -c '%t:%T' /dev/twice"));
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let device = |minor: u32| json!({ "path": "/dev/twice", "type": "c", "major": 1, "minor": minor });
    bundle.set("/linux/devices", json!([device(3), device(5)]));
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert_eq!(output.stdout, "1:3\n");
    assert!(output.stderr.contains("/linux/devices/1/path: /dev/twice is given twice; the first one holds"));
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

/// Limits that Linux has no more, which old callers still give, and empty values, which mean none.
#[test]
fn update_takes_what_runc_takes() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    let container = running(&runtime, &bundle);
    let flags = ["--kernel-memory", "10M", "--kernel-memory-tcp", "10M", "--pids-limit", "11"];
    let output = runtime.run(&[&["update"], &flags[..], &[&*container.id]].concat()).ok();
    if runtime.is_rtx() {
        assert!(output.stderr.contains("warning: --kernel-memory: "), "{}", output.stderr);
    }
    let names = "cpu-share cpu-quota cpu-period cpu-rt-period cpu-rt-runtime cpuset-cpus cpuset-mems memory \
                 memory-reservation memory-swap kernel-memory";
    let mut words: Vec<String> = names.split_whitespace().map(|name| format!("--{name}=")).collect();
    words.insert(0, "update".into());
    words.extend(["--pids-limit=12".into(), container.id.clone()]);
    assert_eq!(runtime.run(&words).ok().stderr, "");
    if let Some(limit) = cgroup(&container, "pids.max") {
        assert_eq!(limit, "12");
    }
}

/// What is no id is no container that might be gone: whoever has mistyped a path learns of it.
#[test]
fn delete_force_of_what_is_no_id_is_an_error() {
    let runtime = own_engine!();
    for id in ["a/b", "../x", "\u{e4}"] {
        runtime.run(&["delete", "--force", id]).fails(1, "id");
    }
    runtime.run(&["delete", "--force", "nosuch"]).ok();
}

/// Who has joined a container is held by its limits, or has not joined.
#[test]
fn exec_fails_where_a_cgroup_of_the_container_has_gone() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = running(&runtime, &bundle);
    let Some(pids) = leftover::cgroups(&container.id).into_iter().find(|path| path.starts_with("/sys/fs/cgroup/pids"))
    else {
        skip!("no cgroup v1 hierarchy for pids");
    };
    let parent = pids.parent().expect("a cgroup above");
    std::fs::write(parent.join("tasks"), container.pid().to_string()).expect("move init");
    std::fs::remove_dir(&pids).expect("remove its cgroup");
    container.exec(&[], &["true"]).fails(255, "pids");
}

/// Where init has handed out controllers, nobody else can be in the container's cgroup of version 2 (systemd, Docker in Docker).
#[test]
fn exec_follows_init_into_its_cgroup() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = running(&runtime, &bundle);
    let is_v2 = |path: &PathBuf| path.join("cgroup.subtree_control").exists();
    let Some(own) = leftover::cgroups(&container.id).into_iter().find(is_v2) else {
        skip!("no cgroup v2 hierarchy");
    };
    let controllers = read_lossy(&own.join("cgroup.controllers"));
    let Some(controller) = controllers.split_whitespace().find(|name| ["hugetlb", "pids", "memory"].contains(name))
    else {
        skip!("no controller of cgroup v2 to hand out");
    };
    std::fs::create_dir(own.join("inner")).expect("make a cgroup");
    std::fs::write(own.join("inner/cgroup.procs"), container.pid().to_string()).expect("move init");
    std::fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).expect("hand out a controller");
    let seen = container.exec(&[], &["grep", "^0::", "/proc/self/cgroup"]).ok().stdout;
    assert!(seen.trim().ends_with("/inner"), "{seen}");
}

#[test]
fn pause_stops_and_resume_continues() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("while :; do echo beat; sleep 0.02; done"));
    let container = running(&runtime, &bundle);
    container.wait_stdout("beat");
    runtime.run(&["pause", &container.id]).ok();
    assert_eq!(container.status(), "paused");
    let before = container.stdout().len();
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(container.stdout().len(), before, "it wrote on while it was paused");
    runtime.run(&["resume", &container.id]).ok();
    assert_eq!(container.status(), "running");
    let grown = poll_until(Duration::from_secs(5), || (container.stdout().len() > before).then_some(()));
    assert!(grown.is_some(), "it did not go on");
    runtime.run(&["resume", &container.id]).fails(1, "container not paused");
}

#[test]
fn events_follow_a_container_to_its_end() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    let container = running(&runtime, &bundle);
    let following = runtime.invoke(&["events", "--interval", "50ms", &container.id]).start();
    let lines = poll_until(Duration::from_secs(10), || (following.stdout_now().lines().count() > 2).then_some(()));
    assert!(lines.is_some(), "no statistics");
    container.kill("KILL").ok();
    let output = following.wait().ok();
    for line in output.stdout.lines() {
        let event = parse(line);
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id)));
        assert!(event["data"]["memory"]["usage"]["limit"].is_u64(), "{line}");
    }
    container.wait_exit();
    runtime.run(&["events", &container.id]).fails(1, "not running");
}

#[test]
fn events_tell_of_memory_that_ran_out() {
    needs_root!();
    let mut bundle = Bundle::shell("read x < /fifo; tail /dev/zero; echo the rest lives; exec sleep 600");
    bundle.set("/linux/resources/memory", json!({ "limit": 8 * MIB, "swap": 8 * MIB }));
    let runtime = Runtime::under_test();
    let container = Container::new(&runtime, &bundle);
    let fifo = bundle.rootfs().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    container.run_detached(&[]).ok();
    let following = runtime.invoke(&["events", "--interval", "100ms", &container.id]).start();
    // Once there are statistics, the watch is there too.
    poll_until(Duration::from_secs(10), || following.stdout_now().contains("stats").then_some(())).expect("statistics");
    fs::write(&fifo, "go\n").expect("let the payload go on");
    container.wait_stdout("the rest lives");
    let seen = poll_until(Duration::from_secs(10), || following.stdout_now().contains(r#""type":"oom""#).then_some(()));
    assert!(seen.is_some(), "no event of memory that ran out: {}", following.stdout_now());
    container.kill("KILL").ok();
    let output = following.wait().ok();
    let line = output.stdout.lines().find(|line| line.contains("oom\"")).expect("the event");
    assert_eq!(parse(line), json!({ "type": "oom", "id": container.id }));
}

#[test]
fn list_shows_the_rest_beside_a_damaged_container() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), limited());
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let container = running(&runtime, &bundle);
    let damaged = runtime.root().join("damaged");
    fs::create_dir(&damaged).and_then(|()| fs::write(damaged.join("state.json"), "{")).expect("a damaged container");
    fs::create_dir(runtime.root().join("halfmade")).expect("what a killed create leaves");
    let output = runtime.run(&["list", "--quiet"]).ok();
    assert_eq!(output.stdout, format!("{}\n", container.id));
    let advice = format!("`rtx --root {} delete --force damaged`", runtime.root().display());
    assert!(output.stderr.contains(&advice), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    runtime.run(&["delete", "--force", "damaged"]).ok();
    runtime.run(&["delete", "--force", "halfmade"]).ok();
    assert_eq!(runtime.run(&["list"]).ok().stderr, "");
}

/// The names in a JSON value, with their places; numbers of devices and pages differ, names must not.
fn names(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| names(value, &format!("{at}/{name}"), found)),
        Value::Array(list) => list.iter().take(1).for_each(|value| names(value, &format!("{at}/0"), found)),
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn the_outputs_have_the_form_of_the_peers() {
    needs_root!();
    let Some(peer) = Runtime::peer() else { skip!("there is no runtime to compare with") };
    let (runtime, bundle, other) = (Runtime::under_test(), limited(), limited());
    let (ours, theirs) = (running(&runtime, &bundle), running(&peer, &other));
    let both = |args: &dyn Fn(&Container) -> Vec<String>| {
        (runtime.run(&args(&ours)).ok().stdout, peer.run(&args(&theirs)).ok().stdout)
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();

    let (our, their) = both(&|_| words(&["list", "--format", "json"]));
    let keys = |text: &str| parse(text)[0].as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&our), keys(&their));

    let (our, their) = both(&|_| words(&["list"]));
    let headings =
        |text: &str| text.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(headings(&our), headings(&their));
    // Where the columns stand follows from the widths of the cells, which are the same here but for nanoseconds.
    assert_eq!(our.find("BUNDLE"), their.find("BUNDLE"));
    assert_eq!(our.find("CREATED"), their.find("CREATED"));

    let (our, their) = both(&|container| words(&["ps", &container.id, "-o", "pid,args"]));
    assert_eq!(our.lines().next(), their.lines().next());
    assert_eq!(our.lines().count(), their.lines().count());

    let (our, their) = both(&|container| words(&["events", "--stats", &container.id]));
    let named = |text: &str| {
        let mut found = Vec::new();
        names(&parse(text)["data"]["memory"]["usage"], "", &mut found);
        names(&parse(text)["data"]["cpuset"], "", &mut found);
        names(&parse(text)["data"]["pids"], "", &mut found);
        // cgroup v2's memory.peak is newer than runc 1.1.5, which has it on v1 only.
        found.retain(|name| name != "/max");
        found.sort();
        found
    };
    assert_eq!(named(&our), named(&their));
}
