//! Properties that neither the differential suite nor another test has a case for, on whatever hierarchies this host has: in
//! force, or refused by name.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Runtime, leftover, needs_root, report_skip, skip, test_name};

/// Creates a container with `value` at `pointer`. Either a file of its cgroups, one of `files`, has the content that is
/// given with it, or the error names the pointer at or below which it is.
fn in_force_or_refused(pointer: &str, value: Value, files: &[(&str, &str)]) {
    needs_root!();
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut bundle = Bundle::shell("exec sleep 600");
    let (parent, _) = pointer.rsplit_once('/').expect("a pointer");
    if bundle.spec.pointer(parent).is_none() {
        bundle.set(parent, json!({}));
    }
    bundle.set(pointer, value);
    let container = Container::new(&runtime, &bundle);
    let output = container.create();
    if output.code != 0 {
        assert!(output.stderr.contains(pointer), "{pointer} is not in: {}", output.stderr);
        return report_skip(&test_name(), &format!("refused on this host: {}", output.stderr.trim()));
    }
    let directories = leftover::cgroups(&container.id);
    let found = |(file, content): &(&str, &str)| {
        let read = directories.iter().filter_map(|directory| fs::read_to_string(directory.join(file)).ok());
        read.into_iter().any(|text| text.lines().any(|line| line == *content))
    };
    assert!(files.iter().any(found), "none of {files:?} below {directories:?}");
}

#[test]
fn cpu_burst() {
    let cpu = json!({ "quota": 50_000, "period": 100_000, "burst": 20_000 });
    in_force_or_refused("/linux/resources/cpu", cpu, &[("cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000")]);
}

#[test]
fn cpu_idle() {
    in_force_or_refused("/linux/resources/cpu/idle", json!(1), &[("cpu.idle", "1")]);
}

#[test]
fn cpu_realtime() {
    let cpu = json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 0 });
    in_force_or_refused("/linux/resources/cpu", cpu, &[("cpu.rt_period_us", "1000000")]);
}

#[test]
fn block_io() {
    let devices = json!([{ "major": 254, "minor": 0, "weight": 300, "leafWeight": 200 }]);
    for (block_io, files) in [
        (
            json!({ "weight": 300 }),
            &[("blkio.bfq.weight", "300"), ("blkio.weight", "300"), ("io.bfq.weight", "default 300")][..],
        ),
        (json!({ "leafWeight": 200 }), &[("blkio.leaf_weight", "200")]),
        (
            json!({ "weightDevice": devices }),
            &[("blkio.weight_device", "254:0 300"), ("blkio.bfq.weight_device", "254:0 300")],
        ),
    ] {
        in_force_or_refused("/linux/resources/blockIO", block_io, files);
    }
}

#[test]
fn network_priorities() {
    let priorities = json!([{ "name": "lo", "priority": 5 }]);
    in_force_or_refused("/linux/resources/network/priorities", priorities, &[("net_prio.ifpriomap", "lo 5")]);
}

#[test]
fn rdma() {
    let limits = json!({ "mlx5_0": { "hcaHandles": 2, "hcaObjects": 100 } });
    in_force_or_refused("/linux/resources/rdma", limits, &[("rdma.max", "mlx5_0 hca_handle=2 hca_object=100")]);
}

/// Names of files of cgroup v2, which a hybrid host has in its v2 half alone.
#[test]
fn unified() {
    let name = "hugetlb.2MB.max";
    in_force_or_refused("/linux/resources/unified", json!({ (name): "4194304" }), &[(name, "4194304")]);
}

#[test]
fn memory_checked_before_update() {
    let memory = json!({ "limit": 67_108_864, "checkBeforeUpdate": true });
    let files = &[("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")];
    in_force_or_refused("/linux/resources/memory", memory, files);
}

/// What `rtx check` says of a value that means nothing on Linux, or that has to be refused.
fn remark(pointer: &str, value: Value, severity: &str, words: &str) {
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut bundle = Bundle::new();
    bundle.set(pointer, value);
    bundle.write();
    let output = runtime.run(&["check", &bundle.path().display().to_string()]);
    let said =
        output.stdout.lines().any(|line| line.starts_with(&format!("{severity}: {pointer}")) && line.contains(words));
    assert!(said, "{}", output.stdout);
}

#[test]
fn memory_without_hierarchy() {
    remark("/linux/resources/memory", json!({ "useHierarchy": false }), "warning", "hierarchically");
}

#[test]
fn listener_metadata_without_listener() {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" });
    remark("/linux/seccomp", profile, "warning", "no listenerPath");
}

/// Where there is SELinux the label shows in the mounts, which is for a host that has it.
#[test]
fn mount_label() {
    if std::path::Path::new("/sys/fs/selinux").exists() {
        skip!("this host has SELinux");
    }
    let label = json!("system_u:object_r:container_file_t:s0");
    remark("/linux/mountLabel", label, "error", "selinux is disabled or not supported");
}

#[test]
fn personality_flags() {
    let personality = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
    remark("/linux/personality", personality, "error", "flags are not supported");
}
