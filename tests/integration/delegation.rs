//! Whether a container may make cgroups of its own (config-linux.md, "Cgroup ownership"), and what is left of them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::units::{is_v2, systemd_runs};
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, skip};

const ROOT: u32 = 100_000;

/// A container whose root is an ordinary user of the host, that says where it can make a cgroup, and waits.
fn bundle(options: &[&str]) -> Bundle {
    let mut bundle = Bundle::shell(
        "mkdir /sys/fs/cgroup/own && echo 0 >/sys/fs/cgroup/own/cgroup.procs && echo +pids >/sys/fs/cgroup/cgroup.subtree_control \
         && echo made || echo refused; echo max >/sys/fs/cgroup/pids.max && echo unlimited || echo limited; exec sleep 600",
    );
    let map = json!([{ "containerID": 0, "hostID": ROOT, "size": 65536 }]);
    bundle
        .namespace("user", "")
        .namespace("cgroup", "")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/resources/pids", json!({ "limit": 20 }))
        .mount_options("/sys/fs/cgroup", options);
    bundle
}

fn owners(container: &Container) -> Vec<u32> {
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroup of init");
    let path = own.trim().trim_start_matches("0::").trim_end_matches("/own");
    let directory = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let owner = |name: &str| std::fs::metadata(directory.join(name)).expect(name).uid();
    [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "pids.max", "cgroup.freeze"].map(owner).into()
}

#[test]
fn a_writable_cgroup_is_its_users() {
    needs_root!();
    if !is_v2() {
        skip!("delegation needs cgroup v2 alone");
    }
    for flags in [&[][..], &["--systemd-cgroup"]].into_iter().take(1 + usize::from(systemd_runs())) {
        let runtime = Runtime::under_test().with_flags(flags);
        let bundle = bundle(&["nosuid", "noexec", "nodev", "relatime", "rw"]);
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        container.wait_stdout("limited\n");
        assert_eq!(container.stdout(), "made\nlimited\n", "{flags:?}");
        assert_eq!(owners(&container), [ROOT, ROOT, ROOT, ROOT, 0, 0], "{flags:?}");
        container.delete(&["--force"]).ok();
    }
}

#[test]
fn a_readonly_cgroup_stays_the_hosts() {
    needs_root!();
    if !is_v2() {
        skip!("delegation needs cgroup v2 alone");
    }
    let runtime = Runtime::under_test();
    let bundle = bundle(&["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("limited\n");
    assert_eq!(container.stdout(), "refused\nlimited\n");
    assert_eq!(owners(&container), [0; 6]);
}

/// A container that may write to its cgroup of v1's freezer, with a program that begins there.
fn in_a_freezer(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(&format!("cd /sys/fs/cgroup/freezer && {script}"));
    bundle.mount_options("/sys/fs/cgroup", &["nosuid", "noexec", "nodev"]);
    bundle
}

fn has_freezer() -> bool {
    Path::new("/sys/fs/cgroup/freezer/tasks").exists()
}

/// Deeper than a path can be long, and while a process is there.
#[test]
fn what_a_program_nests_deep_is_removed() {
    let runtime = own_engine!();
    if !has_freezer() {
        skip!("no freezer of cgroup v1");
    }
    const NEST: &str = "n=$(printf %0250d 0) && for i in $(seq 20); do mkdir $n && cd -P $n || exit 1; done";
    let bundle = in_a_freezer(&format!("{NEST}; exit 5"));
    let container = Container::new(&runtime, &bundle);
    container.run(&[]).fails(5, "");
    assert_eq!(leftover::cgroups(&container.id), Vec::<PathBuf>::new());
    let bundle = in_a_freezer(&format!("{NEST}; sleep 600 & echo $! >cgroup.procs && echo up && wait"));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    runtime.run(&["kill", "--all", &container.id, "KILL"]).ok();
    container.delete(&["--force"]).ok();
    assert_eq!(leftover::cgroups(&container.id), Vec::<PathBuf>::new());
}

/// A program that has frozen itself in a cgroup of its own dies by nothing before that is thawed.
#[test]
fn one_that_froze_itself_is_deleted() {
    let runtime = own_engine!();
    if !has_freezer() {
        skip!("no freezer of cgroup v1");
    }
    let bundle =
        in_a_freezer("mkdir own && cd own && echo $$ >cgroup.procs && echo up; echo FROZEN >freezer.state; sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    container.delete(&["--force"]).ok();
    assert_eq!(leftover::cgroups(&container.id), Vec::<PathBuf>::new());
}
