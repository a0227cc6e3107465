//! Idmapped mounts: maps of the mount, of its options, of the container; what is refused.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use serde_json::{Value, json};

use super::{only_own_engine, run, seen};
use crate::support::{Bundle, skip};

fn map(ranges: &[(u32, u32, u32)]) -> Value {
    let range =
        |&(inside, host, size): &(u32, u32, u32)| json!({ "containerID": inside, "hostID": host, "size": size });
    ranges.iter().map(range).collect()
}

/// A user namespace of its own, and a root file system that its root owns.
fn user_namespace(b: &mut Bundle, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) {
    b.namespace("user", "").set("/linux/uidMappings", map(uids)).set("/linux/gidMappings", map(gids));
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(uids[0].1), Some(gids[0].1)).expect("chown the root file system");
    }
}

/// Binds a directory with a file of `uid` and `gid` to /tmp.
fn bind(b: &mut Bundle, uid: u32, gid: u32, options: &[&str]) {
    let file = b.make_file("source/file", "x");
    chown(file, Some(uid), Some(gid)).expect("chown");
    b.bind("source", "/tmp", options).probe(&["--list", "/tmp"]);
}

fn maps(b: &mut Bundle, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) {
    b.set("/mounts/7/uidMappings", map(uids)).set("/mounts/7/gidMappings", map(gids));
}

/// The owner of the file as the container sees it.
#[track_caller]
fn owner(runtime: &crate::support::Runtime, b: &Bundle) -> String {
    let seen = seen(runtime, b);
    seen["listed"]["/tmp"]["file"].as_str().and_then(|text| text.rsplit(' ').next()).unwrap_or_default().to_owned()
}

#[test]
fn maps_of_the_mount_without_a_user_namespace() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    bind(&mut b, 102, 233, &["bind"]);
    maps(&mut b, &[(100, 1000, 1), (101, 2000, 1), (102, 3000, 1)], &[(210, 1100, 10), (230, 3300, 10)]);
    assert_eq!(owner(&runtime, &b), "3000:3303");
}

#[test]
fn maps_of_the_mount_with_a_user_namespace() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    user_namespace(&mut b, &[(0, 100_000, 65_536)], &[(0, 200_000, 65_536)]);
    bind(&mut b, 102, 233, &["rbind", "idmap"]);
    maps(&mut b, &[(100, 101_000, 100)], &[(200, 202_000, 100)]);
    assert_eq!(owner(&runtime, &b), "1002:2033");
}

#[test]
fn maps_of_the_container() {
    let runtime = only_own_engine!();
    for option in ["idmap", "ridmap"] {
        let mut b = Bundle::new();
        user_namespace(&mut b, &[(0, 100_000, 10), (10, 300_000, 10)], &[(0, 200_000, 65_536)]);
        bind(&mut b, 12, 7, &["rbind", option]);
        assert_eq!(owner(&runtime, &b), "12:7");
    }
}

/// The user namespace may be somebody else's, by path.
#[test]
fn maps_of_a_joined_user_namespace() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    let pid = b.mapped_helper(&[], "0 100000 100");
    b.namespace("user", &format!("/proc/{pid}/ns/user"));
    chown(b.rootfs(), Some(100_000), Some(100_000)).expect("chown");
    bind(&mut b, 5, 6, &["bind", "idmap"]);
    assert_eq!(owner(&runtime, &b), "5:6");
}

/// crun's spelling, which podman passes on.
#[test]
fn maps_in_the_option() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    bind(&mut b, 3, 7, &["bind", "idmap=uids=0-1000-5#10-0-1;gids=7-70-1"]);
    assert_eq!(owner(&runtime, &b), "1003:70");
    let mut b = Bundle::new();
    user_namespace(&mut b, &[(0, 100_000, 10), (10, 300_000, 10)], &[(0, 200_000, 65_536)]);
    bind(&mut b, 3, 7, &["bind", "idmap=uids=@0-10-10;gids=@0-20-10"]);
    assert_eq!(owner(&runtime, &b), "13:27");
}

/// What the container writes gets the owner that the maps give it on the host.
#[test]
fn new_files() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    user_namespace(&mut b, &[(0, 100_000, 65_536)], &[(0, 100_000, 65_536)]);
    bind(&mut b, 0, 0, &["bind", "idmap"]);
    b.shell_payload("echo x > /tmp/new && chown 5:6 /tmp/new");
    b.capabilities(&["CAP_CHOWN"]);
    run(&runtime, &b).ok();
    let made = b.host("source/new").metadata().expect("the new file");
    assert_eq!((made.uid(), made.gid()), (5, 6));
}

