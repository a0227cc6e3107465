//! New file systems of any type with data of their own, and what they are mounted on.

use std::process::Command;

use super::{only_own_engine, report, run, seen};
use crate::support::{Bundle, Container, skip};

/// Many layers: more than fsconfig(2) takes as one value.
#[test]
fn overlay_of_many_layers() {
    let runtime = only_own_engine!();
    let mut b =
        Bundle::shell("cat /tmp/file-7 && ls /tmp | wc -l && echo x > /tmp/new && grep ' /tmp ' /proc/self/mountinfo");
    let mut layers = Vec::new();
    for number in 0..20 {
        b.make_file(&format!("layer-with-a-long-name-{number}/file-{number}"), &format!("of {number}\n"));
        layers.push(b.host(&format!("layer-with-a-long-name-{number}")).display().to_string());
    }
    let (upper, work) = (b.make_dir("upper").display().to_string(), b.make_dir("work").display().to_string());
    let data = [format!("lowerdir={}", layers.join(":")), format!("upperdir={upper}"), format!("workdir={work}")];
    b.mount("/tmp", "overlay", "overlay", &["nosuid", "nodev", "noexec", &data[0], &data[1], &data[2]]);
    let output = run(&runtime, &b).ok().stdout;
    assert!(output.starts_with("of 7\n20\n"), "{output}");
    assert!(output.contains("nosuid,nodev,noexec") && output.contains(" overlay "), "{output}");
    assert!(b.host("upper/new").exists());
}

/// Lower layers alone, read-only; a colon and a comma in a path, escaped as overlay wants them.
#[test]
fn overlay_without_an_upper_layer() {
    let runtime = only_own_engine!();
    let mut b = Bundle::shell("cat /tmp/one /tmp/two; echo x > /tmp/new");
    b.make_file("a:b,c/one", "1");
    b.make_file("plain/two", "2");
    let odd = b.host("a:b,c").display().to_string().replace(':', "\\:").replace(',', "\\,");
    let data = format!("lowerdir={odd}:{}", b.host("plain").display());
    b.mount("/tmp", "overlay", "overlay", &["ro", &data]);
    let output = run(&runtime, &b);
    assert!(output.code != 0 && output.stdout == "12", "{output:?}");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
}

/// A file system on a block device, with options that only it knows.
#[test]
fn ext4_on_a_loop_device() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    let image = b.host("image").display().to_string();
    std::fs::File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("make an image");
    let made = Command::new("mkfs.ext4").args(["-q", &image]).status();
    if !made.is_ok_and(|status| status.success()) {
        skip!("needs mkfs.ext4");
    }
    let losetup = |args: &[&str]| Command::new("losetup").args(args).output().ok().filter(|out| out.status.success());
    let Some(device) = losetup(&["--find", "--show", &image]) else {
        skip!("no loop device can be had here");
    };
    let device = String::from_utf8_lossy(&device.stdout).trim().to_owned();
    b.mount("/tmp", "ext4", &device, &["nodev", "noatime", "errors=remount-ro", "commit=7"]).probe(&["--list", "/tmp"]);
    let mut wrong = Bundle::new();
    wrong.mount("/tmp", "ext4", &device, &["nosuchoption=1"]);
    let (output, refused) = (run(&runtime, &b), run(&runtime, &wrong));
    losetup(&["--detach", &device]).expect("detach the loop device");
    let seen = report(output);
    assert_eq!(seen["mounts"]["/tmp"]["type"], "ext4");
    let shown = seen["mounts"]["/tmp"]["super"].as_str().unwrap_or_default();
    assert!(shown.contains("commit=7") && shown.contains("errors=remount-ro"), "{shown}");
    assert_eq!(seen["mounts"]["/tmp"]["options"], "noatime,nodev,rw");
    assert!(seen["listed"]["/tmp"]["lost+found"].is_string(), "{seen}");
    refused.fails(1, "nosuchoption");
}

/// On links of the image, which are followed inside the root, and over files.
#[test]
fn on_links_and_files() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    b.make_link("rootfs/link", "/srv/../../../tmp");
    b.make_link("rootfs/chain", "link");
    b.make_link("rootfs/new", "/made/for/it");
    b.mount("/chain/below", "tmpfs", "tmpfs", &["size=1m"]).mount("/new", "tmpfs", "tmpfs", &["nosuid"]);
    let seen = seen(&runtime, &b);
    assert_eq!(seen["mounts"]["/tmp/below"]["type"], "tmpfs");
    assert_eq!(seen["mounts"]["/made/for/it"]["type"], "tmpfs");
    let mut b = Bundle::new();
    b.mount("/etc/passwd", "tmpfs", "tmpfs", &[]);
    run(&runtime, &b).fails(1, "not a directory");
}

