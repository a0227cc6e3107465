//! Counters of the cgroup v1 controllers. Kernel documentation, admin-guide/cgroup-v1.

use std::path::Path;

use super::live::read_at;
use super::placement::Placement;
use super::stats::{BlkioEntry, Hugetlb, MemoryEntry, Stats};

/// Clock ticks of cpuacct.stat are a hundredth of a second in every kernel that user space sees.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// The number in a file, or on the line that starts with `key`. 0 where there is none.
pub fn number(directory: &Path, file: &str) -> u64 {
    read_at(directory, file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The `key value` lines of a file.
pub fn pairs(directory: &Path, file: &str) -> Vec<(String, u64)> {
    let text = read_at(directory, file).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Fills in what every v1 controller counts.
pub fn read_into(stats: &mut Stats, placement: &Placement) {
    let directory = |controller: &str| placement.v1(controller).map(|place| place.directory());
    if let Some(directory) = directory("cpu") {
        throttling(stats, &directory);
    }
    if let Some(directory) = directory("cpuacct") {
        cpuacct(stats, &directory);
    }
    if let Some(directory) = directory("cpuset") {
        cpuset(stats, &directory);
    }
    if let Some(directory) = directory("memory") {
        memory(stats, &directory);
    }
    if let Some(directory) = directory("pids") {
        stats.pids.current = number(&directory, "pids.current");
        stats.pids.limit = number(&directory, "pids.max");
    }
    if let Some(directory) = directory("blkio") {
        blkio(stats, &directory);
    }
    if let Some(directory) = directory("hugetlb") {
        hugetlb(stats, &directory);
    }
}

fn throttling(stats: &mut Stats, directory: &Path) {
    for (key, value) in pairs(directory, "cpu.stat") {
        match key.as_str() {
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_time" => stats.cpu.throttling.throttled_time = value,
            _ => {}
        }
    }
}

fn cpuacct(stats: &mut Stats, directory: &Path) {
    let usage = &mut stats.cpu.usage;
    usage.total = number(directory, "cpuacct.usage");
    for (key, value) in pairs(directory, "cpuacct.stat") {
        match key.as_str() {
            "user" => usage.user = value * NANOSECONDS_PER_TICK,
            "system" => usage.kernel = value * NANOSECONDS_PER_TICK,
            _ => {}
        }
    }
    let list = |file: &str| -> Vec<u64> {
        let text = read_at(directory, file).unwrap_or_default();
        text.split_whitespace().filter_map(|value| value.parse().ok()).collect()
    };
    usage.percpu = list("cpuacct.usage_percpu");
    usage.percpu_kernel = list("cpuacct.usage_percpu_sys");
    usage.percpu_user = list("cpuacct.usage_percpu_user");
}

fn cpuset(stats: &mut Stats, directory: &Path) {
    let file = |name: &str| number(directory, &format!("cpuset.{name}"));
    let list = |name: &str| ranges(&read_at(directory, name).unwrap_or_default());
    let cpuset = &mut stats.cpuset;
    cpuset.cpus = list("cpuset.cpus");
    cpuset.mems = list("cpuset.mems");
    cpuset.cpu_exclusive = file("cpu_exclusive");
    cpuset.mem_hardwall = file("mem_hardwall");
    cpuset.mem_exclusive = file("mem_exclusive");
    cpuset.memory_migrate = file("memory_migrate");
    cpuset.memory_spread_page = file("memory_spread_page");
    cpuset.memory_spread_slab = file("memory_spread_slab");
    cpuset.memory_pressure = file("memory_pressure");
    cpuset.sched_load_balance = file("sched_load_balance");
    let level = read_at(directory, "cpuset.sched_relax_domain_level").unwrap_or_default();
    cpuset.sched_relax_domain_level = level.trim().parse().unwrap_or(0);
}

/// `0-2,7` as 0, 1, 2, 7.
fn ranges(list: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

fn memory(stats: &mut Stats, directory: &Path) {
    let entry = |kind: &str| MemoryEntry {
        limit: number(directory, &format!("memory.{kind}limit_in_bytes")),
        usage: number(directory, &format!("memory.{kind}usage_in_bytes")),
        max: number(directory, &format!("memory.{kind}max_usage_in_bytes")),
        failcnt: number(directory, &format!("memory.{kind}failcnt")),
    };
    stats.memory.raw = pairs(directory, "memory.stat").into_iter().collect();
    stats.memory.cache = stats.memory.raw.get("cache").copied().unwrap_or(0);
    stats.memory.usage = entry("");
    stats.memory.swap = entry("memsw.");
    stats.memory.kernel = entry("kmem.");
    stats.memory.kernel_tcp = entry("kmem.tcp.");
}

/// BFQ's counters where it has any, otherwise those of throttling.
fn blkio(stats: &mut Stats, directory: &Path) {
    let read = |names: [&str; 2]| {
        names.iter().map(|name| entries(directory, &format!("blkio.{name}"))).find(|list| !list.is_empty())
    };
    let first = |names| read(names).unwrap_or_default();
    let blkio = &mut stats.blkio;
    blkio.io_service_bytes_recursive = first(["bfq.io_service_bytes_recursive", "throttle.io_service_bytes_recursive"]);
    blkio.io_serviced_recursive = first(["bfq.io_serviced_recursive", "throttle.io_serviced_recursive"]);
    blkio.io_queued_recursive = first(["bfq.io_queued_recursive", "io_queued_recursive"]);
    blkio.io_service_time_recursive = first(["bfq.io_service_time_recursive", "io_service_time_recursive"]);
    blkio.io_wait_time_recursive = first(["bfq.io_wait_time_recursive", "io_wait_time_recursive"]);
    blkio.io_merged_recursive = first(["bfq.io_merged_recursive", "io_merged_recursive"]);
    blkio.io_time_recursive = first(["bfq.time_recursive", "time_recursive"]);
    blkio.sectors_recursive = first(["bfq.sectors_recursive", "sectors_recursive"]);
}

/// `8:0 Read 4096`, or `8:0 4096`; the last line is a total without a device.
fn entries(directory: &Path, file: &str) -> Vec<BlkioEntry> {
    read_at(directory, file).unwrap_or_default().lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<BlkioEntry> {
    let mut fields = line.split_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let (second, third) = (fields.next()?, fields.next());
    let (op, value) = third.map_or(("", second), |value| (second, value));
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

fn hugetlb(stats: &mut Stats, directory: &Path) {
    for size in page_sizes(directory, ".usage_in_bytes") {
        let file = |name: &str| number(directory, &format!("hugetlb.{size}.{name}"));
        let counters =
            Hugetlb { usage: file("usage_in_bytes"), max: file("max_usage_in_bytes"), failcnt: file("failcnt") };
        stats.hugetlb.insert(size, counters);
    }
}

/// The page sizes that the directory has `hugetlb.SIZE` files of with this ending.
pub fn page_sizes(directory: &Path, ending: &str) -> Vec<String> {
    let entries = crate::sys::dir::entries(directory).unwrap_or_default();
    let size = |name: &str| Some(name.strip_prefix("hugetlb.")?.strip_suffix(ending)?.to_owned());
    entries.iter().filter_map(|entry| size(entry.name.to_str()?)).filter(|size| !size.contains('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_lines() {
        assert_eq!(ranges("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(ranges("\n"), [0u16; 0]);
        assert_eq!(entry("8:1 Read 4096"), Some(BlkioEntry { major: 8, minor: 1, op: "Read".into(), value: 4096 }));
        assert_eq!(entry("8:1 5").unwrap().value, 5);
        assert_eq!(entry("Total 5"), None);
    }
}
