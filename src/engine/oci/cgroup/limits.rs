//! `linux.resources` as a list of writes to cgroup files: pure conversion, nothing is touched. The v1 and v2 spellings
//! are in [`super::limits_v1`] and [`super::limits_v2`]; this file decides which of them a controller needs on this
//! host. Runtime spec, config-linux.md, "Control groups".

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Result, bail};
use oci_spec::runtime::LinuxResources;

use super::{limits_v1, limits_v2};

/// One value for one cgroup file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The controller the file belongs to.
    pub controller: &'static str,
    /// Where in the configuration the value comes from.
    pub pointer: Cow<'static, str>,
    /// File name in the cgroup directory, and what to write.
    pub file: Cow<'static, str>,
    pub value: String,
    /// File and value to use where `file` does not exist (BFQ's name for the same thing).
    pub otherwise: Option<(&'static str, String)>,
    /// A missing file means that there is nothing to limit.
    pub optional: bool,
    /// Compare with `memory.current` first and refuse a limit below it (`checkBeforeUpdate`).
    pub check_usage: bool,
}

impl Setting {
    pub fn new(
        controller: &'static str,
        pointer: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        let (pointer, file, value) = (pointer.into(), file.into(), value.to_string());
        Self { controller, pointer, file, value, otherwise: None, optional: false, check_usage: false }
    }

    /// The controller that a file of cgroup v2 belongs to; cgroup.* and those of pressure are there without any.
    pub fn v2_controller(&self) -> Option<&str> {
        let controller = self.file.split('.').next()?;
        (controller != "cgroup" && !self.file.ends_with(".pressure")).then_some(controller)
    }

    /// Skips the write where the kernel has no such file.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Names the file that takes this value where the first one does not exist.
    pub fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.otherwise = Some((file, value.to_string()));
        self
    }
}

/// The controllers of this host, by the hierarchy that they live in.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    pub v1: Vec<String>,
    pub v2: Vec<String>,
}

/// Which of the two interfaces a controller has here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    V1,
    V2,
    Absent,
}

impl Controllers {
    /// A host (or a container) without any v1 hierarchy.
    fn pure_v2(&self) -> bool {
        self.v1.is_empty()
    }

    fn interface(&self, v1: &str, v2: &str) -> Interface {
        if self.v1.iter().any(|name| name == v1) {
            Interface::V1
        } else if self.v2.iter().any(|name| name == v2) {
            Interface::V2
        } else {
            Interface::Absent
        }
    }
}

type Convert = fn(&LinuxResources) -> Result<Vec<Setting>>;

/// The sections of `linux.resources`: v1 and v2 controller, and the two conversions.
const SECTIONS: [(&str, &str, Convert, Convert); 8] = [
    ("cpuset", "cpuset", limits_v1::cpuset, limits_v2::cpuset),
    ("cpu", "cpu", limits_v1::cpu, limits_v2::cpu),
    ("memory", "memory", limits_v1::memory, limits_v2::memory),
    ("pids", "pids", limits_v1::pids, limits_v2::pids),
    ("blkio", "io", limits_v1::blkio, limits_v2::io),
    ("hugetlb", "hugetlb", limits_v1::hugetlb, limits_v2::hugetlb),
    ("rdma", "rdma", limits_v1::rdma, limits_v2::rdma),
    ("net_cls", "", limits_v1::net_cls, limits_v2::net_cls),
];

