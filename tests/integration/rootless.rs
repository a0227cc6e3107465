//! An ordinary user without podman: maps of the own id alone, and of many through newuidmap(1) and newgidmap(1).

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::mounts::only_own_engine;
use crate::support::runtime::{Invocation, Output, find_program, read_lossy};
use crate::support::{Bundle, Runtime, skip};

/// The ordinary user, who exists in the test's mount namespace alone.
pub const USER: u32 = 54_322;

/// The ids that belong to the user, of users and of groups.
const RANGES: &str = "54322:300000:65536\n54322:500000:10\n";

/// A bundle that the user owns, as `spec --rootless` writes it.
pub fn bundle(uids: Value, gids: Value) -> Bundle {
    let mut b = Bundle::new();
    b.namespace("user", "").without_namespace("network").remove("/linux/resources");
    b.bind_sys().mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    b.set("/linux/uidMappings", uids).set("/linux/gidMappings", gids);
    for dir in ["", "rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(USER), Some(USER)).expect("chown the bundle");
    }
    b
}

fn run(runtime: &Runtime, b: &Bundle) -> Output {
    b.write();
    let scratch = runtime.scratch();
    std::fs::write(scratch.join("ranges"), RANGES).expect("write the ranges");
    std::fs::create_dir_all(runtime.root()).expect("make a state directory");
    for dir in [scratch, &runtime.root()] {
        chown(dir, Some(USER), Some(USER)).expect("chown");
    }
    // The helpers want the user's name.
    let script = format!(
        "cd '{}' && cp /etc/passwd passwd && echo 'rtxuser:x:{USER}:{USER}::/:/bin/sh' >> passwd || exit 99\n\
         mount --bind passwd /etc/passwd || exit 99\n\
         for file in /etc/subuid /etc/subgid; do mount --bind ranges $file || exit 99; done\n\
         cd / && exec setpriv --reuid={USER} --regid={USER} --clear-groups \"$@\"",
        scratch.display()
    );
    let bundle = b.path().display().to_string();
    runtime
        .invoke(&["run", "--bundle", &bundle, &b.name()])
        .through(&["unshare", "--mount", "sh", "-c", &script, "sh"])
        .cwd(std::path::Path::new("/"))
        .run()
}

macro_rules! user {
    () => {{
        let runtime = only_own_engine!();
        for program in ["setpriv", "newuidmap", "newgidmap"] {
            if find_program(program).is_none() {
                skip!("needs {program}");
            }
        }
        if !["/etc/subuid", "/etc/subgid"].iter().all(|file| std::path::Path::new(file).exists()) {
            skip!("needs the files /etc/subuid and /etc/subgid to put others in their place");
        }
        if Command::new("unshare").args(["--mount", "true"]).status().is_err() {
            skip!("needs unshare");
        }
        runtime
    }};
}

pub fn range(inside: u32, host: u32, size: u32) -> Value {
    json!({ "containerID": inside, "hostID": host, "size": size })
}

#[test]
fn the_own_id_alone() {
    let runtime = user!();
    let b = bundle(json!([range(0, USER, 1)]), json!([range(0, USER, 1)]));
    let seen: Value = serde_json::from_str(&run(&runtime, &b).ok().stdout).expect("the probe prints JSON");
    assert_eq!(seen["uid_map"], json!([format!("0 {USER} 1")]));
    assert_eq!(seen["setgroups"], json!(["deny"]));
}

#[test]
fn several_ranges_through_the_helpers() {
    let runtime = user!();
    let maps = json!([range(0, USER, 1), range(1, 300_000, 65_536), range(100_000, 500_000, 10)]);
    let mut b = bundle(maps.clone(), maps);
    b.set("/process/user", json!({ "uid": 7, "gid": 100_003, "additionalGids": [65_536] }));
    let seen: Value = serde_json::from_str(&run(&runtime, &b).ok().stdout).expect("the probe prints JSON");
    let expected = json!([format!("0 {USER} 1"), "1 300000 65536", "100000 500000 10"]);
    assert_eq!((&seen["uid_map"], &seen["gid_map"]), (&expected, &expected));
    assert_eq!(
        (&seen["status"]["Uid"], &seen["status"]["Gid"]),
        (&json!("7 7 7 7"), &json!("100003 100003 100003 100003"))
    );
    assert_eq!(seen["status"]["Groups"], "65536");
    assert_eq!(seen["setgroups"], json!(["allow"]));
}

/// One kind may need the helper while the other does not.
#[test]
fn many_users_and_one_group() {
    let runtime = user!();
    let b = bundle(json!([range(0, USER, 1), range(1, 300_000, 10)]), json!([range(0, USER, 1)]));
    let seen: Value = serde_json::from_str(&run(&runtime, &b).ok().stdout).expect("the probe prints JSON");
    assert_eq!(seen["uid_map"], json!([format!("0 {USER} 1"), "1 300000 10"]));
    assert_eq!(seen["gid_map"], json!([format!("0 {USER} 1")]));
    let b = bundle(json!([range(0, USER, 1)]), json!([range(0, USER, 1), range(1, 300_000, 10)]));
    let seen: Value = serde_json::from_str(&run(&runtime, &b).ok().stdout).expect("the probe prints JSON");
    assert_eq!(seen["gid_map"], json!([format!("0 {USER} 1"), "1 300000 10"]));
}

