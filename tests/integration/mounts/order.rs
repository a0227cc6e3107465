//! Mounts whose source is what earlier mounts of the same container have made of a place in its root.

use serde_json::json;

use super::only_own_engine;
use crate::support::units::is_v2;
use crate::support::{Bundle, Container};

/// A tree of binds, parts of which are bound again by their paths on the host, and then all of it.
fn layered(options: &[&str]) -> Bundle {
    let mut bundle = Bundle::shell("cat /final/x/y/z/z/x/y/z/x/file");
    for directory in ["a/x", "b/y", "c/z"] {
        bundle.make_dir(&format!("sources/{directory}"));
        bundle.make_file(&format!("sources/{directory}/file"), directory);
    }
    bundle.make_link("sources/to-a", "a");
    bundle.make_link("sources/to-b", "b");
    bundle.make_dir("rootfs/mnt");
    bundle.make_dir("rootfs/final");
    for (source, destination) in [("a", "/mnt"), ("to-b", "/mnt/x"), ("c", "/mnt/x/y"), ("to-a", "/mnt/x/y/z")] {
        bundle.bind(&format!("sources/{source}"), destination, &["rbind", "rw"]);
    }
    let inside = |place: &str| bundle.rootfs().join(place).display().to_string();
    let again = [("mnt/x", "mnt/x/y/z/x"), ("mnt/x/y", "mnt/x/y/z"), ("mnt", "final")]
        .map(|(source, destination)| (inside(source), inside(destination)));
    for (source, destination) in again {
        bundle.mount(&destination, "bind", &source, options);
    }
    bundle
}

#[test]
fn binds_of_what_was_mounted_before() {
    let runtime = only_own_engine!();
    let output = Container::new(&runtime, &layered(&["rbind"])).run(&[]).ok();
    assert_eq!(output.stdout.trim(), "a/x");
}

#[test]
fn mapped_binds_of_what_was_mounted_before() {
    let runtime = only_own_engine!();
    let mut bundle = layered(&["rbind"]);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let last = bundle.spec["mounts"].as_array().map_or(0, Vec::len) - 1;
    bundle.set(&format!("/mounts/{last}/uidMappings"), map.clone());
    bundle.set(&format!("/mounts/{last}/gidMappings"), map);
    bundle.set("/mounts", {
        let mut mounts = bundle.spec["mounts"].clone();
        mounts[last]["options"] = json!(["rbind", "ridmap"]);
        mounts
    });
    bundle.shell_payload("stat -c %u /final /mnt");
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["1000", "0"]);
}

/// Links of the image lead to places in the image.
#[test]
fn a_source_inside_stays_inside() {
    let runtime = only_own_engine!();
    let mut bundle = Bundle::shell("ls /seen");
    bundle.make_file("rootfs/etc/only-inside", "");
    bundle.make_link("rootfs/tmp/link", "/etc");
    bundle.make_dir("empty");
    bundle.bind("empty", "/tmp/below", &["bind"]);
    bundle.unmount("/dev/shm");
    let source = bundle.rootfs().join("tmp/link").display().to_string();
    bundle.mount("/tmp", "bind", &bundle.rootfs().join("tmp").display().to_string(), &["rbind"]);
    bundle.mount("/seen", "bind", &source, &["rbind"]);
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert!(output.stdout.contains("only-inside"), "{}", output.stdout);
}

/// Devices are made before what shows cgroups is mounted, unless they lie in it: there they would be hidden.
#[test]
fn a_device_in_what_shows_cgroups() {
    let runtime = only_own_engine!();
    if is_v2() {
        crate::support::skip!("cgroup v2 holds no device");
    }
    let mut bundle = Bundle::shell("test -c /cg/zero && echo device; test -L /dev/fd && echo links");
    bundle.unmount("/sys/fs/cgroup").mount("/cg", "cgroup", "cgroup", &["rw"]);
    bundle.set("/linux/devices", json!([{ "path": "/cg/zero", "type": "c", "major": 1, "minor": 5 }]));
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["device", "links"]);
}

/// The tmpfs above the hierarchies of v1 is read-only from when its devices are there. cgroup v2 takes none at all.
#[test]
fn a_device_below_cgroups_that_are_read_only() {
    let runtime = only_own_engine!();
    let mut bundle = Bundle::shell("test -c /sys/fs/cgroup/device && ! touch /sys/fs/cgroup/other");
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    bundle.set("/linux/devices", json!([{ "path": "/sys/fs/cgroup/device", "type": "c", "major": 1, "minor": 3 }]));
    let output = Container::new(&runtime, &bundle).run(&[]);
    if is_v2() {
        output.fails(1, "/linux/devices/0: device /sys/fs/cgroup/device: ");
    } else {
        output.ok();
    }
}

#[test]
fn a_device_that_cannot_be_made_is_named() {
    let runtime = only_own_engine!();
    let mut bundle = Bundle::new();
    bundle.bind("source", "/tmp", &["bind", "ro"]);
    bundle.make_dir("source");
    bundle.set("/linux/devices", json!([{ "path": "/tmp/device", "type": "c", "major": 1, "minor": 3 }]));
    let message = "/linux/devices/0: device /tmp/device: mknod /tmp/device: read-only file system";
    Container::new(&runtime, &bundle).run(&[]).fails(1, message);
}
