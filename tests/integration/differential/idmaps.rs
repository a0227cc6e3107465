//! User namespaces: maps of one and of many ranges, what is in them, and what may be combined with them.

use std::os::unix::fs::chown;

use serde_json::json;

use super::cases;
use crate::support::Bundle;

/// A user namespace of its own with one range each, and a root file system that its root owns.
fn mapped(b: &mut Bundle, host: u32, size: u32) {
    b.namespace("user", "");
    b.spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": host, "size": size }]);
    b.spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": host, "size": size }]);
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(host), Some(host)).expect("chown the root file system");
    }
}

cases! {
    "idmaps";
    probe one_range => |b| mapped(b, 100_000, 65_536);
    probe one_id => |b| {
        mapped(b, 100_000, 1);
        b.mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    };
    probe one_id_with_gid_5 => |b| mapped(b, 100_000, 1);
    probe identity => |b| mapped(b, 0, 65_536);
    probe three_ranges => |b| {
        mapped(b, 100_000, 10);
        let more = json!([
            { "containerID": 0, "hostID": 100_000, "size": 10 },
            { "containerID": 10, "hostID": 200_000, "size": 100 },
            { "containerID": 1000, "hostID": 300_000, "size": 1 },
        ]);
        b.spec["linux"]["uidMappings"] = more.clone();
        b.spec["linux"]["gidMappings"] = more;
    };
    probe as_user => |b| {
        mapped(b, 100_000, 65_536);
        b.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [1001, 5] });
    };
    probe all_capabilities => |b| {
        mapped(b, 100_000, 65_536);
        b.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_CHOWN", "CAP_SETUID"]);
    };
    probe writable_root => |b| {
        mapped(b, 100_000, 65_536);
        b.spec["root"]["readonly"] = json!(false);
        b.probe(&["--write", "/", "--write", "/tmp", "--write", "/etc/passwd"]);
    };
    probe bind_of_foreign_directory => |b| {
        mapped(b, 100_000, 65_536);
        b.make_file("source/file", "theirs");
        b.bind("source", "/tmp", &["rbind", "rw"]).probe(&["--list", "/tmp", "--write", "/tmp/file"]);
    };
    probe tmpfs_mount => |b| {
        mapped(b, 100_000, 65_536);
        b.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "mode=1777", "size=1m"]).probe(&["--write", "/tmp"]);
    };
    probe sysctl => |b| {
        mapped(b, 100_000, 65_536);
        b.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        b.probe(&["--read", "/proc/sys/net/ipv4/ip_forward"]);
    };
    probe host_network => |b| {
        mapped(b, 100_000, 65_536);
        b.without_namespace("network");
        b.bind_sys();
    };
    probe by_path => |b| {
        let pid = b.helper(&["--user", "--map-root-user"], "");
        b.namespace("user", &format!("/proc/{pid}/ns/user"));
    };
    probe no_maps => |b| { b.namespace("user", ""); };
    probe maps_without_namespace => |b| {
        b.spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
        b.spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    };
    probe root_not_mapped => |b| {
        mapped(b, 100_000, 10);
        b.spec["linux"]["uidMappings"][0]["containerID"] = json!(5);
    };
}
