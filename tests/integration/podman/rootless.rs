//! podman as an ordinary user: rtx runs as root of podman's user namespace, without cgroups of its own on v1 hosts.

use super::host::{IMAGE, Who};
use super::{Named, PATIENCE, podman};
use crate::support::children::poll_until;

macro_rules! user {
    () => {{
        let host = podman!();
        if let Err(reason) = host.prepare_user() {
            $crate::support::skip!("{reason}");
        }
        Named::of(host, Who::User)
    }};
}

#[test]
fn root_of_a_user_namespace() {
    let container = user!();
    let output = container.run(&["--rm"], &["sh", "-c", "id -u; cat /proc/self/uid_map; exit 3"]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "54321", "1", "1", "200000000", "65536"]);
}

/// The caller's own cgroups are shown where none could be made.
#[test]
fn cgroups_of_the_caller() {
    let container = user!();
    let output = container.run(&["--rm"], &["cat", "/proc/self/mountinfo"]).ok();
    let shown = |kind: &str| output.stdout.lines().filter(|line| line.contains(&format!(" - {kind} "))).count();
    let table = crate::support::runtime::read_lossy("/proc/self/mountinfo".as_ref());
    let hierarchies = table.lines().filter(|line| line.contains(" - cgroup ")).count();
    assert_eq!(shown("cgroup"), hierarchies, "{}", output.stdout);
}

#[test]
fn in_the_background() {
    let container = user!();
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    container.run(&["--detach"], &["sh", "-c", script]).ok();
    let up = || container.podman(&["logs"], &[]).stdout.contains("up").then_some(());
    assert!(poll_until(PATIENCE, up).is_some());
    container.podman(&["exec"], &["sh", "-c", "exit 5"]).fails(5, "");
    assert_eq!(container.podman(&["exec", "--user", "1000"], &["id", "-u"]).ok().stdout, "1000\n");
    container.podman(&["exec"], &["/nope"]).fails(127, "/nope");
    container.podman(&["stop", "--time", "100"], &[]).ok();
    assert_eq!(container.podman(&["wait"], &[]).ok().stdout, "7\n");
}

/// To join another container's pid namespace takes another way where rtx could not come back from it.
#[test]
fn in_another_containers_namespaces() {
    let container = user!();
    container.run(&["--detach"], &["sleep", "600"]).ok();
    let (pid, ipc) = (format!("--pid=container:{}", container.name), format!("--ipc=container:{}", container.name));
    let words = ["sh", "-c", "ps -o args; readlink /proc/self/ns/ipc; readlink /proc/1/ns/ipc"];
    let args = [&["run", "--rm", "--network", "none", &*pid, &*ipc, IMAGE], &words[..]].concat();
    let output = container.host.call_as(Who::User, &args).run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines.contains(&"sleep 600"), "{lines:?}");
    assert_eq!(lines[lines.len() - 1], lines[lines.len() - 2]);
}

#[test]
fn errors_keep_their_codes() {
    let container = user!();
    container.run(&["--rm"], &["/nope"]).fails(127, "/nope");
    container.run(&["--rm"], &["/etc/passwd"]).fails(126, "permission denied");
}

#[test]
fn the_users_own_id() {
    let container = user!();
    let output = container.run(&["--rm", "--userns", "keep-id"], &["id", "-u"]).ok();
    assert_eq!(output.stdout, "54321\n");
}
