//! Limits as properties of a unit, so that systemd shows them and does not overwrite them with its own.
//! systemd.resource-control(5), org.freedesktop.systemd1(5).

use super::super::limits::Setting;
use super::wire::{Property, Value};

/// What each limit is called by systemd of this version. Limits that systemd has no property for are left to the files
/// of the cgroup, as are all exact values: systemd rounds some.
pub fn of(settings: &[Setting], version: u32) -> Vec<Property> {
    let single = settings.iter().flat_map(|setting| one(&setting.file, &setting.value, setting, version));
    single.chain(v1_quota(settings, version)).collect()
}

/// cgroup v1 has quota and period in two files.
fn v1_quota(settings: &[Setting], version: u32) -> Vec<Property> {
    let value = |file: &str| settings.iter().find(|setting| setting.file == file).map(|setting| &*setting.value);
    match (value("cpu.cfs_quota_us"), value("cpu.cfs_period_us")) {
        (None, None) => Vec::new(),
        (quota, period) => cpu_max(&format!("{} {}", quota.unwrap_or("max"), period.unwrap_or_default()), version),
    }
}

fn one(file: &str, value: &str, setting: &Setting, version: u32) -> Vec<Property> {
    let number = |name: &str| number(value).map(|number| (name.to_owned(), Value::U64(number))).into_iter().collect();
    match file {
        "memory.max" => number("MemoryMax"),
        "memory.high" => number("MemoryHigh"),
        "memory.low" => number("MemoryLow"),
        "memory.min" => number("MemoryMin"),
        "memory.swap.max" => number("MemorySwapMax"),
        "memory.limit_in_bytes" => number("MemoryLimit"),
        "cpu.shares" => number("CPUShares"),
        "blkio.weight" => number("BlockIOWeight"),
        "pids.max" => number("TasksMax"),
        "cpu.weight" => number("CPUWeight"),
        // Weight 0 is idle.
        "cpu.idle" if value == "1" && version >= 252 => vec![("CPUWeight".into(), Value::U64(0))],
        "cpu.max" => cpu_max(value, version),
        "io.weight" => io_weight(value),
        "io.bfq.weight" => setting.otherwise.iter().flat_map(|(_, value)| io_weight(value)).collect(),
        "cpuset.cpus" if version >= 244 => cpu_set("AllowedCPUs", value),
        "cpuset.mems" if version >= 244 => cpu_set("AllowedMemoryNodes", value),
        _ => Vec::new(),
    }
}

/// systemd spells `max`, which is -1 on v1, as the largest number.
fn number(value: &str) -> Option<u64> {
    if matches!(value.trim(), "max" | "-1") { Some(u64::MAX) } else { value.trim().parse().ok() }
}

/// `QUOTA PERIOD` as the time in each second, in whole steps of 10 ms as systemd wants it, rounded up.
fn cpu_max(value: &str, version: u32) -> Vec<Property> {
    const STEP: u64 = 10_000;
    let mut words = value.split_whitespace();
    let Some(quota) = words.next().and_then(number) else { return Vec::new() };
    let period = words.next().and_then(number).filter(|period| *period != 0).unwrap_or(100_000);
    let per_second = match quota {
        u64::MAX => u64::MAX,
        quota => (quota.saturating_mul(1_000_000) / period).max(1).div_ceil(STEP).saturating_mul(STEP),
    };
    let mut properties = vec![("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second))];
    if version >= 242 {
        properties.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    properties
}

/// The weight for all devices, `default N` or `N`; those of single devices stay with the file.
fn io_weight(value: &str) -> Vec<Property> {
    let weight = value.strip_prefix("default ").unwrap_or(value);
    weight.trim().parse().map(|weight| ("IOWeight".to_owned(), Value::U64(weight))).into_iter().collect()
}

/// `0-2,8` as bits, the lowest first.
fn cpu_set(name: &str, list: &str) -> Vec<Property> {
    /// More than any kernel is built for.
    const LAST: usize = 1 << 14;
    let mut bits: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { return Vec::new() };
        if first > last || last > LAST {
            return Vec::new();
        }
        bits.resize(bits.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|cpu| bits[cpu / 8] |= 1 << (cpu % 8));
    }
    vec![(name.to_owned(), Value::bytes(bits))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(file: &'static str, value: &str, version: u32) -> Vec<(String, Value)> {
        of(&[Setting::new("any", "/x", file, value)], version)
    }

    fn single(name: &str, value: u64) -> (String, Value) {
        (name.to_owned(), Value::U64(value))
    }

    #[test]
    fn numbers_and_their_absence() {
        assert_eq!(shown("memory.max", "max", 252), [single("MemoryMax", u64::MAX)]);
        assert_eq!(shown("pids.max", "7", 252), [single("TasksMax", 7)]);
        assert!(shown("memory.oom.group", "1", 252).is_empty() && shown("cpu.idle", "1", 249).is_empty());
        assert_eq!(shown("io.weight", "default 50", 252), [single("IOWeight", 50)]);
        assert!(shown("io.weight", "8:0 50", 252).is_empty());
    }

    #[test]
    fn cpu_time_is_rounded_up_to_ten_milliseconds() {
        let [quota, period] = ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"];
        assert_eq!(shown("cpu.max", "20000 50000", 252), [single(quota, 400_000), single(period, 50_000)]);
        assert_eq!(shown("cpu.max", "1234 100000", 241), [single(quota, 20_000)]);
        assert_eq!(shown("cpu.max", "max 100000", 241), [single(quota, u64::MAX)]);
    }

    #[test]
    fn v1_has_other_names() {
        let all = |list: &[(&'static str, &str)]| {
            let settings: Vec<_> = list.iter().map(|(file, value)| Setting::new("any", "/x", *file, value)).collect();
            of(&settings, 252)
        };
        let [quota, period] = ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"];
        let both = all(&[("cpu.cfs_period_us", "50000"), ("cpu.shares", "9"), ("cpu.cfs_quota_us", "20000")]);
        assert_eq!(both, [single("CPUShares", 9), single(quota, 400_000), single(period, 50_000)]);
        assert_eq!(all(&[("cpu.cfs_quota_us", "-1")])[0], single(quota, u64::MAX));
        let period_alone = all(&[("cpu.cfs_period_us", "50000")]);
        assert_eq!(period_alone, [single(quota, u64::MAX), single(period, 50_000)]);
        assert_eq!(all(&[("memory.limit_in_bytes", "-1")]), [single("MemoryLimit", u64::MAX)]);
        assert_eq!(
            all(&[("blkio.weight", "500"), ("memory.memsw.limit_in_bytes", "5")]),
            [single("BlockIOWeight", 500)]
        );
    }

    #[test]
    fn processors_are_bits() {
        let bytes = |list: &[u8]| vec![("AllowedCPUs".to_owned(), Value::bytes(list.iter().copied()))];
        assert_eq!(shown("cpuset.cpus", "0-2,8", 252), bytes(&[7, 1]));
        assert!(shown("cpuset.cpus", "x", 252).is_empty() && shown("cpuset.cpus", "0-99999999", 252).is_empty());
        assert!(shown("cpuset.cpus", "0", 243).is_empty());
    }
}
