//! Counters of cgroup v2, in the shape that runc gives them. Kernel documentation, admin-guide/cgroup-v2.rst.

use std::path::Path;

use super::live::read_at;
use super::stats::{BlkioEntry, Hugetlb, MemoryEntry, Pressure, PressureLine, Stats};
use super::stats_v1::{number, page_sizes, pairs};

/// Fills in what cgroup v2 counts.
pub fn read_into(stats: &mut Stats, directory: &Path) {
    cpu(stats, directory);
    memory(stats, directory);
    io(stats, directory);
    hugetlb(stats, directory);
    // Without the controller, the processes can still be counted, if not the threads.
    let processes = || read_at(directory, "cgroup.procs").map_or(0, |pids| pids.lines().count() as u64);
    let tasks = read_at(directory, "pids.current").ok().and_then(|text| text.trim().parse().ok());
    stats.pids.current = tasks.unwrap_or_else(processes);
    stats.pids.limit = number(directory, "pids.max");
}

fn cpu(stats: &mut Stats, directory: &Path) {
    for (key, microseconds) in pairs(directory, "cpu.stat") {
        match key.as_str() {
            "usage_usec" => stats.cpu.usage.total = microseconds * 1000,
            "user_usec" => stats.cpu.usage.user = microseconds * 1000,
            "system_usec" => stats.cpu.usage.kernel = microseconds * 1000,
            "nr_periods" => stats.cpu.throttling.periods = microseconds,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = microseconds,
            "throttled_usec" => stats.cpu.throttling.throttled_time = microseconds * 1000,
            _ => {}
        }
    }
    stats.cpu.psi = pressure(directory, "cpu.pressure");
}

/// No limit is the largest number, as runc prints it.
fn limit(directory: &Path, file: &str) -> u64 {
    match read_at(directory, file) {
        Ok(text) if text.trim() == "max" => u64::MAX,
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

fn memory(stats: &mut Stats, directory: &Path) {
    let memory = &mut stats.memory;
    memory.raw = pairs(directory, "memory.stat").into_iter().collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let events = pairs(directory, "memory.events");
    let failures = events.iter().find(|(key, _)| key == "max").map_or(0, |(_, count)| *count);
    let entry = |kind: &str| MemoryEntry {
        limit: limit(directory, &format!("memory.{kind}max")),
        usage: number(directory, &format!("memory.{kind}current")),
        max: number(directory, &format!("memory.{kind}peak")),
        failcnt: 0,
    };
    memory.usage = MemoryEntry { failcnt: failures, ..entry("") };
    // v1 counted memory and swap together, and the reader of this JSON expects that.
    let swap = entry("swap.");
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage.saturating_add(memory.usage.usage),
        ..MemoryEntry::default()
    };
    memory.psi = pressure(directory, "memory.pressure");
}

/// io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(stats: &mut Stats, directory: &Path) {
    for line in read_at(directory, "io.stat").unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let entry = |op: &str| BlkioEntry { major, minor, op: op.to_owned(), value };
            let blkio = &mut stats.blkio;
            match key {
                "rbytes" => blkio.io_service_bytes_recursive.push(entry("Read")),
                "wbytes" => blkio.io_service_bytes_recursive.push(entry("Write")),
                "dbytes" => blkio.io_service_bytes_recursive.push(entry("Discard")),
                "rios" => blkio.io_serviced_recursive.push(entry("Read")),
                "wios" => blkio.io_serviced_recursive.push(entry("Write")),
                "dios" => blkio.io_serviced_recursive.push(entry("Discard")),
                _ => {}
            }
        }
    }
    stats.blkio.psi = pressure(directory, "io.pressure");
}

/// Also called beside v1 hierarchies, when this controller alone is v2's.
pub fn hugetlb(stats: &mut Stats, directory: &Path) {
    for size in page_sizes(directory, ".current") {
        let events = pairs(directory, &format!("hugetlb.{size}.events"));
        let failcnt = events.iter().find(|(key, _)| key == "max").map_or(0, |(_, count)| *count);
        let usage = number(directory, &format!("hugetlb.{size}.current"));
        stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(directory: &Path, file: &str) -> Option<Pressure> {
    let text = read_at(directory, file).ok()?;
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let target = match fields.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        *target = pressure_line(fields);
    }
    Some(pressure)
}

fn pressure_line<'a>(fields: impl Iterator<Item = &'a str>) -> PressureLine {
    let mut line = PressureLine::default();
    for (key, value) in fields.filter_map(|field| field.split_once('=')) {
        let average = || value.parse().unwrap_or(0.0);
        match key {
            "avg10" => line.avg10 = average(),
            "avg60" => line.avg60 = average(),
            "avg300" => line.avg300 = average(),
            "total" => line.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines() {
        let line = pressure_line("avg10=1.50 avg60=0.20 avg300=0.00 total=77".split(' '));
        assert_eq!(line, PressureLine { avg10: 1.5, avg60: 0.2, avg300: 0.0, total: 77 });
    }
}
