//! systemd on the host of the tests, and what it knows of a unit.

use std::path::Path;
use std::process::Command;

/// Whether it is this host's init.
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether this host has cgroup v2 alone.
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Properties of a unit as `systemctl show` has them, those with many values a line each.
pub fn properties(unit: &str, names: &[&str]) -> Vec<(String, String)> {
    let names = format!("--property={}", names.join(","));
    let output = Command::new("systemctl").args(["show", &names, unit]).output().expect("run systemctl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// A property with one value; empty where the unit has none.
pub fn property(unit: &str, name: &str) -> String {
    properties(unit, &[name]).pop().map(|(_, value)| value).unwrap_or_default()
}
