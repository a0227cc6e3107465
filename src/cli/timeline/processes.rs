//! Sorts a recording by process, and leaves out what the container's own program did.

use crate::trace::Recording;
use crate::trace::calls::Call;
use libseccomp::{ScmpArch, ScmpSyscall};
use std::collections::{BTreeMap, BTreeSet};

/// One process, with all times in nanoseconds since the recording began.
pub struct Process {
    pub pid: i32,
    pub name: String,
    pub steps: Vec<Step>,
    pub calls: Vec<NamedCall>,
}

/// A step that rtx marked.
pub struct Step {
    pub name: String,
    pub start: u64,
    pub end: u64,
    /// How many others it lies in.
    pub depth: usize,
}

/// A system call with its name.
pub struct NamedCall {
    pub name: String,
    pub start: u64,
    pub end: u64,
    pub arguments: [u64; 6],
    pub result: Option<i64>,
}

/// The processes in the order in which they appeared; this one is the first.
pub fn of(recording: Recording) -> Vec<Process> {
    let own = std::process::id() as i32;
    let Recording { mut spans, calls, .. } = recording;
    spans.iter_mut().filter(|span| span.pid == 0).for_each(|span| span.pid = own);
    let zero = spans.iter().map(|span| span.start).chain(calls.iter().map(|call| call.start)).min().unwrap_or(0);
    let stage2: BTreeSet<i32> = spans.iter().map(|span| span.pid).filter(|&pid| pid != own).collect();
    let calls = without_payload(calls, own, &stage2);
    let mut order = vec![own];
    for pid in calls.iter().map(|(_, call)| call.pid).chain(stage2.iter().copied()) {
        if !order.contains(&pid) {
            order.push(pid);
        }
    }
    let mut processes: BTreeMap<i32, Process> = order
        .iter()
        .map(|&pid| {
            let name = match pid {
                pid if pid == own => "stage1 and smaster".to_owned(),
                pid if stage2.contains(&pid) => "stage2".to_owned(),
                pid => format!("process {pid}"),
            };
            (pid, Process { pid, name, steps: Vec::new(), calls: Vec::new() })
        })
        .collect();
    for span in spans {
        let Some(process) = processes.get_mut(&span.pid) else { continue };
        let (start, end) = (span.start - zero, span.end - zero);
        let depth = process.steps.iter().filter(|other| other.start <= start && end <= other.end).count();
        process.steps.push(Step { name: span.name, start, end, depth });
    }
    for (name, call) in calls {
        let Some(process) = processes.get_mut(&call.pid) else { continue };
        let Call { start, end, arguments, result, .. } = call;
        process.calls.push(NamedCall { name, start: start - zero, end: end - zero, arguments, result });
    }
    order.iter().filter_map(|pid| processes.remove(pid)).collect()
}

/// stage2 becomes the program by execve(2), having been executed itself by execveat(2).
fn without_payload(calls: Vec<Call>, own: i32, stage2: &BTreeSet<i32>) -> Vec<(String, Call)> {
    let named: Vec<(String, Call)> = calls.into_iter().map(|call| (name(call.number), call)).collect();
    let becomes =
        |(name, call): &&(String, Call)| name == "execve" && call.result == Some(0) && stage2.contains(&call.pid);
    let end = named.iter().find(becomes).map(|(_, call)| call.end);
    let Some(end) = end else { return named };
    let ours: BTreeSet<i32> = named
        .iter()
        .filter(|(name, call)| {
            call.pid == own && matches!(name.as_str(), "clone" | "clone3" | "fork" | "vfork") && call.result > Some(0)
        })
        .filter_map(|(_, call)| call.result.map(|pid| pid as i32))
        .filter(|pid| !stage2.contains(pid))
        .collect();
    let mut early: BTreeSet<i32> =
        named.iter().filter(|(_, call)| call.start < end).map(|(_, call)| call.pid).collect();
    early.retain(|pid| !stage2.contains(pid));
    let keeps =
        |call: &Call| call.start < end || call.pid == own || ours.contains(&call.pid) || early.contains(&call.pid);
    named.into_iter().filter(|(_, call)| keeps(call)).collect()
}

fn name(number: i64) -> String {
    let known = i32::try_from(number).ok().map(ScmpSyscall::from);
    let name = known.and_then(|call| call.get_name_by_arch(ScmpArch::Native).ok());
    name.unwrap_or_else(|| format!("call {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Span;

    fn call(pid: i32, number: i64, start: u64, result: i64) -> Call {
        Call { pid, number, arguments: [0; 6], start, end: start + 1, result: Some(result) }
    }

    #[test]
    fn the_program_of_the_container_is_left_out() {
        let own = std::process::id() as i32;
        let (stage2, hook, child) = (own + 1, own + 2, own + 3);
        let (execve, execveat, vfork, getpid) =
            (number("execve"), number("execveat"), number("vfork"), number("getpid"));
        let span = |pid, name: &str, start, end| Span { pid, name: name.into(), start, end };
        let spans = vec![span(0, "outer", 10, 90), span(0, "inner", 10, 20), span(stage2, "Mount /proc", 25, 30)];
        let calls = vec![
            call(stage2, execveat, 20, 0),
            call(stage2, execve, 40, -2),
            call(stage2, execve, 42, 0),
            call(stage2, getpid, 50, 1),
            call(child, getpid, 55, 2),
            call(own, vfork, 60, hook.into()),
            call(hook, execve, 62, 0),
            call(hook, getpid, 64, 7),
        ];
        let processes = of(Recording { spans, calls, missing: None });
        let seen: Vec<_> = processes.iter().map(|process| (process.pid, process.calls.len())).collect();
        assert_eq!(seen, [(own, 1), (stage2, 3), (hook, 2)]);
        assert_eq!(
            processes[0].steps.iter().map(|step| (step.start, step.depth)).collect::<Vec<_>>(),
            [(0, 0), (0, 1)]
        );
        assert_eq!(processes[1].calls[0].name, "execveat");
    }

    fn number(name: &str) -> i64 {
        i32::from(ScmpSyscall::from_name(name).expect("a system call")).into()
    }
}
