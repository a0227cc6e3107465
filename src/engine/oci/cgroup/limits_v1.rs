//! The cgroup v1 spelling of each section of `linux.resources`. Kernel documentation, admin-guide/cgroup-v1.

use std::path::Path;

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxResources, LinuxThrottleDevice};

use super::limits::{Setting, page_size, per_device, swappiness};
use super::placement::Placement;

/// Where the kernel lists its huge page sizes.
pub const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// Memory limits. 0 means "not given", -1 "unlimited"; swap counts memory and swap together.
pub fn memory(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(memory) = resources.memory() else { return Ok(Vec::new()) };
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut settings = Vec::new();
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let Some(limit) = limit {
        settings.push(Setting::new("memory", "/linux/resources/memory/limit", "memory.limit_in_bytes", limit));
    }
    match (limit, swap) {
        (_, Some(swap)) => {
            settings.push(Setting::new("memory", "/linux/resources/memory/swap", "memory.memsw.limit_in_bytes", swap));
        }
        // Unlimited memory under the old limit for memory and swap would be no such thing.
        (Some(-1), None) => {
            settings.push(
                Setting::new("memory", "/linux/resources/memory/limit", "memory.memsw.limit_in_bytes", -1).optional(),
            );
        }
        _ => {}
    }
    if let Some(reservation) = given(memory.reservation()) {
        settings.push(Setting::new(
            "memory",
            "/linux/resources/memory/reservation",
            "memory.soft_limit_in_bytes",
            reservation,
        ));
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(Setting::new("memory", "/linux/resources/memory/disableOOMKiller", "memory.oom_control", 1));
    }
    // Go callers write "-1, not given" as the unsigned number it becomes.
    if let Some(value) = memory.swappiness().filter(|value| *value != u64::MAX) {
        settings.push(Setting::new(
            "memory",
            "/linux/resources/memory/swappiness",
            "memory.swappiness",
            swappiness(value)?,
        ));
    }
    Ok(settings)
}

/// That the OOM killer is enabled, of a container that may be one without: a new one is not.
pub fn oom_killer_again(resources: &LinuxResources, placement: &Placement) -> Option<Setting> {
    let is_wanted = resources.memory().as_ref().is_some_and(|memory| memory.disable_oom_killer() == Some(false));
    (is_wanted && placement.v1("memory").is_some())
        .then(|| Setting::new("memory", "/linux/resources/memory/disableOOMKiller", "memory.oom_control", 0))
}

/// CPU time. The order lets a new period that only fits the new quota be repeated after it.
pub fn cpu(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    let mut put = |name: &str, file: &'static str, value: String| {
        settings.push(Setting::new("cpu", format!("/linux/resources/cpu/{name}"), file, value));
    };
    // An idle group refuses shares, so idle is left first and entered last.
    if let Some(0) = cpu.idle() {
        put("idle", "cpu.idle", "0".into());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        if !(2..=262_144).contains(&shares) {
            bail!("/linux/resources/cpu/shares: {shares} is not within 2 to 262144");
        }
        put("shares", "cpu.shares", shares.to_string());
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        put("period", "cpu.cfs_period_us", period.to_string());
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        put("quota", "cpu.cfs_quota_us", quota.max(-1).to_string());
    }
    if let Some(burst) = cpu.burst() {
        put("burst", "cpu.cfs_burst_us", burst.to_string());
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        put("realtimePeriod", "cpu.rt_period_us", period.to_string());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        put("realtimeRuntime", "cpu.rt_runtime_us", runtime.to_string());
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        put("idle", "cpu.idle", idle.to_string());
    }
    Ok(settings)
}

