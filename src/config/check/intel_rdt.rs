//! config-linux.md "IntelRdt". The host is looked at only if there is such a section.

use super::{Report, list, present, text};
use crate::config::resctrl;
use serde_json::Value;
use std::path::Path;

const AT: &str = "/linux/intelRdt";

pub(super) fn check(report: &mut Report, linux: &Value) {
    let Some(rdt) = present(linux, "intelRdt") else { return };
    check_class(report, rdt);
    check_schemata(report, rdt);
    match resctrl::mount_point() {
        Some(mount_point) => check_host(report, rdt, &mount_point),
        None => report.error(
            AT,
            "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl file system is mounted",
            "remove it, or mount resctrl on a host that has it: mount -t resctrl resctrl /sys/fs/resctrl",
        ),
    }
}

/// "/" is the class that all have that are in no other. Else the name of one directory, and none of those that resctrl
/// itself has in each.
fn check_class(report: &mut Report, rdt: &Value) {
    let Some(class) = text(rdt, "closID").filter(|class| !matches!(*class, "" | "/")) else { return };
    if matches!(class, "." | ".." | "info" | "mon_groups" | "mon_data") || class.contains(['/', '\n', '\0']) {
        report.error(
            format!("{AT}/closID"),
            format!("invalid intelRdt.ClosID {class:?}"),
            "use \"/\" or the name of one directory of resctrl",
        );
    }
}

/// Each line is `RESOURCE:ID=VALUE;ID=VALUE`, as the kernel's file has it.
fn check_schemata(report: &mut Report, rdt: &Value) {
    let mut check = |at: String, line: &str| {
        let is_good = line.split_once(':').is_some_and(|(resource, values)| {
            let mut values = values.split(';').filter(|value| !value.trim().is_empty());
            !resource.trim().is_empty() && values.all(|value| value.split_once('=').is_some())
        });
        if !is_good || line.contains('\n') {
            report.error(at, format!("{line:?} is no line of a schemata file"), "write it as in \"L3:0=ff;1=c0\"");
        }
    };
    for (index, line) in list(rdt, "schemata").iter().enumerate() {
        if let Some(line) = line.as_str() {
            check(format!("{AT}/schemata/{index}"), line);
        }
    }
    for name in ["l3CacheSchema", "memBwSchema"] {
        if let Some(line) = text(rdt, name).filter(|line| !line.is_empty()) {
            check(format!("{AT}/{name}"), line);
        }
    }
    if text(rdt, "memBwSchema").is_some_and(|schema| !schema.is_empty() && !schema.starts_with("MB:")) {
        report.error(
            format!("{AT}/memBwSchema"),
            "the schema of memory bandwidth must start with \"MB:\"",
            "write it as in \"MB:0=20;1=70\"",
        );
    }
}

fn check_host(report: &mut Report, rdt: &Value, mount_point: &Path) {
    let is_given = |name: &str| text(rdt, name).is_some_and(|value| !value.is_empty());
    let has = |resources: &[&str]| resources.iter().any(|resource| resctrl::has(mount_point, resource));
    if is_given("l3CacheSchema") && !has(&["L3", "L3CODE", "L3DATA"]) {
        report.error(
            format!("{AT}/l3CacheSchema"),
            "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled",
            "remove it: these processors cannot divide their cache, or the kernel was told not to (rdt=)",
        );
    }
    if is_given("memBwSchema") && !has(&["MB"]) {
        report.error(
            format!("{AT}/memBwSchema"),
            "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled",
            "remove it: these processors cannot divide their memory bandwidth, or the kernel was told not to (rdt=)",
        );
    }
    for name in ["enableMonitoring", "enableCMT", "enableMBM"] {
        if rdt.get(name).and_then(Value::as_bool) == Some(true) && !has(&["L3_MON"]) {
            report.error(
                format!("{AT}/{name}"),
                format!("intelRdt.{name} is specified in config, but Intel RDT monitoring is not enabled"),
                "remove it: these processors do not count, or the kernel was told not to (rdt=)",
            );
        }
    }
}
