//! config.md "Linux Process": scheduler, I/O priority, CPU affinity of exec.

use serde_json::Value;

use super::{Report, integer, present, text};

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
        if let Some(cpus) = text(affinity, name).filter(|cpus| !cpus.is_empty() && !is_cpu_list(cpus)) {
            report.error(
                format!("{at}/execCPUAffinity/{name}"),
                format!("{cpus:?} is no list of CPUs"),
                "write numbers and ranges with commas between them, as in \"0-3,7\"",
            );
        }
    }
}

/// The rules of sched_setattr(2).
fn check_scheduler(report: &mut Report, scheduler: &Value, at: &str) {
    let Some(policy) = text(scheduler, "policy") else { return };
    if let Some(nice) = integer(scheduler, "nice").filter(|nice| !(-20..=19).contains(nice)) {
        report.error(format!("{at}/nice"), format!("invalid scheduler.nice: {nice}"), "use a number from -20 to 19");
    }
    if let Some(priority) = integer(scheduler, "priority") {
        let realtime = matches!(policy, "SCHED_FIFO" | "SCHED_RR");
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
}

/// Numbers and ranges with commas between them: the form of `execCPUAffinity` and `memoryPolicy.nodes`.
pub(super) fn is_cpu_list(list: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    list.split(',').all(|range| range.split_once('-').map_or(number(range), |(from, to)| number(from) && number(to)))
}
