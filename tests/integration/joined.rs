//! Namespaces that the container joins by path, in every combination, and user namespaces with several maps.

use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::mounts::{only_own_engine, run, seen};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container};

/// Kinds that can be joined, with unshare's flag and the file below /proc/PID/ns.
const KINDS: &[(&str, &str, &str)] = &[
    ("network", "--net", "net"),
    ("uts", "--uts", "uts"),
    ("ipc", "--ipc", "ipc"),
    ("cgroup", "--cgroup", "cgroup"),
    ("pid", "--pid", "pid_for_children"),
    ("time", "--time", "time_for_children"),
];

fn identity(path: &str) -> String {
    std::fs::read_link(path).unwrap_or_else(|error| panic!("{path}: {error}")).to_string_lossy().into_owned()
}

/// Joins the chosen kinds of one helper and makes the others anew, and looks from the host at what init is in.
fn join(chosen: &[&(&str, &str, &str)], user: bool) {
    let runtime = only_own_engine!();
    let mut b = Bundle::shell("echo up; exec sleep 600");
    let mut flags: Vec<&str> = chosen.iter().map(|(_, flag, _)| *flag).collect();
    if chosen.iter().any(|(kind, ..)| *kind == "pid" || *kind == "time") {
        flags.extend(["--fork", "--kill-child"]);
    }
    let pid = if user { b.mapped_helper(&flags, "0 100000 65536") } else { b.helper(&flags, "") };
    for kind in ["cgroup", "time"] {
        b.namespace(kind, "");
    }
    for (kind, _, file) in chosen {
        b.namespace(kind, &format!("/proc/{pid}/ns/{file}"));
    }
    if user {
        b.namespace("user", &format!("/proc/{pid}/ns/user"));
        for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
            chown(b.host(dir), Some(100_000), Some(100_000)).expect("chown the root file system");
        }
    }
    let what = format!("{chosen:?} user {user}");
    let container = Container::new(&runtime, &b);
    let started = container.run_detached(&[]);
    assert_eq!(started.code, 0, "{what}: {}", started.stderr);
    container.wait_stdout("up");
    let init = container.pid();
    for (kind, _, file) in KINDS {
        let own = identity(&format!("/proc/{init}/ns/{}", file.trim_end_matches("_for_children")));
        let joined = chosen.iter().any(|(chosen, ..)| chosen == kind);
        assert_eq!(own == identity(&format!("/proc/{pid}/ns/{file}")), joined, "{what}: {kind}");
        assert_ne!(
            own,
            identity(&format!("/proc/self/ns/{}", file.trim_end_matches("_for_children"))),
            "{what}: {kind}"
        );
    }
    let of = |pid: i32| identity(&format!("/proc/{pid}/ns/user"));
    assert_eq!(of(init), of(pid), "{what}: user");
    // A process that joins is in the same ones.
    let inside = container.exec(&[], &["sh", "-c", "readlink /proc/self/ns/uts; readlink /proc/self/ns/net"]);
    assert_eq!(inside.code, 0, "{what}: {}", inside.stderr);
    let expected = [format!("/proc/{init}/ns/uts"), format!("/proc/{init}/ns/net")].map(|path| identity(&path));
    assert_eq!(inside.stdout.split_whitespace().collect::<Vec<_>>(), expected, "{what}");
}

/// Every subset of the kinds whose number has this remainder, so that the tests share the work.
fn subsets(remainder: usize, user: bool) {
    for subset in (0..1 << KINDS.len()).filter(|subset| subset % 4 == remainder) {
        let chosen: Vec<_> =
            KINDS.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, k)| k).collect();
        join(&chosen, user);
    }
}

#[test]
fn neither_network_nor_uts_and_any_other() {
    subsets(0, false);
}

#[test]
fn network_and_any_other() {
    subsets(1, false);
}

#[test]
fn uts_and_any_other() {
    subsets(2, false);
}

#[test]
fn network_uts_and_any_other() {
    subsets(3, false);
}

#[test]
fn user_and_any_other() {
    subsets(0, true);
    subsets(1, true);
}

#[test]
fn user_uts_and_any_other() {
    subsets(2, true);
    subsets(3, true);
}

/// The mount namespace by path: the container's root becomes the root of whoever joined it.
#[test]
fn mount_namespace() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    let pid = b.helper(&["--mount"], "");
    b.namespace("mount", &format!("/proc/{pid}/ns/mnt"));
    let seen = seen(&runtime, &b);
    assert_eq!(seen["namespaces"]["mnt"], "new");
    assert!(seen["mounts"]["/"].is_object(), "{seen}");
}

/// A new user namespace beside namespaces of the host's that are joined.
#[test]
fn new_user_namespace_beside_joined_ones() {
    let runtime = only_own_engine!();
    let mut b = Bundle::shell("cat /proc/self/uid_map; hostname; echo $$");
    let pid = b.helper(&["--uts", "--ipc"], "hostname held");
    b.namespace("uts", &format!("/proc/{pid}/ns/uts")).namespace("ipc", &format!("/proc/{pid}/ns/ipc"));
    b.unmount("/dev/mqueue").remove("/hostname");
    several_maps(&mut b);
    let words: Vec<String> = run(&runtime, &b).ok().stdout.split_whitespace().map(str::to_owned).collect();
    assert_eq!(words.join(" "), "0 100000 10 10 200000 100 1000 300000 1 held 1");
}