/// Converts every limit but the device rules. The error names the first property that this host cannot honour, by its
/// JSON pointer.
pub fn settings(resources: &LinuxResources, controllers: &Controllers) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    let mut section = |v1: &'static str, v2: &str, as_v1: Convert, as_v2: Convert| -> Result<()> {
        let interface = controllers.interface(v1, v2);
        let as_v2_host = interface == Interface::V2 || (interface == Interface::Absent && controllers.pure_v2());
        let settings = if as_v2_host { as_v2(resources)? } else { as_v1(resources)? };
        if let (Interface::Absent, Some(first)) = (interface, settings.first()) {
            bail!("{}: this host has no {} controller", first.pointer, first.controller);
        }
        all.extend(settings);
        Ok(())
    };
    for (v1, v2, as_v1, as_v2) in SECTIONS {
        section(v1, v2, as_v1, as_v2)?;
    }
    section("net_prio", "", limits_v1::net_prio, limits_v2::net_prio)?;
    if let Some(unified) = resources.unified().as_ref().filter(|unified| !unified.is_empty()) {
        if !controllers.pure_v2() {
            bail!(
                "/linux/resources/unified: invalid configuration: this host has cgroup v1; use the properties beside it, which work on both"
            );
        }
        let settings = limits_v2::unified(unified)?;
        for setting in &settings {
            if let Some(controller) = setting.v2_controller()
                && !controllers.v2.iter().any(|name| name == controller)
            {
                bail!("{}: this host has no {controller} controller", setting.pointer);
            }
        }
        all.extend(settings);
    }
    Ok(all)
}

/// True where something other than device rules was asked for: without it, an unprivileged caller's container may run
/// outside any cgroup of its own.
pub fn any_limit(resources: &LinuxResources) -> bool {
    let everything = Controllers {
        v1: SECTIONS.iter().map(|section| section.0).chain(["net_prio"]).map(str::to_owned).collect(),
        v2: Vec::new(),
    };
    !settings(resources, &everything).is_ok_and(|settings| settings.is_empty())
}

/// `MAJOR:MINOR VALUE`, the form of all per-device block I/O settings.
pub fn per_device(major: i64, minor: i64, value: impl std::fmt::Display) -> String {
    format!("{major}:{minor} {value}")
}

/// What has to be written to a cgroup file so that it says again what it says now, where `value` is about to be written to it:
/// of a file with a line for each device the line of that device.
pub fn value_again(file: &str, text: &str, value: &str) -> Option<String> {
    let key =
        value.split(' ').next().filter(|key| key.contains(':') || matches!(file, "rdma.max" | "net_prio.ifpriomap"));
    if let Some(key) = key {
        let of_the_key = text.lines().find(|line| line.split(' ').next() == Some(key));
        // A device without a line has no limit.
        let none = || match file {
            "io.max" => Some("rbps=max wbps=max riops=max wiops=max"),
            "io.weight" | "io.bfq.weight" | "blkio.bfq.weight_device" => Some("default"),
            _ => file.starts_with("blkio.").then_some("0"),
        };
        return match of_the_key {
            Some(line) => Some(line.trim_end().to_owned()),
            None => none().map(|none| format!("{key} {none}")),
        };
    }
    let line = text.lines().next().unwrap_or_default().trim_end();
    Some(match file {
        "memory.oom_control" => line.strip_prefix("oom_kill_disable ")?.to_owned(),
        // What is empty is written as an empty line: a write of nothing does nothing.
        _ if line.is_empty() => "\n".to_owned(),
        _ => line.strip_prefix("default ").unwrap_or(line).to_owned(),
    })
}

/// Checks a swappiness against the range that the kernel has.
pub fn swappiness(value: u64) -> Result<u64> {
    if value > 100 {
        bail!("/linux/resources/memory/swappiness: {value} is not within 0 to 100");
    }
    Ok(value)
}

