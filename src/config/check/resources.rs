//! config-linux.md "Control groups": the values that the kernel would refuse on every host.

use serde_json::Value;

use super::document::keyed;
use super::{Report, integer, list, present, text};

/// Of all architectures of Linux. The kernel takes a limit below it for zero, and kills what it was for.
const SMALLEST_PAGE: i128 = 4096;

pub(super) fn check(report: &mut Report, linux: &Value) {
    let Some(resources) = present(linux, "resources") else { return };
    if let Some(memory) = present(resources, "memory") {
        check_memory(report, memory);
    }
    if let Some(cpu) = present(resources, "cpu") {
        check_cpu(report, cpu);
    }
    if let Some(block_io) = present(resources, "blockIO") {
        check_block_io(report, block_io);
    }
    check_hugepages(report, resources);
    check_unified(report, resources);
}

fn check_memory(report: &mut Report, memory: &Value) {
    const AT: &str = "/linux/resources/memory";
    for name in ["limit", "reservation", "swap", "kernel", "kernelTCP"] {
        if let Some(bytes) = integer(memory, name).filter(|bytes| *bytes < -1) {
            report.error(
                format!("{AT}/{name}"),
                format!("{bytes} is no amount of memory: invalid argument"),
                "use bytes, or -1 for no limit",
            );
        }
    }
    if let Some(bytes) = integer(memory, "limit").filter(|bytes| (1..SMALLEST_PAGE).contains(bytes)) {
        report.error(
            format!("{AT}/limit"),
            format!("{bytes} bytes of memory are less than one page ({SMALLEST_PAGE} bytes): nothing can run in them"),
            "raise it; the unit is bytes",
        );
    }
    let (limit, swap) = (integer(memory, "limit").unwrap_or(0), integer(memory, "swap").unwrap_or(0));
    if swap > 0 && limit == 0 {
        report.error(
            format!("{AT}/swap"),
            "unable to set swap limit without memory limit",
            "add \"limit\": \"swap\" is the sum of both",
        );
    } else if swap > 0 && swap < limit {
        report.error(
            format!("{AT}/swap"),
            format!("memory+swap limit should be >= memory limit, {swap} is below {limit}"),
            "raise it: \"swap\" is the sum of memory and swap",
        );
    }
    if let Some(reservation) = integer(memory, "reservation").filter(|soft| limit > 0 && *soft > limit) {
        report.warning(
            format!("{AT}/reservation"),
            format!("a reservation of {reservation} is over the limit of {limit} and has no effect"),
            "lower it",
        );
    }
    if let Some(swappiness) = integer(memory, "swappiness").filter(|value| *value > 100) {
        report.error(
            format!("{AT}/swappiness"),
            format!("invalid memory.swappiness value: {swappiness} (valid range is 0-100)"),
            "use a number from 0 to 100",
        );
    }
    if memory.get("useHierarchy") == Some(&Value::Bool(false)) {
        report.warning(
            format!("{AT}/useHierarchy"),
            "memory is accounted hierarchically all the same: Linux has no other way since 5.11",
            "remove it",
        );
    }
    for name in ["kernel", "kernelTCP"] {
        if integer(memory, name).is_some_and(|bytes| bytes != 0) {
            report.warning(
                format!("{AT}/{name}"),
                "kernel memory settings are ignored: Linux has no such limit since 5.4",
                "remove it; \"limit\" counts kernel memory as well",
            );
        }
    }
}

