//! The cgroup v2 spelling of each section of `linux.resources`. Kernel documentation, admin-guide/cgroup-v2.rst; the
//! conversions from v1 values are the ones that runc and crun agree on.

use std::collections::HashMap;

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxResources, LinuxThrottleDevice};

use super::limits::{Setting, per_device, swappiness};
pub use super::limits_v1::{cpuset, pids, rdma};

/// `max` for -1, as v2 spells it.
fn bytes(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Memory limits. v2 counts swap by itself, so `swap` loses the memory limit that it includes.
pub fn memory(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(memory) = resources.memory() else { return Ok(Vec::new()) };
    if memory.disable_oom_killer() == Some(true) {
        bail!(
            "/linux/resources/memory/disableOOMKiller: cgroup v2 cannot disable the OOM killer; remove it or set it to false"
        );
    }
    if let Some(value) = memory.swappiness().filter(|value| *value != u64::MAX) {
        bail!(
            "/linux/resources/memory/swappiness: cgroup v2 has no swappiness of a cgroup's own; remove the value {}",
            swappiness(value)?
        );
    }
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    let mut settings = Vec::new();
    if let Some(value) = swap_max(limit, swap)? {
        // Without swap accounting there is no such file, and no swap to take away or to grant.
        let optional = value <= 0;
        let setting = Setting::new("memory", "/linux/resources/memory/swap", "memory.swap.max", bytes(value));
        settings.push(if optional { setting.optional() } else { setting });
    }
    if let Some(limit) = limit {
        let mut setting = Setting::new("memory", "/linux/resources/memory/limit", "memory.max", bytes(limit));
        setting.check_usage = memory.check_before_update() == Some(true);
        settings.push(setting);
    }
    if let Some(reservation) = given(memory.reservation()) {
        settings.push(Setting::new("memory", "/linux/resources/memory/reservation", "memory.low", bytes(reservation)));
    }
    Ok(settings)
}

/// The swap limit by itself, -1 for unlimited; None leaves it alone.
fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    let pointer = "/linux/resources/memory/swap";
    match (limit, swap) {
        (Some(..=-1), None) | (_, Some(..=-1)) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (Some(limit @ 1..), Some(swap)) if swap >= limit => Ok(Some(swap - limit)),
        (Some(limit @ 1..), Some(swap)) => bail!("{pointer}: {swap} is below memory/limit {limit}, which it includes"),
        _ => bail!("{pointer}: a swap limit needs a memory/limit beside it, which it includes"),
    }
}

/// CPU time. The defaults of the two halves of cpu.max are "max" and 100 ms.
pub fn cpu(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    for (name, given) in [
        ("realtimePeriod", cpu.realtime_period().is_some_and(|value| value != 0)),
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|value| value != 0)),
    ] {
        if given {
            bail!("/linux/resources/cpu/{name}: cgroup v2 has no realtime limits; remove it");
        }
    }
    let mut settings = Vec::new();
    let mut put = |name: &str, file: &'static str, value: String| {
        settings.push(Setting::new("cpu", format!("/linux/resources/cpu/{name}"), file, value));
    };
    // An idle group refuses a weight, so idle is left first and entered last.
    if let Some(0) = cpu.idle() {
        put("idle", "cpu.idle", "0".into());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        put("shares", "cpu.weight", cpu_weight(shares).to_string());
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let name = if quota.is_some() { "quota" } else { "period" };
        put(name, "cpu.max", format!("{} {}", bytes(quota.unwrap_or(-1)), period.unwrap_or(100_000)));
    }
    if let Some(burst) = cpu.burst() {
        put("burst", "cpu.max.burst", burst.to_string());
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        put("idle", "cpu.idle", idle.to_string());
    }
    Ok(settings)
}