fn several_maps(b: &mut Bundle) {
    let range = |inside: u32, host: u32, size: u32| json!({ "containerID": inside, "hostID": host, "size": size });
    let maps = json!([range(0, 100_000, 10), range(10, 200_000, 100), range(1000, 300_000, 1)]);
    b.namespace("user", "").set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(100_000), Some(100_000)).expect("chown the root file system");
    }
}

/// Files belong to the ids of each range.
#[test]
fn several_maps_and_their_files() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    several_maps(&mut b);
    for (name, id) in [("first", 100_009), ("second", 200_099), ("third", 300_000), ("none", 400_000)] {
        chown(b.make_file(&format!("source/{name}"), ""), Some(id), Some(id)).expect("chown");
    }
    b.set("/process/user", json!({ "uid": 1000, "gid": 109, "additionalGids": [5, 1000] }));
    b.bind("source", "/tmp", &["bind"]).probe(&["--list", "/tmp"]);
    let seen: Value = seen(&runtime, &b);
    let owner = |name: &str| seen["listed"]["/tmp"][name].as_str().map(|text| text[9..].to_owned()).unwrap_or_default();
    assert_eq!(["first", "second", "third"].map(owner), ["9:9", "109:109", "1000:1000"]);
    assert_eq!(owner("none"), format!("{0}:{0}", read_lossy("/proc/sys/kernel/overflowuid".as_ref()).trim()));
    assert_eq!(seen["status"]["Uid"], "1000 1000 1000 1000");
}

/// One message carries 253 descriptors: each mount has one, and in a user namespace each device.
#[test]
fn more_mounts_and_devices_than_one_message_carries() {
    let runtime = only_own_engine!();
    for count in [225, 230, 247, 253] {
        let mut b = Bundle::shell("mount | grep -c /tmp/; [ -c /dev/null ] && [ -c /dev/tty ] && echo devices");
        several_maps(&mut b);
        b.make_file("source", "");
        b.mount("/tmp", "tmpfs", "tmpfs", &[]);
        for number in 0..count {
            b.bind("source", &format!("/tmp/{number}"), &["bind"]);
        }
        assert_eq!(run(&runtime, &b).ok().stdout, format!("{count}\ndevices\n"));
    }
}

/// Offsets of both clocks, the second with a fraction, alone and beside other namespaces.
#[test]
fn time_offsets() {
    let runtime = only_own_engine!();
    for user in [false, true] {
        let mut b = Bundle::shell("cat /proc/self/timens_offsets");
        if user {
            several_maps(&mut b);
        }
        b.namespace("time", "");
        b.set(
            "/linux/timeOffsets",
            json!({
                "boottime": { "secs": 7_881, "nanosecs": 2_718_281 },
                "monotonic": { "secs": -5, "nanosecs": 3_141_592 },
            }),
        );
        let text = run(&runtime, &b).ok().stdout;
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "-5", "3141592", "boottime", "7881", "2718281"], "user {user}");
        // A process that joins has them too.
        b.shell_payload("echo up; exec sleep 600");
        let container = Container::new(&runtime, &b);
        container.run_detached(&[]).ok();
        container.wait_stdout("up");
        let joined = container.exec(&[], &["cat", "/proc/self/timens_offsets"]).ok();
        assert_eq!(joined.stdout, text, "user {user}");
    }
    // A namespace that is joined keeps its own.
    let mut b = Bundle::shell("cat /proc/self/timens_offsets");
    let pid = b.helper(&["--time", "--fork", "--kill-child", "--boottime", "100"], "");
    b.namespace("time", &format!("/proc/{pid}/ns/time_for_children"));
    b.set("/linux/timeOffsets", json!({ "boottime": { "secs": 5 } }));
    let text = run(&runtime, &b).ok().stdout;
    assert_eq!(text.split_whitespace().collect::<Vec<_>>()[3..5], ["boottime", "100"], "{text}");
    let mut b = Bundle::shell("true");
    b.namespace("time", "").set("/linux/timeOffsets", json!({ "monotonic": { "secs": -1_000_000_000_000_i64 } }));
    run(&runtime, &b).fails(1, "timens_offsets");
}

/// A mount namespace belongs to a user namespace: both of one helper.
#[test]
fn user_and_mount_namespaces() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    let pid = b.mapped_helper(&["--mount", "--pid", "--fork", "--kill-child"], "0 100000 65536");
    for (kind, file) in [("user", "user"), ("mount", "mnt"), ("pid", "pid_for_children")] {
        b.namespace(kind, &format!("/proc/{pid}/ns/{file}"));
    }
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(100_000), Some(100_000)).expect("chown the root file system");
    }
    let seen = seen(&runtime, &b);
    assert_eq!(seen["uid_map"], json!(["0 100000 65536"]));
    assert_eq!(seen["namespaces"]["mnt"], "new");
}
