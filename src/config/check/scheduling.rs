//! config.md "Linux Process": scheduler, I/O priority, CPU affinity of exec.

use serde_json::Value;

use super::{Report, integer, list, present, text};
use crate::config::number_list;

pub(super) fn check(report: &mut Report, process: &Value, at: &str) {
    if let Some(scheduler) = present(process, "scheduler") {
        check_scheduler(report, scheduler, &format!("{at}/scheduler"));
    }
    if let Some(priority) = present(process, "ioPriority").and_then(|io| integer(io, "priority"))
        && !(0..=7).contains(&priority)
    {
        report.error(
            format!("{at}/ioPriority/priority"),
            format!("invalid ioPriority.Priority: {priority}"),
            "use a number from 0 (highest) to 7",
        );
    }
    let affinity = present(process, "execCPUAffinity").unwrap_or(&Value::Null);
    for name in ["initial", "final"] {
        if let Some(cpus) = text(affinity, name).filter(|cpus| !cpus.is_empty() && number_list::parse(cpus).is_none()) {
            report.error(
                format!("{at}/execCPUAffinity/{name}"),
                format!("{cpus:?} is no list of CPUs"),
                "write numbers and ranges with commas between them, as in \"0-3,7\"",
            );
        }
    }
}

/// sched_setattr(2), EPERM: a thread with a deadline may run on every processor.
pub(super) fn check_deadline_and_cpus(report: &mut Report, spec: &Value) {
    let at = |path: &[&str]| path.iter().try_fold(spec, |value, name| value.get(name)).and_then(Value::as_str);
    let deadline = at(&["process", "scheduler", "policy"]) == Some("SCHED_DEADLINE");
    let cpus = at(&["linux", "resources", "cpu", "cpus"]).is_some_and(|cpus| !cpus.is_empty());
    if deadline && cpus {
        report.error(
            "/process/scheduler/policy",
            "process scheduler can't be used together with AllowedCPUs (/linux/resources/cpu/cpus)",
            "remove one of both: SCHED_DEADLINE needs all processors",
        );
    }
}

/// The rules of sched_setattr(2).
fn check_scheduler(report: &mut Report, scheduler: &Value, at: &str) {
    let Some(policy) = text(scheduler, "policy") else { return };
    if let Some(nice) = integer(scheduler, "nice").filter(|nice| !(-20..=19).contains(nice)) {
        report.error(format!("{at}/nice"), format!("invalid scheduler.nice: {nice}"), "use a number from -20 to 19");
    }
    if policy == "SCHED_ISO" {
        report.error(
            format!("{at}/policy"),
            "SCHED_ISO is in no Linux kernel: invalid argument",
            "use another policy: SCHED_FIFO or SCHED_RR for realtime, SCHED_OTHER with a low \"nice\" otherwise",
        );
    }
    let realtime = matches!(policy, "SCHED_FIFO" | "SCHED_RR");
    if realtime && present(scheduler, "priority").is_none() {
        report.error(
            format!("{at}/priority"),
            format!("{policy} needs a priority: invalid argument"),
            "add a number from 1 (lowest) to 99",
        );
    }
    if let Some(priority) = integer(scheduler, "priority") {
        if priority != 0 && !realtime {
            report.error(
                format!("{at}/priority"),
                "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy",
                "remove it, or use \"nice\"",
            );
        } else if realtime && !(1..=99).contains(&priority) {
            report.error(
                format!("{at}/priority"),
                format!("{priority} is no priority for {policy}"),
                "use a number from 1 to 99",
            );
        }
    }
    for name in ["runtime", "deadline", "period"] {
        if policy != "SCHED_DEADLINE" && integer(scheduler, name).is_some_and(|value| value != 0) {
            report.error(
                format!("{at}/{name}"),
                "scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy",
                "remove it",
            );
        }
    }
    if policy == "SCHED_DEADLINE" {
        check_deadline(report, scheduler, at);
    }
}

/// sched(7): runtime <= deadline <= period, each at least a microsecond; a period of 0 is the deadline.
fn check_deadline(report: &mut Report, scheduler: &Value, at: &str) {
    const SHORTEST: i128 = 1024;
    let of = |name| integer(scheduler, name).unwrap_or(0);
    let (runtime, deadline, period) = (of("runtime"), of("deadline"), of("period"));
    if runtime < SHORTEST {
        report.error(
            format!("{at}/runtime"),
            format!("SCHED_DEADLINE with a runtime of {runtime} ns: invalid argument"),
            format!("use at least {SHORTEST} ns"),
        );
    }
    if deadline < runtime {
        report.error(
            format!("{at}/deadline"),
            format!("the deadline of {deadline} ns is before the runtime of {runtime} ns is over: invalid argument"),
            "use runtime <= deadline <= period",
        );
    }
    if period != 0 && period < deadline {
        report.error(
            format!("{at}/period"),
            format!("the period of {period} ns ends before the deadline of {deadline} ns: invalid argument"),
            "use runtime <= deadline <= period",
        );
    }
    for (name, value) in [("deadline", deadline), ("period", period)] {
        if value > i128::from(i64::MAX) {
            report.error(format!("{at}/{name}"), format!("{value} ns is too long: invalid argument"), "use less");
        }
    }
}

/// config-linux.md "Memory policy", by the rules of set_mempolicy(2).
pub(super) fn check_memory_policy(report: &mut Report, policy: &Value) {
    let nodes = text(policy, "nodes").unwrap_or("");
    let at = |name: &str| format!("/linux/memoryPolicy/{name}");
    if !nodes.is_empty() && number_list::parse(nodes).is_none() {
        report.error(
            at("nodes"),
            format!("{nodes:?} is no list of memory nodes"),
            "write numbers and ranges with commas between them, as in \"0-1\"",
        );
    }
    let Some(mode) = text(policy, "mode") else { return };
    match (mode, nodes.is_empty()) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", false) => {
            report.error(at("nodes"), format!("memory policy {mode} has no nodes"), "remove them");
        }
        ("MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_WEIGHTED_INTERLEAVE" | "MPOL_PREFERRED_MANY", true) => {
            report.error(
                at("nodes"),
                format!("memory policy {mode} requires at least one node"),
                "name them, as in \"0-1\"",
            );
        }
        _ => {}
    }
    let has = |flag: &str| list(policy, "flags").iter().any(|given| given.as_str() == Some(flag));
    if has("MPOL_F_STATIC_NODES") && has("MPOL_F_RELATIVE_NODES") {
        report.error(
            at("flags"),
            "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other: invalid argument",
            "keep one of the two",
        );
    }
    if has("MPOL_F_NUMA_BALANCING") && !matches!(mode, "MPOL_BIND" | "MPOL_PREFERRED_MANY") {
        report.error(
            at("flags"),
            format!("MPOL_F_NUMA_BALANCING does not go with {mode}: invalid argument"),
            "use MPOL_BIND or MPOL_PREFERRED_MANY, or remove the flag",
        );
    }
    let only_flags = mode == "MPOL_LOCAL" || mode == "MPOL_PREFERRED" && nodes.is_empty();
    if only_flags && (has("MPOL_F_STATIC_NODES") || has("MPOL_F_RELATIVE_NODES")) {
        report.error(
            at("flags"),
            format!("{mode} without nodes takes no flags about nodes: invalid argument"),
            "remove the flag",
        );
    }
}
