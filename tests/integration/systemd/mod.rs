//! Containers as scopes of systemd: only where systemd runs, so mostly in the guest, on each kind of cgroups.

mod owners;
mod rootless;

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::runtime::read_lossy;
use crate::support::units::{is_v2, property};
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, skip};

macro_rules! needs_systemd {
    () => {
        $crate::support::needs_root!();
        if !$crate::support::units::systemd_runs() {
            $crate::support::skip!("systemd does not run here");
        }
    };
}
pub(crate) use needs_systemd;

fn runtime() -> Runtime {
    Runtime::under_test().with_flags(&["--systemd-cgroup"])
}

fn file(path: &str) -> String {
    read_lossy(path.as_ref()).trim().to_owned()
}

fn reload() {
    assert!(Command::new("systemctl").arg("daemon-reload").status().expect("run systemctl").success());
}

/// Fails unless a process is in this cgroup, in every hierarchy.
#[track_caller]
fn assert_in(table: &str, path: &str) {
    assert!(!table.is_empty() && table.lines().all(|line| line.ends_with(&format!(":{path}"))), "{path}: {table}");
}

/// The directory of a cgroup: in the hierarchy of that controller, where there is more than one.
fn cgroup(controller: &str, path: &str) -> String {
    if is_v2() { format!("/sys/fs/cgroup{path}") } else { format!("/sys/fs/cgroup/{controller}{path}") }
}

/// A container that waits, in a scope of its bundle's name below a slice of its own.
fn waiting() -> (Bundle, String) {
    let mut bundle = Bundle::shell("exec sleep 600");
    let name = bundle.name().replace("rtx-test-", "t");
    bundle.set("/linux/cgroupsPath", json!(format!("rtx-tests.slice:case:{name}")));
    (bundle, format!("case-{name}.scope"))
}

