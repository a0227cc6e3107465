//! Cgroups: the path, each limit as the kernel's files show it, and device rules.

use serde_json::{Value, json};

use super::cases;
use crate::support::Bundle;

fn limit(b: &mut Bundle, controller: &str, value: Value) {
    b.set(&format!("/linux/resources/{controller}"), value);
}

fn devices(b: &mut Bundle, rules: Value) {
    limit(b, "devices", rules);
    b.probe(&[
        "--write",
        "/dev/null",
        "--write",
        "/dev/full",
        "--write",
        "/dev/tty",
        "--read",
        "/sys/fs/cgroup/devices/devices.list",
    ]);
}

cases! {
    "cgroups";
    probe memory_limit => |b| limit(b, "memory", json!({ "limit": 67_108_864 }));
    probe memory_limit_and_swap => |b| limit(b, "memory", json!({ "limit": 67_108_864, "swap": 134_217_728 }));
    probe memory_limit_and_no_more_swap => |b| limit(b, "memory", json!({ "limit": 67_108_864, "swap": 67_108_864 }));
    probe memory_swap_below_limit => |b| limit(b, "memory", json!({ "limit": 67_108_864, "swap": 1_048_576 }));
    probe memory_unlimited => |b| limit(b, "memory", json!({ "limit": -1 }));
    probe memory_unlimited_swap => |b| limit(b, "memory", json!({ "limit": 67_108_864, "swap": -1 }));
    probe memory_reservation => |b| limit(b, "memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }));
    probe memory_swappiness => |b| limit(b, "memory", json!({ "swappiness": 10 }));
    probe memory_swappiness_too_high => |b| limit(b, "memory", json!({ "swappiness": 1000 }));
    probe memory_oom_killer => |b| limit(b, "memory", json!({ "disableOOMKiller": true, "limit": 67_108_864 }));
    probe memory_kernel => |b| limit(b, "memory", json!({ "kernel": 33_554_432 }));
    probe memory_kernel_tcp => |b| limit(b, "memory", json!({ "kernelTCP": 33_554_432 }));
    probe memory_too_small => |b| limit(b, "memory", json!({ "limit": 1 }));
    probe cpu_shares => |b| limit(b, "cpu", json!({ "shares": 512 }));
    probe cpu_shares_smallest => |b| limit(b, "cpu", json!({ "shares": 2 }));
    probe cpu_quota => |b| limit(b, "cpu", json!({ "quota": 20_000, "period": 50_000 }));
    probe cpu_quota_alone => |b| limit(b, "cpu", json!({ "quota": 20_000 }));
    probe cpu_period_alone => |b| limit(b, "cpu", json!({ "period": 50_000 }));
    probe cpu_quota_unlimited => |b| limit(b, "cpu", json!({ "quota": -1 }));
    probe cpu_quota_too_small => |b| limit(b, "cpu", json!({ "quota": 1 }));
    probe cpuset_cpus => |b| limit(b, "cpu", json!({ "cpus": "0" }));
    probe cpuset_mems => |b| limit(b, "cpu", json!({ "mems": "0" }));
    probe cpuset_range => |b| limit(b, "cpu", json!({ "cpus": "0-1", "mems": "0" }));
    probe cpuset_out_of_range => |b| limit(b, "cpu", json!({ "cpus": "900" }));
    probe cpuset_nonsense => |b| limit(b, "cpu", json!({ "cpus": "x" }));
    probe pids_limit => |b| limit(b, "pids", json!({ "limit": 42 }));
    probe pids_unlimited => |b| limit(b, "pids", json!({ "limit": -1 }));
    probe pids_zero => |b| limit(b, "pids", json!({ "limit": 0 }));
    probe pids_limit_in_force => |b| {
        limit(b, "pids", json!({ "limit": 3 }));
        b.shell_payload("for i in 1 2 3 4 5; do sleep 1 & done 2>/dev/null; echo forked");
    };
    probe block_io_weight => |b| limit(b, "blockIO", json!({ "weight": 500 }));
    probe block_io_weight_too_high => |b| limit(b, "blockIO", json!({ "weight": 5000 }));
    probe block_io_throttle => |b| limit(b, "blockIO", json!({
        "throttleReadBpsDevice": [{ "major": 254, "minor": 0, "rate": 1_048_576 }],
        "throttleWriteBpsDevice": [{ "major": 254, "minor": 0, "rate": 2_097_152 }],
        "throttleReadIOPSDevice": [{ "major": 254, "minor": 0, "rate": 100 }],
        "throttleWriteIOPSDevice": [{ "major": 254, "minor": 0, "rate": 200 }],
    }));
    probe block_io_throttle_unknown_device => |b| limit(b, "blockIO", json!({ "throttleReadBpsDevice": [{ "major": 250, "minor": 99, "rate": 1 }] }));
    probe huge_pages => |b| limit(b, "hugepageLimits", json!([{ "pageSize": "2MB", "limit": 4_194_304 }]));
    probe huge_pages_unknown_size => |b| limit(b, "hugepageLimits", json!([{ "pageSize": "3MB", "limit": 4_194_304 }]));
    probe network_class => |b| limit(b, "network", json!({ "classID": 1_048_577 }));
    probe everything => |b| {
        limit(b, "memory", json!({ "limit": 67_108_864 }));
        limit(b, "cpu", json!({ "shares": 100, "quota": 10_000, "period": 100_000, "cpus": "1" }));
        limit(b, "pids", json!({ "limit": 20 }));
    };
    probe no_resources => |b| { b.remove("/linux/resources"); };
    probe devices_none => |b| devices(b, json!([]));
    probe devices_allow_all => |b| devices(b, json!([{ "allow": true, "access": "rwm" }]));
    probe devices_deny_all_types => |b| devices(b, json!([{ "allow": false, "type": "a", "access": "rwm" }]));
    probe devices_one_allowed => |b| devices(b, json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }]));
    probe devices_wildcard_minor => |b| devices(b, json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "access": "r" }]));
    probe devices_allow_then_deny => |b| devices(b, json!([{ "allow": true, "access": "rwm" }, { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }]));
    probe path_absolute => |b| { let path = format!("/{}", b.name()); b.set("/linux/cgroupsPath", json!(path)); };
    probe path_nested => |b| { let path = format!("/{}/a/b", b.name()); b.set("/linux/cgroupsPath", json!(path)); };
    probe path_relative => |b| { let path = b.name(); b.set("/linux/cgroupsPath", json!(path)); };
    probe path_climbs => |b| { let path = format!("/../../{}", b.name()); b.set("/linux/cgroupsPath", json!(path)); };
    probe path_empty => |b| { b.set("/linux/cgroupsPath", json!("")); };
}