/// `ridmap` reaches the mounts below, `idmap` does not.
#[test]
fn mounts_below() {
    let runtime = only_own_engine!();
    for (option, expected) in [("ridmap", "1000:1000"), ("idmap", "0:0")] {
        let mut b = Bundle::new();
        let inner = b.make_dir("source/inner");
        let other = b.make_dir("other");
        b.make_file("other/file", "x");
        b.bind("source", "/tmp", &["rbind", option, "rslave"]).probe(&["--list", "/tmp/inner"]);
        maps(&mut b, &[(0, 1000, 1)], &[(0, 1000, 1)]);
        let script = format!("mount --bind '{}' '{}' && exec \"$@\"", other.display(), inner.display());
        let container = crate::support::Container::new(&runtime, &b);
        let output = container.background("run", &[]).through(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().ok();
        let stdout = if output.stdout.is_empty() { container.stdout() } else { output.stdout };
        let seen: Value = serde_json::from_str(&stdout).expect("the probe prints JSON");
        let file = seen["listed"]["/tmp/inner"]["file"].as_str().unwrap_or_default().to_owned();
        assert!(file.ends_with(expected), "{option}: {file}");
    }
}

#[test]
fn many_mounts_with_the_same_maps() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    b.make_file("source/file", "x");
    for number in 0..20 {
        b.bind("source", &format!("/tmp/{number}"), &["bind"]);
        let pointer = format!("/mounts/{}", 7 + number);
        let host = 1000 + number % 2;
        b.set(&format!("{pointer}/uidMappings"), map(&[(0, host, 1)]));
        b.set(&format!("{pointer}/gidMappings"), map(&[(0, host, 1)]));
    }
    b.probe(&["--list", "/tmp/18", "--list", "/tmp/19"]);
    let seen = seen(&runtime, &b);
    assert_eq!(seen["listed"]["/tmp/18"]["file"], "file 644 1000:1000");
    assert_eq!(seen["listed"]["/tmp/19"]["file"], "file 644 1001:1001");
}

#[test]
fn what_is_refused() {
    let runtime = only_own_engine!();
    let refused = |build: &dyn Fn(&mut Bundle), text: &str| {
        let mut b = Bundle::new();
        build(&mut b);
        run(&runtime, &b).fails(1, text);
    };
    refused(&|b| bind(b, 0, 0, &["bind", "idmap"]), "/mounts/7/options: idmap without maps");
    refused(
        &|b| {
            bind(b, 0, 0, &["bind"]);
            b.set("/mounts/7/uidMappings", map(&[(0, 1000, 1)]));
        },
        "needs both uidMappings and gidMappings",
    );
    refused(
        &|b| {
            b.mount("/tmp", "tmpfs", "tmpfs", &[]);
            maps(b, &[(0, 1000, 1)], &[(0, 1000, 1)]);
        },
        "id-mapped mounts are only supported for bind-mounts",
    );
    refused(&|b| bind(b, 0, 0, &["bind", "idmap=uids=0-0-1"]), "needs both uids and gids");
    // A file system of which no kernel maps ids.
    refused(
        &|b| {
            b.mount("/tmp/sys", "bind", "/sys/kernel", &["bind"]);
            maps(b, &[(0, 1000, 1)], &[(0, 1000, 1)]);
        },
        "does not support idmapped mounts",
    );
}

/// A user without privileges is told so before anything is made.
#[test]
fn without_privileges() {
    let runtime = only_own_engine!();
    if Command::new("setpriv").arg("--version").output().is_err() {
        skip!("needs setpriv");
    }
    let mut b = Bundle::new();
    bind(&mut b, 0, 0, &["bind"]);
    maps(&mut b, &[(0, 1000, 1)], &[(0, 1000, 1)]);
    b.write();
    let root = runtime.root().join("user");
    std::fs::create_dir_all(&root).expect("make a state directory");
    for dir in [runtime.scratch(), &runtime.root(), &root] {
        chown(dir, Some(54_321), Some(54_321)).expect("chown");
    }
    let bundle = b.path().display().to_string();
    let output = runtime
        .invoke(&["run", "--bundle", &bundle, "refused"])
        .through(&["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"])
        .cwd(std::path::Path::new("/"))
        .run();
    output.fails(1, "an idmapped mount needs CAP_SYS_ADMIN on the host");
}
