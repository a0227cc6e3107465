//! What came into the runtime specification after the packaged runc was made, so that nothing is there to compare with:
//! expectations instead of a peer. The tests skip when another runtime stands in for rtx.

use std::os::unix::fs::chown;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, needs_root, report_skip, skip, test_name};

/// Ends a test when the runtime under test is not rtx.
macro_rules! only_rtx {
    () => {{
        needs_root!();
        let runtime = Runtime::under_test();
        if !runtime.is_rtx() {
            skip!("the runtime under test is not rtx");
        }
        runtime
    }};
}

/// What the probe sees in a bundle that `build` changes; None, and a line that says so, when the feature is refused.
fn seen(runtime: &Runtime, build: impl Fn(&mut Bundle)) -> Option<Value> {
    let mut bundle = Bundle::new();
    build(&mut bundle);
    let output = Container::new(runtime, &bundle).run(&[]);
    if output.code == 1 && output.stderr.contains("does not support") {
        report_skip(&test_name(), output.stderr.trim());
        return None;
    }
    let output = output.ok();
    Some(serde_json::from_str(&output.stdout).unwrap_or_else(|_| json!(output.stdout.trim())))
}

#[test]
fn domainname() {
    let runtime = only_rtx!();
    let Some(seen) = seen(&runtime, |b| {
        b.set("/domainname", json!("example.org"));
    }) else {
        return;
    };
    assert_eq!(seen["domainname"], json!(["example.org"]));
}

#[test]
fn time_namespace_with_offsets() {
    let runtime = only_rtx!();
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        skip!("this kernel has no time namespaces");
    }
    let Some(seen) = seen(&runtime, |b| {
        b.namespace("time", "").set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000_000 } }));
        b.shell_payload("cut -d. -f1 /proc/uptime");
    }) else {
        return;
    };
    let seconds: u64 = seen.as_u64().or_else(|| seen.as_str()?.parse().ok()).expect("seconds");
    assert!(seconds > 1_000_000_000, "{seconds}");
}

#[test]
fn scheduler() {
    let runtime = only_rtx!();
    let Some(seen) = seen(&runtime, |b| {
        b.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }));
    }) else {
        return;
    };
    assert_eq!((&seen["stat"]["policy"], &seen["stat"]["nice"]), (&json!("3"), &json!("5")));
}

#[test]
fn io_priority() {
    let runtime = only_rtx!();
    let Some(seen) = seen(&runtime, |b| {
        b.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 3 }));
    }) else {
        return;
    };
    assert_eq!(seen["ioprio"], "best-effort: prio 3");
}

#[test]
fn seccomp_flags() {
    let runtime = only_rtx!();
    for flags in [json!([]), json!(["SECCOMP_FILTER_FLAG_LOG"]), json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])] {
        let Some(seen) = seen(&runtime, |b| {
            let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]);
            b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": rule }));
        }) else {
            return;
        };
        assert_eq!(seen["status"]["Seccomp"], "2");
    }
}

/// A mount's maps show the ids of the source's files as others.
#[test]
fn idmapped_bind() {
    let runtime = only_rtx!();
    let Some(seen) = seen(&runtime, |b| {
        let file = b.make_file("source/file", "x");
        chown(file, Some(0), Some(0)).expect("chown");
        b.bind("source", "/tmp", &["bind", "idmap"]).probe(&["--list", "/tmp"]);
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        b.set("/mounts/7/uidMappings", map.clone()).set("/mounts/7/gidMappings", map);
    }) else {
        return;
    };
    assert_eq!(seen["listed"]["/tmp"]["file"], "file 644 1000:1000");
}

/// The hugetlb controller may be the only one in the v2 half of a hybrid host.
#[test]
fn huge_page_limit_wherever_the_controller_is() {
    let runtime = only_rtx!();
    let controllers = read_lossy(Path::new("/proc/self/cgroup"));
    if !controllers.contains("hugetlb")
        && !read_lossy(Path::new("/sys/fs/cgroup/unified/cgroup.controllers")).contains("hugetlb")
    {
        skip!("no hugetlb controller");
    }
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/hugepageLimits", json!([{ "pageSize": "2MB", "limit": 4_194_304 }]));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let dirs = crate::support::leftover::cgroups(&container.id);
    let files = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
    let values: Vec<String> = dirs.iter().flat_map(|d| files.map(|f| read_lossy(&d.join(f)))).collect();
    assert!(values.iter().any(|v| v.trim() == "4194304"), "{values:?}");
}

#[test]
fn exec_with_cpu_affinity() {
    let runtime = only_rtx!();
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        skip!("needs two processors");
    }
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    bundle.set("/process/execCPUAffinity", json!({ "initial": "0", "final": "1" }));
    let container = Container::new(&runtime, &bundle);
    let started = container.run_detached(&[]);
    if started.stderr.contains("does not support") {
        skip!("{}", started.stderr.trim());
    }
    started.ok();
    container.wait_stdout("up");
    let output = container.exec(&[], &["grep", "Cpus_allowed_list", "/proc/self/status"]).ok();
    assert_eq!(output.stdout.split_whitespace().last(), Some("1"));
}

/// `exec --cgroup` puts the process into a child of the container's cgroup.
#[test]
fn exec_in_a_sub_cgroup() {
    let runtime = only_rtx!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    let pids = crate::support::leftover::cgroups(&container.id)
        .into_iter()
        .find(|d| d.display().to_string().contains("/pids/"));
    let Some(dir) = pids else {
        skip!("no pids hierarchy of cgroup v1");
    };
    std::fs::create_dir(dir.join("inner")).expect("make a sub-cgroup");
    let output = container.exec(&["--cgroup", "pids:inner"], &["cat", "/proc/self/cgroup"]).ok();
    assert!(output.stdout.lines().any(|l| l.contains(":pids:") && l.ends_with("/inner")), "{}", output.stdout);
    std::fs::remove_dir(dir.join("inner")).expect("remove the sub-cgroup");
}