/// Checks the name of a huge page size, which becomes part of a file name.
pub fn page_size<'a>(index: usize, size: &'a str, sysfs: &Path) -> Result<&'a str> {
    let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    let well_formed =
        digits.len() + 2 == size.len() && digits.parse::<u64>().is_ok_and(|n| n > 0) && !size.starts_with(['0', '+']);
    if !well_formed {
        bail!("/linux/resources/hugepageLimits/{index}/pageSize: {size:?} is not a size such as 2MB or 1GB");
    }
    let unit: u64 = match size.as_bytes()[digits.len()] {
        b'K' => 1,
        b'M' => 1 << 10,
        _ => 1 << 20,
    };
    let kilobytes = digits.parse::<u64>().unwrap_or(0).saturating_mul(unit);
    if !sysfs.join(format!("hugepages-{kilobytes}kB")).is_dir() {
        bail!(
            "/linux/resources/hugepageLimits/{index}/pageSize: this host has no huge pages of {size}; see {}",
            sysfs.display()
        );
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn hybrid() -> Controllers {
        Controllers { v1: vec!["memory".into(), "cpu".into()], v2: vec!["pids".into()] }
    }

    #[test]
    fn each_controller_is_spoken_to_in_its_own_version() {
        let wanted = resources(r#"{"memory":{"limit":1048576},"pids":{"limit":5},"cpu":{"shares":512}}"#);
        let files: Vec<_> = settings(&wanted, &hybrid()).unwrap().into_iter().map(|s| s.file).collect();
        assert_eq!(files, ["cpu.shares", "memory.limit_in_bytes", "pids.max"]);
    }

    #[test]
    fn a_missing_controller_is_named_by_pointer() {
        let error = settings(&resources(r#"{"cpu":{"cpus":"0"}}"#), &hybrid()).unwrap_err();
        assert_eq!(error.to_string(), "/linux/resources/cpu/cpus: this host has no cpuset controller");
        let error = settings(&resources(r#"{"unified":{"memory.high":"1"}}"#), &hybrid()).unwrap_err();
        assert!(error.to_string().starts_with("/linux/resources/unified: "), "{error}");
    }

    #[test]
    fn unified_needs_a_controller_too() {
        let v2 = Controllers { v1: vec![], v2: vec!["pids".into()] };
        let try_file = |file: &str| settings(&resources(&format!(r#"{{"unified":{{"{file}":"1"}}}}"#)), &v2);
        assert!(
            try_file("cgroup.max.depth").is_ok() && try_file("io.pressure").is_ok() && try_file("pids.max").is_ok()
        );
        let error = try_file("memory.high").unwrap_err().to_string();
        assert_eq!(error, "/linux/resources/unified/memory.high: this host has no memory controller");
    }

    #[test]
    fn device_rules_and_empty_values_are_no_limit() {
        assert!(!any_limit(&resources(r#"{"devices":[{"allow":false}],"cpu":{"cpus":""},"memory":{"limit":0}}"#)));
        assert!(any_limit(&resources(r#"{"pids":{"limit":-1}}"#)));
    }

    #[test]
    fn what_a_file_said_is_written_again() {
        for (file, text, value, again) in [
            ("pids.max", "max\n", "9", "max"),
            ("cpu.max", "max 100000\n", "5000 10000", "max 100000"),
            ("cpuset.cpus", "\n", "0-1", "\n"),
            ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n", "0", "1"),
            ("io.weight", "default 100\n8:0 50\n", "70", "100"),
            ("io.weight", "default 100\n8:0 50\n", "8:0 70", "8:0 50"),
            ("io.bfq.weight", "100\n", "8:0 70", "8:0 default"),
            (
                "io.max",
                "8:0 rbps=5 wbps=max riops=max wiops=max\n",
                "8:0 wbps=7",
                "8:0 rbps=5 wbps=max riops=max wiops=max",
            ),
            ("io.max", "", "8:0 wbps=7", "8:0 rbps=max wbps=max riops=max wiops=max"),
            ("blkio.throttle.read_bps_device", "8:0 5\n8:16 6\n", "8:16 7", "8:16 6"),
            ("blkio.throttle.read_bps_device", "8:0 5\n", "8:16 7", "8:16 0"),
            ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5", "eth0 3"),
        ] {
            assert_eq!(value_again(file, text, value).as_deref(), Some(again), "{file}");
        }
    }

    #[test]
    fn page_sizes_are_checked_before_they_become_file_names() {
        let sysfs = Path::new("/nonexistent");
        for bad in ["", "MB", "2", "2M", "0MB", "+2MB", "2MBMB", "../2MB"] {
            assert!(page_size(0, bad, sysfs).unwrap_err().to_string().contains("is not a size"), "{bad}");
        }
        assert!(page_size(0, "3MB", sysfs).unwrap_err().to_string().contains("no huge pages of 3MB"));
    }
}