/// The helper says why, and rtx which property it was about.
#[test]
fn a_range_that_is_not_the_users() {
    let runtime = user!();
    let maps = json!([range(0, USER, 1), range(1, 900_000, 10)]);
    let output = run(&runtime, &bundle(maps.clone(), maps));
    let output = output.fails(1, "newgidmap: gid range [1-11) -> [900000-900010) not allowed");
    assert!(output.stderr.contains("/linux/gidMappings"), "{}", output.stderr);
}

/// crun's options for links, where stage2 has to find the source itself.
#[test]
fn links_of_the_host() {
    let runtime = user!();
    let mut b = bundle(json!([range(0, USER, 1)]), json!([range(0, USER, 1)]));
    b.make_file("pointed/file", "of the host");
    b.make_link("link", "pointed/file");
    b.make_link("rootfs/covered", "/etc/passwd");
    b.bind("link", "/copied", &["bind", "copy-symlink"]);
    b.bind("link", "/bound", &["bind", "src-nofollow"]);
    b.bind("link", "/covered", &["bind", "src-nofollow", "dest-nofollow"]);
    b.bind("link", "/followed", &["bind"]);
    b.shell_payload("readlink /copied; readlink /bound; readlink /covered; cat /followed");
    let stdout = run(&runtime, &b).ok().stdout;
    assert_eq!(stdout, "pointed/file\npointed/file\npointed/file\nof the host");
}

/// A cgroup of version 1 lets in whom its opener's user may move: the process as long as it is that user.
#[test]
fn into_cgroups_of_the_users() {
    let runtime = user!();
    let maps = json!([range(0, 300_000, 65_536)]);
    let mut b = bundle(maps.clone(), maps);
    let name = format!("of-{}", b.name());
    b.set("/linux/cgroupsPath", json!(format!("/{name}/{}", b.name())));
    let cgroups = Delegated::new(&name);
    for file in ["", "rootfs", "rootfs/bin"] {
        std::fs::set_permissions(b.host(file), PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    let seen: Value = serde_json::from_str(&run(&runtime, &b).ok().stdout).expect("the probe prints JSON");
    let lines = seen["cgroup"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let inside = lines.filter(|line| line.ends_with(&b.name())).count();
    // In cgroup v2 it stays where it was: it may not be moved out of there.
    let joined = cgroups.0.iter().filter(|directory| directory.join("tasks").exists()).count();
    assert!(inside >= joined, "{joined}: {:?}", seen["cgroup"]);
}

/// A path is asked for, and no path is not.
#[test]
fn a_cgroup_that_was_asked_for_is_made_or_told() {
    let runtime = user!();
    let maps = json!([range(0, USER, 1)]);
    let mut b = bundle(maps.clone(), maps);
    run(&runtime, &b).ok();
    b.set("/linux/cgroupsPath", json!(format!("/{}/below", b.name())));
    run(&runtime, &b).fails(1, "/linux/cgroupsPath: this user may not make that cgroup");
}

/// Without a cgroup there is init to be told of, and nothing to pause by.
#[test]
fn ps_and_pause_without_a_cgroup() {
    let runtime = user!();
    let maps = json!([range(0, USER, 1)]);
    let mut b = bundle(maps.clone(), maps);
    b.shell_payload("exec sleep 600");
    let rtx = runtime.program.display();
    let script = format!(
        "cd '{}' && {rtx} --root states run -d --bundle . c </dev/null >/dev/null || exit 90\n\
         {rtx} --root states ps -f json c; {rtx} --root states pause c; {rtx} --root states delete --force c",
        b.path().display()
    );
    b.write();
    let words = ["setpriv", "--reuid", "54322", "--regid", "54322", "--clear-groups", "sh", "-c", &script];
    let output = Invocation::new(words.map(str::to_owned).to_vec(), runtime.scratch().to_owned()).run();
    let pids: Vec<i32> = serde_json::from_str(output.stdout.trim()).expect("a list of pids");
    assert_eq!(pids.len(), 1, "{}", output.stdout);
    assert!(output.stderr.contains("has no cgroup"), "{}", output.stderr);
}

/// A cgroup in each hierarchy that belongs to the user.
struct Delegated(Vec<PathBuf>);

impl Delegated {
    fn new(name: &str) -> Delegated {
        let table = read_lossy(Path::new("/proc/self/mountinfo"));
        let is_hierarchy = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
        let mounts = table.lines().filter(is_hierarchy).filter_map(|line| line.split(' ').nth(4));
        let made = Delegated(mounts.map(|mount| Path::new(mount).join(name)).collect());
        for directory in &made.0 {
            std::fs::create_dir(directory).expect("make a cgroup");
            for file in ["cpuset.cpus", "cpuset.mems"]
                .iter()
                .filter(|file| directory.join("tasks").exists() && directory.join(file).exists())
            {
                let parents = read_lossy(&directory.join("..").join(file));
                std::fs::write(directory.join(file), parents.trim()).expect("set a cpuset");
            }
            for file in ["", "tasks", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                let file = directory.join(file);
                assert!(!file.exists() || chown(&file, Some(USER), Some(USER)).is_ok(), "{}", file.display());
            }
        }
        made
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = std::fs::remove_dir(directory);
        }
    }
}