/// The CPUs and memory nodes that may be used; same files on v2.
pub fn cpuset(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    if let Some(cpus) = cpu.cpus().as_ref().filter(|list| !list.is_empty()) {
        settings.push(Setting::new("cpuset", "/linux/resources/cpu/cpus", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|list| !list.is_empty()) {
        settings.push(Setting::new("cpuset", "/linux/resources/cpu/mems", "cpuset.mems", mems));
    }
    Ok(settings)
}

/// The number of tasks; same file on v2. Below 0 is unlimited; 0 is written as 1, which means the same to the kernel
/// (the container's first process is already in) and is what runc writes.
pub fn pids(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(pids) = resources.pids() else { return Ok(Vec::new()) };
    let value = match pids.limit() {
        ..0 => "max".to_owned(),
        limit => limit.max(1).to_string(),
    };
    Ok(vec![Setting::new("pids", "/linux/resources/pids/limit", "pids.max", value)])
}

/// Block I/O. The weights are there only with the BFQ scheduler, under a name of its own.
pub fn blkio(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(block_io) = resources.block_io() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    let at = |rest: &str| format!("/linux/resources/blockIO/{rest}");
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        settings.push(Setting::new("blkio", at("weight"), "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        settings.push(Setting::new("blkio", at("leafWeight"), "blkio.leaf_weight", weight));
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = per_device(device.major(), device.minor(), weight);
            let pointer = at(&format!("weightDevice/{index}/weight"));
            settings.push(
                Setting::new("blkio", pointer, "blkio.weight_device", value.clone())
                    .or("blkio.bfq.weight_device", value),
            );
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            let value = per_device(device.major(), device.minor(), weight);
            let pointer = at(&format!("weightDevice/{index}/leafWeight"));
            settings.push(Setting::new("blkio", pointer, "blkio.leaf_weight_device", value));
        }
    }
    let throttle: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ];
    for (name, file, devices) in throttle {
        for (index, device) in devices.iter().flatten().enumerate() {
            let value = per_device(device.major(), device.minor(), device.rate());
            settings.push(Setting::new("blkio", at(&format!("{name}/{index}")), file, value));
        }
    }
    Ok(settings)
}

/// Huge pages in use; the reservation limit exists from Linux 5.7.
pub fn hugetlb(resources: &LinuxResources) -> Result<Vec<Setting>> {
    hugetlb_files(resources, "limit_in_bytes", "rsvd.limit_in_bytes")
}

/// The two files of each huge page size; v2 ends their names differently.
pub fn hugetlb_files(resources: &LinuxResources, limit: &str, reserved: &str) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, hugepages) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page_size(index, hugepages.page_size(), Path::new(HUGEPAGES))?;
        let pointer = format!("/linux/resources/hugepageLimits/{index}/limit");
        let value = hugepages.limit();
        settings.push(Setting::new("hugetlb", pointer.clone(), format!("hugetlb.{size}.{limit}"), value));
        settings.push(Setting::new("hugetlb", pointer, format!("hugetlb.{size}.{reserved}"), value).optional());
    }
    Ok(settings)
}

/// RDMA handles and objects; same file on v2.
pub fn rdma(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (device, limits) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        if let Some(handles) = limits.hca_handles() {
            value += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limits.hca_objects() {
            value += &format!(" hca_object={objects}");
        }
        settings.push(Setting::new("rdma", format!("/linux/resources/rdma/{device}"), "rdma.max", value));
    }
    Ok(settings)
}

/// The class that the container's packets are tagged with.
pub fn net_cls(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let class = resources.network().as_ref().and_then(|network| network.class_id()).filter(|class| *class != 0);
    Ok(class
        .map(|class| Setting::new("net_cls", "/linux/resources/network/classID", "net_cls.classid", class))
        .into_iter()
        .collect())
}

/// The priority of the container's packets on each interface.
pub fn net_prio(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    Ok(priorities
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, entry)| {
            let pointer = format!("/linux/resources/network/priorities/{index}");
            Setting::new("net_prio", pointer, "net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(convert: fn(&LinuxResources) -> Result<Vec<Setting>>, json: &str) -> Vec<String> {
        let resources = serde_json::from_str(json).unwrap();
        convert(&resources).unwrap().into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn unlimited_memory_frees_swap_too() {
        let files = written(memory, r#"{"memory":{"limit":-1}}"#);
        assert_eq!(files, ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]);
    }

    #[test]
    fn idle_is_entered_after_the_shares_and_left_before() {
        assert_eq!(written(cpu, r#"{"cpu":{"shares":2,"idle":1}}"#), ["cpu.shares=2", "cpu.idle=1"]);
        assert_eq!(written(cpu, r#"{"cpu":{"shares":2,"idle":0}}"#), ["cpu.idle=0", "cpu.shares=2"]);
    }

    #[test]
    fn pids_limits() {
        for (limit, value) in [(-1, "max"), (0, "1"), (7, "7")] {
            assert_eq!(written(pids, &format!(r#"{{"pids":{{"limit":{limit}}}}}"#)), [format!("pids.max={value}")]);
        }
    }

    #[test]
    fn throttling_is_one_line_a_device() {
        let json = r#"{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}]}}"#;
        assert_eq!(written(blkio, json), ["blkio.weight=500", "blkio.throttle.read_bps_device=8:0 9"]);
    }
}