fn check_cpu(report: &mut Report, cpu: &Value) {
    const AT: &str = "/linux/resources/cpu";
    let (quota, period) = (integer(cpu, "quota").unwrap_or(0), integer(cpu, "period").unwrap_or(0));
    if (1..1000).contains(&quota) {
        report.error(
            format!("{AT}/quota"),
            format!("a quota of {quota} µs is less than Linux grants: invalid argument"),
            "use 1000 or more, or -1 for no limit",
        );
    }
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        report.error(
            format!("{AT}/period"),
            format!("a period of {period} µs is out of range: invalid argument"),
            "use a number from 1000 to 1000000",
        );
    }
    if let Some(burst) = integer(cpu, "burst").filter(|burst| quota > 0 && *burst > quota) {
        report.error(
            format!("{AT}/burst"),
            format!("a burst of {burst} µs is over the quota of {quota}: invalid argument"),
            "lower it to the quota or below",
        );
    }
    if let Some(idle) = integer(cpu, "idle").filter(|idle| !(0..=1).contains(idle)) {
        report.error(format!("{AT}/idle"), format!("{idle} is neither 0 nor 1"), "use 1 for SCHED_IDLE, 0 for not");
    }
    let realtime_period = integer(cpu, "realtimePeriod").unwrap_or(0);
    if let Some(runtime) = integer(cpu, "realtimeRuntime")
        && realtime_period > 0
        && runtime > realtime_period
    {
        report.error(
            format!("{AT}/realtimeRuntime"),
            format!("{runtime} µs do not fit into a period of {realtime_period}: invalid argument"),
            "lower it, or raise \"realtimePeriod\"",
        );
    }
    for name in ["cpus", "mems"] {
        let allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_whitespace() || b"-,:/".contains(&byte);
        if let Some(set) = text(cpu, name).filter(|set| !set.bytes().all(allowed)) {
            report.error(
                format!("{AT}/{name}"),
                format!("{set:?} is no list of numbers: invalid argument"),
                "write numbers and ranges with commas between them, as in \"0-3,7\"",
            );
        }
    }
}

fn check_block_io(report: &mut Report, block_io: &Value) {
    const AT: &str = "/linux/resources/blockIO";
    check_weights(report, block_io, AT);
    for (index, device) in list(block_io, "weightDevice").iter().enumerate() {
        check_weights(report, device, &format!("{AT}/weightDevice/{index}"));
    }
    for name in PER_DEVICE {
        for (index, device) in list(block_io, name).iter().enumerate() {
            check_numbers(report, device, &format!("{AT}/{name}/{index}"));
        }
    }
}

const PER_DEVICE: [&str; 5] = [
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
];

/// The kernel would take what is left of a larger number for another device.
fn check_numbers(report: &mut Report, device: &Value, at: &str) {
    for (name, most) in [("major", (1 << 12) - 1), ("minor", (1 << 20) - 1)] {
        if let Some(number) = integer(device, name).filter(|number| !(0..=most).contains(number)) {
            report.error(
                format!("{at}/{name}"),
                format!("{number} is no {name} number of a device: invalid argument"),
                format!("use a number from 0 to {most}"),
            );
        }
    }
}

fn check_weights(report: &mut Report, object: &Value, at: &str) {
    for name in ["weight", "leafWeight"] {
        let wrong = |weight: &i128| matches!(weight, 1..10 | 1001..=0xffff);
        if let Some(weight) = integer(object, name).filter(wrong) {
            report.error(
                format!("{at}/{name}"),
                format!("a weight of {weight} is out of range: invalid argument"),
                "use a number from 10 to 1000",
            );
        }
    }
}

fn check_hugepages(report: &mut Report, resources: &Value) {
    let limits = list(resources, "hugepageLimits");
    for (index, limit) in limits.iter().enumerate() {
        let Some(size) = text(limit, "pageSize") else { continue };
        let at = || format!("/linux/resources/hugepageLimits/{index}/pageSize");
        if !is_page_size(size) {
            report.error(at(), format!("{size:?} is no page size"), "write it as in \"64KB\", \"2MB\" or \"1GB\"");
        } else if limits[..index].iter().any(|earlier| text(earlier, "pageSize") == Some(size)) {
            report.warning(at(), format!("{size} is given twice; the later one holds"), "keep one of the two");
        }
    }
}

fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or("");
    !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Keys are names of files in the container's cgroup, and must not lead out of it.
fn check_unified(report: &mut Report, resources: &Value) {
    let Some(unified) = resources.get("unified").and_then(Value::as_object) else { return };
    for key in unified.keys() {
        if key.contains('/') {
            report.error(
                keyed("/linux/resources/unified", key),
                format!("unified resource {key:?} must be a file name (no slashes)"),
                "write it as in \"memory.high\"",
            );
        } else if !key.contains('.') {
            report.error(
                keyed("/linux/resources/unified", key),
                format!("unified resource {key:?} must be in the form CONTROLLER.PARAMETER"),
                "write it as in \"memory.high\"",
            );
        }
    }
}