/// Shares 2, 1024 and 262144 become weights 1, 100 and 10000: the parabola through these three points, on logarithmic
/// axes, which runc and crun use since 2025 (a straight line made the default of 1024 a weight of 39).
fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// A blkio weight of 10 to 1000 on the scale of io.weight, 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// Block I/O. BFQ takes the v1 weight as it is; io.weight has another scale.
pub fn io(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(block_io) = resources.block_io() else { return Ok(Vec::new()) };
    let at = |rest: &str| format!("/linux/resources/blockIO/{rest}");
    if block_io.leaf_weight().is_some_and(|weight| weight != 0) {
        bail!("{}: cgroup v2 has no leaf weights; remove it", at("leafWeight"));
    }
    let mut settings = Vec::new();
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        settings.push(Setting::new("io", at("weight"), "io.bfq.weight", weight).or("io.weight", io_weight(weight)));
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            bail!("{}: cgroup v2 has no leaf weights; remove it", at(&format!("weightDevice/{index}/leafWeight")));
        }
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let (major, minor) = (device.major(), device.minor());
            settings.push(
                Setting::new(
                    "io",
                    at(&format!("weightDevice/{index}/weight")),
                    "io.bfq.weight",
                    per_device(major, minor, weight),
                )
                .or("io.weight", per_device(major, minor, io_weight(weight))),
            );
        }
    }
    let throttle: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("throttleReadBpsDevice", "rbps", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", block_io.throttle_write_iops_device()),
    ];
    for (name, key, devices) in throttle {
        for (index, device) in devices.iter().flatten().enumerate() {
            // io.max takes no 0, which in v1 lifts the limit.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = per_device(device.major(), device.minor(), format_args!("{key}={rate}"));
            settings.push(Setting::new("io", at(&format!("{name}/{index}")), "io.max", value));
        }
    }
    Ok(settings)
}

/// Huge pages in use; the reservation limit exists from Linux 5.7.
pub fn hugetlb(resources: &LinuxResources) -> Result<Vec<Setting>> {
    super::limits_v1::hugetlb_files(resources, "max", "rsvd.max")
}

/// cgroup v2 has no network classes.
pub fn net_cls(resources: &LinuxResources) -> Result<Vec<Setting>> {
    refuse(super::limits_v1::net_cls(resources)?)
}

/// cgroup v2 has no network priorities.
pub fn net_prio(resources: &LinuxResources) -> Result<Vec<Setting>> {
    refuse(super::limits_v1::net_prio(resources)?)
}

fn refuse(v1_only: Vec<Setting>) -> Result<Vec<Setting>> {
    if let Some(first) = v1_only.first() {
        bail!(
            "{}: cgroup v2 has no {} controller; match packets by cgroup path instead",
            first.pointer,
            first.controller
        );
    }
    Ok(v1_only)
}

/// `unified`: file names and values as they are. A value of several lines is written line by line, because the kernel
/// takes one device at a time.
pub fn unified(files: &HashMap<String, String>) -> Result<Vec<Setting>> {
    let mut names: Vec<&String> = files.keys().collect();
    names.sort();
    let mut settings = Vec::new();
    for name in names {
        let pointer = format!("/linux/resources/unified/{}", name.replace('~', "~0").replace('/', "~1"));
        if name.contains('/') || !name.contains('.') || name.starts_with('.') {
            bail!("{pointer}: {name:?} is not the name of a cgroup file, such as memory.high");
        }
        let value = &files[name];
        for line in if value.is_empty() { vec![""] } else { value.lines().collect() } {
            settings.push(Setting::new("unified", pointer.clone(), name.clone(), line));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fit_the_ends_and_the_default() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(cpu_weight(shares), weight);
        }
        for (weight, expected) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), expected);
        }
    }

    #[test]
    fn swap_loses_the_memory_it_includes() {
        assert_eq!(swap_max(Some(10), Some(30)).unwrap(), Some(20));
        assert_eq!(swap_max(Some(10), Some(10)).unwrap(), Some(0));
        assert_eq!(swap_max(Some(10), Some(-1)).unwrap(), Some(-1));
        assert_eq!(swap_max(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap_max(Some(10), None).unwrap(), None);
        assert!(swap_max(None, Some(10)).is_err());
        assert!(swap_max(Some(10), Some(5)).is_err());
    }

    #[test]
    fn quota_and_period_share_a_file() {
        for (json, value) in [
            (r#"{"cpu":{"quota":5000}}"#, "5000 100000"),
            (r#"{"cpu":{"period":50000}}"#, "max 50000"),
            (r#"{"cpu":{"quota":-1,"period":50000}}"#, "max 50000"),
        ] {
            assert_eq!(cpu(&serde_json::from_str(json).unwrap()).unwrap()[0].value, value);
        }
    }

    #[test]
    fn unified_takes_only_file_names() {
        let file = |name: &str| unified(&HashMap::from([(name.to_owned(), "8:0 rbps=1\n8:16 rbps=2".to_owned())]));
        assert_eq!(file("io.max").unwrap().len(), 2);
        for bad in ["../memory.max", "memory", ".x"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}