#[track_caller]
fn assert_gone(unit: &str) {
    assert_eq!(property(unit, "LoadState"), "not-found");
    assert_eq!(leftover::cgroups(unit), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_scope_with_its_limits() {
    needs_systemd!();
    if !is_v2() {
        skip!("this host has cgroup v1");
    }
    let runtime = runtime();
    let (mut bundle, unit) = waiting();
    bundle
        .set("/linux/resources/memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }))
        .set("/linux/resources/cpu", json!({ "shares": 1024, "quota": 12_345, "period": 50_000 }))
        .set("/linux/resources/pids", json!({ "limit": 42 }))
        .set("/linux/resources/unified", json!({ "memory.high": "60000000" }));
    bundle.spec["annotations"] = json!({
        "org.systemd.property.TimeoutStopSec": "uint64 7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    });
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let path = format!("rtx.slice/rtx-tests.slice/{unit}");
    assert_eq!(file(&format!("/proc/{}/cgroup", container.pid())), format!("0::/{path}"));
    for (name, value) in [
        ("Slice", "rtx-tests.slice"),
        ("Description", &*format!("OCI container {}", container.id)),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "60000000"),
        ("CPUWeight", "100"),
        ("CPUQuotaPerSecUSec", "250ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("TasksMax", "42"),
        ("TimeoutStopUSec", "7s"),
        ("CollectMode", "inactive-or-failed"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    // systemd rounds; the files have what was asked for.
    for (name, value) in [("cpu.max", "12345 50000"), ("memory.max", "67108864"), ("pids.max", "42")] {
        assert_eq!(file(&format!("/sys/fs/cgroup/{path}/{name}")), value, "{name}");
    }
    container.start().ok();
    let inside = container.exec(&[], &["cat", "/proc/1/cgroup", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(inside.lines().count(), 2);
    assert!(inside.lines().all(|line| line.ends_with(&unit)), "{inside}");
    container.delete(&["--force"]).ok();
    assert_gone(&unit);
}

#[test]
fn a_scope_on_cgroup_v1() {
    needs_systemd!();
    if is_v2() {
        skip!("this host has cgroup v2 alone");
    }
    let runtime = runtime();
    let (mut bundle, unit) = waiting();
    bundle
        .set("/linux/resources/memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }))
        .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 12_345, "period": 50_000 }))
        .set("/linux/resources/pids", json!({ "limit": 42 }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let path = format!("/rtx.slice/rtx-tests.slice/{unit}");
    container.start().ok();
    // In the hierarchies that systemd leaves alone as well.
    assert_in(&file(&format!("/proc/{}/cgroup", container.pid())), &path);
    let inside = container.exec(&[], &["cat", "/proc/1/cgroup", "/proc/self/cgroup"]).ok().stdout;
    assert_in(&inside, &path);
    let check = |when: &str| {
        for (name, value) in [
            ("Slice", "rtx-tests.slice"),
            ("Delegate", "yes"),
            ("DefaultDependencies", "no"),
            ("MemoryLimit", "67108864"),
            ("CPUShares", "512"),
            ("CPUQuotaPerSecUSec", "250ms"),
            ("CPUQuotaPeriodUSec", "50ms"),
            ("TasksMax", "42"),
            ("DevicePolicy", "strict"),
        ] {
            assert_eq!(property(&unit, name), value, "{name} {when}");
        }
        for (controller, name, value) in [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("pids", "pids.max", "42"),
        ] {
            assert_eq!(file(&format!("{}/{name}", cgroup(controller, &path))), value, "{name} {when}");
        }
    };
    check("once created");
    // systemd rounds; the file has what was asked for.
    assert_eq!(file(&format!("{}/cpu.cfs_quota_us", cgroup("cpu", &path))), "12345");
    reload();
    check("after a reload");
    assert_in(&file(&format!("/proc/{}/cgroup", container.pid())), &path);
    container.delete(&["--force"]).ok();
    assert_gone(&unit);
}

#[test]
fn without_a_path_the_id_names_the_scope() {
    needs_systemd!();
    let runtime = Runtime::under_test().with_flags(&["--cgroup-manager", "systemd"]);
    let bundle = Bundle::shell("cat /proc/self/cgroup");
    let container = Container::new(&runtime, &bundle);
    let output = container.run(&[]).ok();
    assert_in(&output.stdout, &format!("/system.slice/rtx-{}.scope", container.id));
    assert_gone(&format!("rtx-{}.scope", container.id));
}

#[test]
fn update_tells_systemd() {
    needs_systemd!();
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    runtime.run(&["update", "--memory", "33554432", "--cpu-quota", "50000", "--pids-limit", "9", &container.id]).ok();
    let memory = if is_v2() { "MemoryMax" } else { "MemoryLimit" };
    let values = [memory, "CPUQuotaPerSecUSec", "TasksMax"].map(|name| property(&unit, name));
    assert_eq!(values, ["33554432", "500ms", "9"]);
    // What systemd does not know of, it would take back here.
    reload();
    let name = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    let directory = cgroup("memory", &format!("/rtx.slice/rtx-tests.slice/{unit}"));
    assert_eq!(file(&format!("{directory}/{name}")), "33554432");
}

/// Who writes to the files by itself, and again when it is told to.
#[test]
fn update_that_fails_is_taken_back() {
    needs_systemd!();
    if !is_v2() {
        skip!("cgroup v1 has no file that could be named to fail");
    }
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let directory = cgroup("pids", &format!("/rtx.slice/rtx-tests.slice/{unit}"));
    let seen = || {
        let properties = ["MemoryHigh", "TasksMax"].map(|name| property(&unit, name));
        (properties, ["memory.high", "pids.max", "cpu.weight"].map(|name| file(&format!("{directory}/{name}"))))
    };
    let before = seen();
    let request = r#"{"unified":{"memory.high":"100000000","memory.oom.group":"7"},"pids":{"limit":7}}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(request).run().fails(1, "memory.oom.group");
    assert_eq!(seen(), before);
    reload();
    assert_eq!(seen(), before);
}

/// What became of opening a block device, and of writing to /dev/null.
fn devices_in(container: &Container) -> (bool, bool) {
    let script = "rm -f /dev/x; mknod /dev/x b 98 0; head -c 1 /dev/x | wc -c; echo >/dev/null && echo null";
    let output = container.exec(&[], &["sh", "-c", script]);
    let text = output.stdout;
    assert!(text.starts_with('1') || output.stderr.contains("Operation not permitted"), "{text} {}", output.stderr);
    (text.starts_with('1'), text.contains("null"))
}

#[test]
fn devices_are_ruled_through_a_reload() {
    needs_systemd!();
    let runtime = runtime();
    let disk = json!({ "allow": true, "type": "b", "major": 98, "minor": 0, "access": "rwm" });
    let cases = [
        (false, json!([{ "allow": false, "access": "rwm" }])),
        (true, json!([{ "allow": false, "access": "rwm" }, disk])),
        (true, json!([{ "allow": true, "access": "rwm" }])),
    ];
    let bundles = cases.map(|(allowed, rules)| {
        let (mut bundle, _) = waiting();
        bundle.set("/linux/resources/devices", rules).capabilities(&["CAP_MKNOD"]);
        (allowed, bundle)
    });
    let containers = bundles.each_ref().map(|(allowed, bundle)| (*allowed, Container::new(&runtime, bundle)));
    let check = |when: &str| {
        for (allowed, container) in &containers {
            assert_eq!(devices_in(container), (*allowed, true), "{when}");
        }
    };
    for (_, container) in &containers {
        container.run_detached(&[]).ok();
    }
    // Each has a slice with neighbours of other rules.
    check("at first");
    reload();
    check("after a reload");
    for (_, container) in &containers {
        runtime.run(&["update", "--pids-limit", "50", &container.id]).ok();
        assert_eq!(container.status(), "running");
    }
    check("after an update");
}

/// systemd on cgroup v1 knows no such list. It never allows more than the container may.
#[test]
fn all_devices_but_one() {
    needs_systemd!();
    let runtime = runtime().with_flags(&["--debug"]);
    let (mut bundle, _) = waiting();
    let disk = json!({ "allow": false, "type": "b", "major": 98, "minor": 0, "access": "rwm" });
    bundle.set("/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }, disk]));
    bundle.capabilities(&["CAP_MKNOD"]);
    let container = Container::new(&runtime, &bundle);
    let output = container.run_detached(&[]).ok();
    assert_eq!(output.stderr.contains("/linux/resources/devices: "), !is_v2(), "{}", output.stderr);
    let zero = || container.exec(&[], &["sh", "-c", "mknod /dev/y c 1 11; echo >/dev/y"]).code == 0;
    assert_eq!((devices_in(&container), zero()), ((false, true), true));
    runtime.run(&["update", "--pids-limit", "50", &container.id]).ok();
    assert_eq!((devices_in(&container), zero()), ((false, true), true), "after an update");
    reload();
    assert_eq!((devices_in(&container), zero()), ((false, true), is_v2()), "after a reload");
}

#[test]
fn nothing_stays_after_a_failure() {
    needs_systemd!();
    let runtime = runtime();
    let (mut bundle, unit) = waiting();
    let hook = bundle.make_script("hook", "exit 1");
    bundle.spec["hooks"] = json!({ "createRuntime": [{ "path": hook }] });
    let container = Container::new(&runtime, &bundle);
    container.create().fails(1, "hook");
    assert_gone(&unit);
}

#[test]
fn stopped_from_outside() {
    needs_systemd!();
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    runtime.run(&["pause", &container.id]).ok();
    assert_eq!(container.status(), "paused");
    runtime.run(&["resume", &container.id]).ok();
    let stopped = Command::new("systemctl").args(["kill", "--signal=KILL", &unit]).status().expect("run systemctl");
    assert!(stopped.success());
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
    container.delete(&[]).ok();
    assert_gone(&unit);
}

#[test]
fn a_name_that_is_taken() {
    needs_systemd!();
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let (first, second) = (Container::new(&runtime, &bundle), Container::new(&runtime, &bundle));
    first.run_detached(&[]).ok();
    second.create().fails(1, "UnitExists");
    // The clean-up of the second must not end the first.
    assert_eq!(first.status(), "running");
    assert_eq!(property(&unit, "ActiveState"), "active");
}

#[test]
fn what_is_no_unit() {
    needs_systemd!();
    let runtime = runtime();
    let try_with = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = Bundle::shell("true");
        change(&mut bundle);
        Container::new(&runtime, &bundle).run(&[])
    };
    let output = try_with(&|b| b.spec["linux"]["cgroupsPath"] = json!("/a/b"));
    output.fails(1, "/linux/cgroupsPath: expected \"slice:prefix:name\"");
    let output = try_with(&|b| b.spec["annotations"] = json!({ "org.systemd.property.TasksMax": "many" }));
    output.fails(1, "/annotations/org.systemd.property.TasksMax");
    let output = try_with(&|b| b.spec["annotations"] = json!({ "org.systemd.property.NoSuchThing": "1" }));
    output.fails(1, "NoSuchThing");
}

#[test]
fn where_systemd_does_not_run() {
    needs_root!();
    if Path::new("/run/systemd/system").exists() {
        skip!("systemd runs here");
    }
    let (runtime, bundle) = (runtime(), Bundle::shell("true"));
    Container::new(&runtime, &bundle).run(&[]).fails(1, "systemd is not running on this host");
}
