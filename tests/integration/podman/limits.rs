//! Limits: what podman asks for is in the container's cgroup, and holds.

use super::{NO_CGROUPS, Named, PATIENCE, podman, podman_with_rtx};
use crate::support::children::poll_until;

/// Prints the file of cgroup v1 or, where there is none, the one of v2.
fn cat(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

#[test]
fn memory_cpus_and_pids() {
    let host = podman!();
    let script = [
        cat("memory/memory.limit_in_bytes", "memory.max"),
        cat("cpu/cpu.cfs_quota_us", "cpu.max"),
        cat("pids/pids.max", "pids.max"),
    ]
    .join("; ");
    let flags = ["--rm", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "33"];
    let output = Named::new(host).run(&flags, &["sh", "-c", &script]).ok();
    let first: Vec<&str> = output.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first, ["33554432", "50000", "33"]);
}

/// podman writes 0 for both.
#[test]
fn no_limit_of_pids() {
    let host = podman!();
    for limit in ["-1", "0"] {
        let script = format!("{}; true | cat", cat("pids/pids.max", "pids.max"));
        let output = Named::new(host).run(&["--rm", "--pids-limit", limit], &["sh", "-c", &script]).ok();
        assert_eq!(output.stdout, "max\n");
    }
}

#[test]
fn too_much_memory_ends_the_payload() {
    let host = podman!();
    let container = Named::new(host);
    let hog = "exec dd if=/dev/zero of=/dev/null bs=64M";
    let output = container.run(&["--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", hog]);
    assert_eq!(output.code, 137, "{}", output.stderr);
    assert_eq!(container.inspect(".State.ExitCode"), "137");
}

#[test]
fn too_many_processes_are_refused() {
    let host = podman!();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait";
    let output = Named::new(host).run(&["--rm", "--pids-limit", "4"], &["sh", "-c", script]);
    assert!(output.stderr.contains("can't fork"), "{output:?}");
}

/// podman has `update` since 4.3; it hands the runtime a file.
#[test]
fn update_changes_a_running_container() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&["--memory", "32m"], "echo up; exec sleep 600");
    let output = container.podman(&["update", "--memory", "64m", "--cpus", "0.25"], &[]);
    if output.stderr.contains("unrecognized command") {
        crate::support::skip!("this podman has no update");
    }
    output.ok();
    let script = [cat("memory/memory.limit_in_bytes", "memory.max"), cat("cpu/cpu.cfs_quota_us", "cpu.max")].join("; ");
    let output = container.podman(&["exec"], &["sh", "-c", &script]).ok();
    let first: Vec<&str> = output.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first, ["67108864", "25000"]);
}

#[test]
fn ulimits() {
    let host = podman!();
    let flags = ["--rm", "--ulimit", "nofile=100:200", "--ulimit", "nproc=300:400"];
    let output =
        Named::new(host).run(&flags, &["sh", "-c", "ulimit -Sn; ulimit -Hn; grep processes /proc/self/limits"]).ok();
    assert_eq!(
        output.stdout.split_whitespace().collect::<Vec<_>>(),
        ["100", "200", "Max", "processes", "300", "400", "processes"]
    );
}

/// `--cgroups=disabled`: the container stays where podman is, and sees just that.
#[test]
fn no_cgroups() {
    let host = podman_with_rtx!("podman offers --cgroups=disabled to no runtime called runc");
    let container = Named::new(host);
    container.start(&[NO_CGROUPS], "ls /sys/fs/cgroup; cat /proc/self/cgroup; echo up; exec sleep 600");
    let logs = container.podman(&["logs"], &[]).ok().stdout;
    let id = container.inspect(".Id");
    assert!(crate::support::leftover::cgroups(&id).is_empty());
    for line in crate::support::runtime::read_lossy("/proc/self/cgroup".as_ref()).lines() {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        if !name.is_empty() {
            assert!(logs.lines().any(|shown| shown == name), "{name} is not in /sys/fs/cgroup: {logs}");
        }
    }
    container.podman(&["stop", "--time", "0"], &[]).ok();
    let stopped = || (container.inspect(".State.Status") == "exited").then_some(());
    assert!(poll_until(PATIENCE, stopped).is_some());
}
