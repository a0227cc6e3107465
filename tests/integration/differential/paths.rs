//! Masked and read-only paths, and the device nodes of /dev.

use serde_json::{Value, json};

use super::cases;
use crate::support::Bundle;

fn masked(b: &mut Bundle, paths: &[&str]) {
    b.set("/linux/maskedPaths", json!(paths));
    for path in paths {
        b.probe(&["--list", path, "--read", path]);
    }
}

fn read_only(b: &mut Bundle, paths: &[&str]) {
    b.set("/linux/readonlyPaths", json!(paths)).set("/root/readonly", json!(false));
    for path in paths {
        b.probe(&["--write", path]);
    }
}

fn device(b: &mut Bundle, device: Value) {
    b.set("/linux/devices", json!([device]));
}

/// Lets the device cgroup allow everything, so that a node can be opened.
fn allow_all(b: &mut Bundle) {
    b.set("/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }]));
}

cases! {
    "paths";
    probe mask_file_and_directory => |b| masked(b, &["/etc", "/proc/version"]);
    probe mask_missing => |b| masked(b, &["/nope", "/proc/nope"]);
    probe mask_link => |b| { b.make_link("rootfs/link", "/etc"); masked(b, &["/link"]); };
    probe mask_twice => |b| masked(b, &["/etc", "/etc"]);
    probe mask_inside_mount => |b| {
        b.make_file("source/dir/file", "");
        b.bind("source", "/tmp", &["bind"]);
        masked(b, &["/tmp/dir"]);
    };
    probe mask_none => |b| masked(b, &[]);
    probe mask_relative => |b| masked(b, &["etc"]);
    probe read_only_directory => |b| read_only(b, &["/etc"]);
    probe read_only_file => |b| read_only(b, &["/etc/passwd"]);
    probe read_only_missing => |b| read_only(b, &["/nope"]);
    probe read_only_mount_keeps_flags => |b| {
        b.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
        read_only(b, &["/tmp"]);
    };
    probe read_only_with_mount_below => |b| {
        b.make_dir("rootfs/tmp/below");
        b.mount("/tmp/below", "tmpfs", "tmpfs", &[]);
        read_only(b, &["/tmp", "/tmp/below"]);
    };
    probe read_only_above_a_mount => |b| {
        b.make_dir("rootfs/tmp/below");
        b.mount("/tmp/below", "tmpfs", "tmpfs", &["mode=755"]);
        read_only(b, &["/tmp"]);
        b.probe(&["--write", "/tmp/below"]);
    };
    probe read_only_above_a_mount_in_a_mount => |b| {
        b.mount("/tmp", "tmpfs", "tmpfs", &[]).mount("/tmp/below", "tmpfs", "tmpfs", &[]);
        read_only(b, &["/tmp"]);
        b.probe(&["--write", "/tmp/below"]);
    };
    probe read_only_above_a_mount_by_a_link => |b| {
        b.make_link("rootfs/link", "/sys/kernel/mm");
        b.mount("/link", "tmpfs", "tmpfs", &["mode=755"]);
        read_only(b, &["/sys/kernel"]);
        b.probe(&["--write", "/sys/kernel/mm", "--list", "/sys/kernel/mm"]);
    };
    probe read_only_above_a_mount_in_sysfs => |b| {
        b.mount("/sys/kernel/mm", "tmpfs", "tmpfs", &["mode=755"]);
        read_only(b, &["/sys/kernel"]);
        b.probe(&["--write", "/sys/kernel/mm", "--list", "/sys/kernel/mm"]);
    };
    probe read_only_link_in_sysfs => |b| { read_only(b, &["/sys/class/net/lo"]); };
    probe read_only_dev => |b| { read_only(b, &["/dev"]); b.probe(&["--write", "/dev/shm"]); };
    probe read_only_none => |b| read_only(b, &[]);
    probe masked_and_read_only => |b| { b.set("/linux/readonlyPaths", json!(["/etc"])); masked(b, &["/etc"]); };

    probe device_char => |b| device(b, json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 1000, "gid": 1001 }));
    probe device_console => |b| device(b, json!({ "path": "/dev/console", "type": "c", "major": 5, "minor": 1, "fileMode": 0o600 }));
    probe device_unbuffered => |b| device(b, json!({ "path": "/dev/extra", "type": "u", "major": 1, "minor": 3, "fileMode": 0o666 }));
    probe device_block => |b| device(b, json!({ "path": "/dev/loop77", "type": "b", "major": 7, "minor": 77, "fileMode": 0o600 }));
    probe device_fifo => |b| device(b, json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }));
    probe device_without_mode => |b| device(b, json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 5 }));
    probe device_in_missing_directory => |b| device(b, json!({ "path": "/dev/net/deep/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600 }));
    probe device_outside_dev => |b| {
        b.set("/root/readonly", json!(false));
        device(b, json!({ "path": "/tmp/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }));
        b.probe(&["--list", "/tmp"]);
    };
    probe device_replaces_default => |b| device(b, json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 }));
    probe device_large_numbers => |b| device(b, json!({ "path": "/dev/large", "type": "c", "major": 300, "minor": 70000, "fileMode": 0o600 }));
    probe device_unknown_type => |b| device(b, json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }));
    probe device_path_taken_by_file => |b| {
        b.make_file("rootfs/tmp/taken", "");
        device(b, json!({ "path": "/tmp/taken", "type": "c", "major": 1, "minor": 3 }));
        b.set("/root/readonly", json!(false));
    };
    probe device_with_user_namespace => |b| {
        b.namespace("user", "");
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        device(b, json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666 }));
    };
    probe device_allowed_and_opened => |b| {
        allow_all(b);
        device(b, json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666 }));
        b.probe(&["--write", "/dev/extra", "--write", "/dev/full"]);
    };
    probe device_denied => |b| {
        device(b, json!({ "path": "/dev/msg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }));
        b.probe(&["--write", "/dev/msg"]);
    };
    probe dev_on_root_file_system => |b| {
        b.unmount("/dev").unmount("/dev/pts").unmount("/dev/shm").unmount("/dev/mqueue")
            .set("/root/readonly", json!(false));
    };
    probe dev_bind_from_host => |b| {
        b.unmount("/dev").unmount("/dev/shm").unmount("/dev/mqueue").unmount("/dev/pts");
        b.mount("/dev", "bind", "/dev", &["rbind", "rslave"]);
    };
    probe dev_read_only => |b| {
        b.mount_options("/dev", &["nosuid", "mode=755", "ro"]).probe(&["--write", "/dev", "--write", "/dev/null"]);
    };
    probe dev_streams => |b| {
        b.shell_payload("for n in fd stdin stdout stderr ptmx core; do echo $n $(readlink /dev/$n); done; echo x > /dev/stdout; head -c 3 /dev/zero | wc -c");
    };
}
