//! Scopes of an ordinary user, in the session that the guest has one for.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{file, needs_systemd};
use crate::support::runtime::read_lossy;
use crate::support::units::is_v2;
use crate::support::{Bundle, Container, Runtime, skip};

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
        if !is_v2() {
            skip!("this host has cgroup v1");
        }
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

/// systemd gives users nothing of cgroup v1.
#[test]
fn rootless_on_cgroup_v1() {
    needs_systemd!();
    if is_v2() || !read_lossy("/etc/passwd".as_ref()).contains("plain:") {
        skip!("this host has cgroup v2 alone, or no user \"plain\"");
    }
    let (runtime, bundle) = as_user(&["--systemd-cgroup"]);
    Container::new(&runtime, &bundle).run(&[]).fails(1, "needs a host with cgroup v2 alone");
}
