//! Each namespace: new, absent (the host's), and by path.

use serde_json::json;

use super::cases;

cases! {
    "namespaces";
    probe default_spec => |_| {};
    probe host_pid => |b| { b.without_namespace("pid"); };
    probe host_network => |b| { b.without_namespace("network"); };
    probe host_ipc => |b| { b.without_namespace("ipc"); };
    probe host_uts => |b| { b.without_namespace("uts").remove("/hostname"); };
    probe only_mount => |b| {
        b.spec["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        b.remove("/hostname");
    };
    probe cgroup => |b| { b.namespace("cgroup", ""); };
    probe cgroup_without_cgroup_mount => |b| { b.namespace("cgroup", "").unmount("/sys/fs/cgroup"); };
    probe network_of_host_by_path => |b| { b.namespace("network", "/proc/self/ns/net"); };
    probe network_by_path => |b| {
        let pid = b.helper(&["--net"], "ip link set lo up");
        b.namespace("network", &format!("/proc/{pid}/ns/net")).probe(&["--read", "/sys/class/net/lo/operstate"]);
    };
    probe ipc_by_path => |b| {
        let pid = b.helper(&["--ipc"], "echo 12345 > /proc/sys/kernel/msgmax");
        b.namespace("ipc", &format!("/proc/{pid}/ns/ipc")).probe(&["--read", "/proc/sys/kernel/msgmax"]);
    };
    probe uts_by_path => |b| {
        let pid = b.helper(&["--uts"], "hostname held");
        b.namespace("uts", &format!("/proc/{pid}/ns/uts")).remove("/hostname");
    };
    probe uts_by_path_with_hostname => |b| {
        let pid = b.helper(&["--uts"], "hostname held");
        b.namespace("uts", &format!("/proc/{pid}/ns/uts"));
    };
    probe pid_by_path => |b| {
        let pid = b.helper(&["--pid", "--fork", "--kill-child"], "");
        b.namespace("pid", &format!("/proc/{pid}/ns/pid_for_children"));
    };
    probe cgroup_by_path => |b| {
        let pid = b.helper(&["--cgroup"], "");
        b.namespace("cgroup", &format!("/proc/{pid}/ns/cgroup"));
    };
    probe wrong_type_of_path => |b| {
        let pid = b.helper(&["--net"], "");
        b.namespace("ipc", &format!("/proc/{pid}/ns/net"));
    };
    probe missing_path => |b| { b.namespace("network", "/nope"); };
    probe no_hostname => |b| { b.remove("/hostname"); };
    probe long_hostname => |b| { b.spec["hostname"] = json!("h".repeat(64)); };
    probe too_long_hostname => |b| { b.spec["hostname"] = json!("h".repeat(65)); };
    probe hostname_without_namespace => |b| { b.without_namespace("uts"); };
    probe unknown_type => |b| { b.namespace("nosuch", ""); };
}
