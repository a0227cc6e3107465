//! Containers as scopes of systemd: only where systemd runs and cgroup v2 is all there is, so mostly in the guest.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, skip};

macro_rules! needs_systemd {
    () => {
        needs_root!();
        if !Path::new("/run/systemd/system").is_dir() {
            skip!("systemd does not run here");
        }
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            skip!("this host has cgroup v1");
        }
    };
}

fn runtime() -> Runtime {
    Runtime::under_test().with_flags(&["--systemd-cgroup"])
}

/// Properties of a unit, as `systemctl show` has them.
fn shown(unit: &str, properties: &[&str]) -> Vec<String> {
    let output = Command::new("systemctl")
        .args(["show", "--value", unit])
        .args(properties.iter().map(|name| format!("--property={name}")))
        .output()
        .expect("run systemctl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn property(unit: &str, name: &str) -> String {
    shown(unit, &[name]).pop().unwrap_or_default()
}

fn file(path: &str) -> String {
    read_lossy(path.as_ref()).trim().to_owned()
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
    assert!(leftover::cgroups(unit).is_empty());
}

#[test]
fn a_scope_with_its_limits() {
    needs_systemd!();
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
fn without_a_path_the_id_names_the_scope() {
    needs_systemd!();
    let runtime = Runtime::under_test().with_flags(&["--cgroup-manager", "systemd"]);
    let bundle = Bundle::shell("cat /proc/self/cgroup");
    let container = Container::new(&runtime, &bundle);
    let output = container.run(&[]).ok();
    assert_eq!(output.stdout.trim(), format!("0::/system.slice/rtx-{}.scope", container.id));
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
    let values = ["MemoryMax", "CPUQuotaPerSecUSec", "TasksMax"].map(|name| property(&unit, name));
    assert_eq!(values, ["33554432", "500ms", "9"]);
    // What systemd does not know of, it would take back here.
    assert!(Command::new("systemctl").arg("daemon-reload").status().expect("run systemctl").success());
    assert_eq!(file(&format!("/sys/fs/cgroup/rtx.slice/rtx-tests.slice/{unit}/memory.max")), "33554432");
}

#[test]
fn devices_are_ruled_through_a_reload() {
    needs_systemd!();
    let runtime = runtime();
    let (mut bundle, _) = waiting();
    bundle.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    bundle.capabilities(&["CAP_MKNOD"]);
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let forbidden = || {
        let made =
            container.exec(&[], &["sh", "-c", "rm -f /dev/x; mknod /dev/x b 98 0 && cat /dev/x | head -c 1 | wc -c"]);
        assert!(made.stderr.contains("Operation not permitted"), "{made:?}");
        assert_eq!(container.exec(&[], &["sh", "-c", "echo > /dev/null"]).code, 0);
    };
    forbidden();
    assert!(Command::new("systemctl").arg("daemon-reload").status().expect("run systemctl").success());
    forbidden();
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

/// The guest's ordinary user, who has a session, with a bundle and a runtime of its own.
fn as_user(flags: &[&str]) -> (Runtime, Bundle) {
    let words = ["runuser", "-u", "plain", "--", "env", "XDG_RUNTIME_DIR=/run/user/1000"];
    let runtime = Runtime::under_test().wrapped(&words).with_flags(flags);
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle
        .namespace("user", "")
        .mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])
        .set("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]))
        .set("/linux/gidMappings", json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]));
    give_to_user(runtime.scratch());
    give_to_user(bundle.path());
    (runtime, bundle)
}

fn give_to_user(directory: &Path) {
    let done = Command::new("chown").args(["-R", "1000:1000"]).arg(directory).status();
    assert!(done.expect("run chown").success());
}

macro_rules! needs_session {
    () => {
        needs_systemd!();
        if !Path::new("/run/user/1000/systemd/private").exists()
            || !read_lossy("/etc/passwd".as_ref()).contains("plain:")
        {
            skip!("there is no user \"plain\" with a session");
        }
    };
}

#[test]
fn rootless_in_the_users_session() {
    needs_session!();
    let (runtime, mut bundle) = as_user(&["--systemd-cgroup"]);
    bundle
        .set("/linux/resources/pids", json!({ "limit": 30 }))
        .set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let cgroup = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/rtx-{}.scope", container.id);
    assert_eq!(file(&format!("/proc/{}/cgroup", container.pid())), format!("0::{cgroup}"));
    assert_eq!(file(&format!("/sys/fs/cgroup{cgroup}/pids.max")), "30");
    assert_eq!(file(&format!("/sys/fs/cgroup{cgroup}/memory.max")), "67108864");
    let joined = container.exec(&[], &["sh", "-c", "cat /proc/self/cgroup; id -u"]).ok().stdout;
    assert!(joined.contains(&format!("rtx-{}.scope", container.id)) && joined.ends_with("\n0\n"), "{joined}");
    runtime.run(&["update", "--pids-limit", "31", &container.id]).ok();
    assert_eq!(file(&format!("/sys/fs/cgroup{cgroup}/pids.max")), "31");
    runtime.run(&["kill", "--all", &container.id, "KILL"]).ok();
    container.wait_exit();
    container.delete(&[]).ok();
    assert!(!Path::new(&format!("/sys/fs/cgroup{cgroup}")).exists());
}

#[test]
fn rootless_without_a_session() {
    needs_session!();
    let (_, bundle) = as_user(&[]);
    let runtime = Runtime::under_test().wrapped(&["runuser", "-u", "plain", "--"]).with_flags(&["--systemd-cgroup"]);
    give_to_user(runtime.scratch());
    Container::new(&runtime, &bundle).run(&[]).fails(1, "XDG_RUNTIME_DIR");
}

/// Outside of any delegation a container goes without cgroups of its own, unless it asks for a limit.
#[test]
fn rootless_without_delegation() {
    needs_session!();
    let (runtime, mut bundle) = as_user(&[]);
    {
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        assert_eq!(container.exec(&[], &["id", "-u"]).ok().stdout, "0\n");
        container.delete(&["--force"]).ok();
    }
    bundle.set("/linux/resources/pids", json!({ "limit": 30 }));
    let container = Container::new(&runtime, &bundle);
    container.run(&[]).fails(1, "/linux/resources/pids/limit");
}

/// In a delegated cgroup the container's is made beside the caller's.
#[test]
fn rootless_with_delegation() {
    needs_session!();
    let (_, mut bundle) = as_user(&[]);
    bundle.shell_payload("cat /proc/self/cgroup").set("/linux/resources/pids", json!({ "limit": 30 }));
    // The caller leaves the scope's own cgroup, which then can hand controllers down.
    let script = "cg=/sys/fs/cgroup$(sed -n s/0:://p /proc/self/cgroup); mkdir $cg/own && echo $$ >$cg/own/cgroup.procs && exec \"$@\"";
    let words = [
        &["runuser", "-u", "plain", "--", "env", "XDG_RUNTIME_DIR=/run/user/1000", "systemd-run", "--user", "--scope"]
            [..],
        &["--quiet", "--property=Delegate=yes", "--", "sh", "-c", script, "sh"],
    ]
    .concat();
    let runtime = Runtime::under_test().wrapped(&words);
    give_to_user(runtime.scratch());
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert!(output.stdout.starts_with("0::/") && !output.stdout.contains("own"), "{}", output.stdout);
}