/// A loop of links, and one that needs a directory where a file is.
#[test]
fn on_links_that_lead_nowhere() {
    let runtime = only_own_engine!();
    let mut b = Bundle::new();
    b.make_link("rootfs/one", "two");
    b.make_link("rootfs/two", "one");
    b.mount("/one", "tmpfs", "tmpfs", &[]);
    run(&runtime, &b).fails(1, "too many");
    let mut b = Bundle::new();
    b.mount("/etc/passwd/below", "tmpfs", "tmpfs", &[]);
    run(&runtime, &b).fails(1, "not a directory");
}

/// `tmpcopyup` keeps what a directory holds: owners, modes, links, a nested tree; in a user namespace as well.
#[test]
fn tmpcopyup() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let runtime = only_own_engine!();
    for user in [false, true] {
        let id = |inside: u32| if user { inside + 100_000 } else { inside };
        let mut b = Bundle::new();
        let file = b.make_file("rootfs/data/deep/file", "content");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4750)).expect("chmod");
        chown(&file, Some(id(7)), Some(id(8))).expect("chown");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4750)).expect("chmod");
        b.make_link("rootfs/data/link", "deep/file");
        for dir in ["rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys", "rootfs/data", "rootfs/data/deep"] {
            chown(b.host(dir), Some(id(0)), Some(id(0))).expect("chown");
        }
        if user {
            let map = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            b.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        }
        b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
        b.probe(&["--list", "/data", "--list", "/data/deep", "--write", "/data"]);
        b.capabilities(&["CAP_DAC_OVERRIDE"]);
        let seen = seen(&runtime, &b);
        assert_eq!(seen["listed"]["/data"]["link"], "link deep/file", "user {user}");
        assert_eq!(seen["listed"]["/data/deep"]["file"], "file 4750 7:8", "user {user}");
        assert_eq!(seen["tried"]["write /data"], "ok", "user {user}");
    }
}

/// Other mounts are made while the container's cgroups are; what fills memory waits until it counts as the container's.
#[test]
fn what_is_copied_up_is_the_containers() {
    let runtime = only_own_engine!();
    const LARGE: usize = 16 << 20;
    let mut b = Bundle::shell("exec sleep 600");
    b.make_file("rootfs/data/large", &"x".repeat(LARGE));
    b.unmount("/sys/fs/cgroup");
    b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let container = Container::new(&runtime, &b);
    container.create().ok();
    let stats = runtime.run(&["events", "--stats", &container.id]).ok().stdout;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("statistics are JSON");
    let Some(used) = stats["data"]["memory"]["usage"]["usage"].as_u64().filter(|used| *used > 0) else {
        skip!("this host has no controller for memory");
    };
    assert!(used > LARGE as u64, "{used}");
}

/// On a host with hierarchies of version 1, too: whoever asks for the other gets it.
#[test]
fn cgroup_version_2_by_its_name() {
    let runtime = only_own_engine!();
    if !std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("cgroup2")) {
        skip!("this kernel has no cgroup v2");
    }
    for option in ["ro", "rw"] {
        let mut bundle =
            Bundle::shell("cat /tmp/cgroup.procs >/dev/null && grep -c ' /tmp .* cgroup2 ' /proc/self/mountinfo");
        bundle.mount("/tmp", "cgroup2", "cgroup", &["nosuid", "noexec", "nodev", option]);
        assert_eq!(run(&runtime, &bundle).ok().stdout, "1\n", "{option}");
    }
}

/// The tmpfs that holds the hierarchies of version 1 is read-only in the end, and not before what is to be mounted in it.
#[test]
fn a_mount_between_the_hierarchies() {
    let runtime = only_own_engine!();
    if !std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        skip!("no hierarchies of cgroup v1");
    }
    let mut b = Bundle::shell("echo x > /sys/fs/cgroup/new/file && mkdir /sys/fs/cgroup/other; ls /sys/fs/cgroup/new");
    b.mount("/sys/fs/cgroup/new", "tmpfs", "tmpfs", &["size=1m"]);
    let output = run(&runtime, &b).ok();
    assert_eq!(output.stdout, "file\n");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
}