/// `exec --cap` makes what is inheritable ambient too, so that a user other than 0 has it; runc 1.1 tries with all of them.
#[test]
fn a_capability_added_to_an_exec_is_ambient_where_it_is_inheritable() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::shell("exec sleep 600");
    let sets = |names: &[&str]| json!(names);
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": sets(&["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"]),
            "permitted": sets(&["CAP_KILL", "CAP_CHOWN"]),
            "effective": sets(&["CAP_KILL"]),
            "inheritable": sets(&["CAP_CHOWN", "CAP_SYSLOG"]),
            "ambient": sets(&["CAP_CHOWN"]),
        }),
    );
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let flags = ["--cap", "CAP_SYSLOG", "--cap", "CAP_FOWNER"];
    let output = container.exec(&flags, &["grep", "CapAmb", "/proc/self/status"]).ok();
    assert_eq!((output.stdout.trim(), output.stderr.as_str()), ("CapAmb:\t0000000400000001", ""));
}

/// Nothing else ends what init started where init is no pid 1.
#[test]
fn sigkill_reaches_all_that_share_the_hosts_pids() {
    let runtime = only_rtx!();
    for init_first in [false, true] {
        let mut bundle = Bundle::shell("sleep 601 & sleep 602 & echo up; exec sleep 600");
        bundle.without_namespace("pid");
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        container.wait_stdout("up");
        let listed = runtime.run(&["ps", "--format", "json", &container.id]).ok().stdout;
        let pids: Vec<i32> = serde_json::from_str(&listed).expect("pids");
        assert_eq!(pids.len(), 3, "{pids:?}");
        if init_first {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(container.pid()).expect("a pid"),
                rustix::process::Signal::KILL,
            )
            .expect("kill init");
            container.wait_exit();
        }
        container.kill("KILL").ok();
        crate::support::children::poll_until(std::time::Duration::from_secs(20), || {
            let processes = runtime.run(&["ps", "--format", "json", &container.id]).ok().stdout;
            (processes.trim() == "[]" || processes.trim() == "null").then_some(())
        })
        .expect("the processes end");
        assert_eq!(container.status(), "stopped");
        container.kill("KILL").fails(1, "container not running");
    }
}

/// Beside a root that was moved rather than pivoted to, the host's /proc would give a new user namespace the right to mount
/// one without this container's masks.
#[test]
fn without_pivot_root_the_hosts_proc_is_out_of_reach() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::shell("unshare -Urmpf mount -t proc none /proc && echo mounted");
    // Without CAP_SETFCAP root cannot be mapped.
    bundle.capabilities(&["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]);
    for flags in [&["--no-pivot"][..], &[]] {
        let output = Container::new(&runtime, &bundle).run(flags);
        assert!(output.code != 0 && !output.stdout.contains("mounted"), "{flags:?}: {}", output.stderr);
        assert!(output.stderr.contains("ermission denied"), "{flags:?}: {}", output.stderr);
    }
}

/// What decides is whether the kernel would execute it: capabilities count.
#[test]
fn a_capability_lets_a_user_execute_what_is_roots() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::new();
    bundle.make_script("rootfs/only-root", "echo ran");
    std::fs::set_permissions(bundle.host("rootfs/only-root"), std::os::unix::fs::PermissionsExt::from_mode(0o744))
        .expect("chmod");
    bundle.args(&["/only-root"]).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    Container::new(&runtime, &bundle).run(&[]).fails(1, "permission denied");
    bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
    for set in ["inheritable", "ambient"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_DAC_OVERRIDE"]));
    }
    assert_eq!(Container::new(&runtime, &bundle).run(&[]).ok().stdout.trim(), "ran");
}

/// Such a hook runs in the program's place, and under its filter.
#[test]
fn start_container_hooks_run_under_the_filter() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::shell("true");
    let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]));
    let hook = json!([{ "path": "/bin/mkdir", "args": ["mkdir", "/dev/shm/x"] }]);
    bundle.set("/hooks", json!({ "startContainer": hook }));
    Container::new(&runtime, &bundle)
        .run(&[])
        .fails(1, "error running startContainer hook #0: /bin/mkdir: signal: bad system call");
}

/// The kernel takes no shares for an idle group: an update that leaves it idle writes none.
#[test]
fn an_idle_group_stays_idle() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.set("/linux/resources/cpu", json!({ "shares": 100, "idle": 1 }));
    let container = Container::new(&runtime, &bundle);
    let output = container.run_detached(&[]);
    if output.stderr.contains("cpu.idle") {
        skip!("this kernel has no cpu.idle");
    }
    output.ok();
    for idle in ["1", "0", "1"] {
        runtime.run(&["update", "--cpu-idle", idle, &container.id]).ok();
    }
}

#[test]
fn a_deadline_needs_every_processor() {
    let runtime = only_rtx!();
    let mut bundle = Bundle::shell("true");
    bundle.set("/process/scheduler", json!({ "policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2 }));
    bundle.set("/linux/resources/cpu", json!({ "cpus": "0" }));
    Container::new(&runtime, &bundle).run(&[]).fails(1, "/process/scheduler/policy: process scheduler can't be used");
}
