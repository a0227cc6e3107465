//! The Trace Event Format of Chrome, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

use super::Timeline;
use serde_json::{Value, json};

/// The whole file.
pub fn trace(timeline: &Timeline) -> String {
    let mut events = Vec::new();
    for process in &timeline.processes {
        let pid = process.pid;
        let name = format!("{}: {} ({pid})", timeline.command, process.name);
        events.push(json!({ "ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": { "name": name } }));
        events.extend(
            process.steps.iter().map(|step| complete(pid, "step", &step.name, (step.start, step.end), json!({}))),
        );
        events.extend(process.calls.iter().map(|call| {
            let arguments: Vec<String> = call.arguments.iter().map(|argument| format!("{argument:#x}")).collect();
            let details = json!({ "arguments": arguments.join(" "), "result": call.result });
            complete(pid, "syscall", &call.name, (call.start, call.end), details)
        }));
    }
    let other = json!({
        "version": crate::cli::version::text(),
        "before the recording, CPU ms": timeline.before as f64 / 1e6,
        "missing": timeline.missing,
    });
    json!({ "traceEvents": events, "displayTimeUnit": "ns", "otherData": other }).to_string() + "\n"
}

/// An event with a duration. The format's unit is the microsecond.
fn complete(pid: i32, category: &str, name: &str, (start, end): (u64, u64), details: Value) -> Value {
    json!({
        "ph": "X", "cat": category, "name": name, "pid": pid, "tid": pid, "args": details,
        "ts": start as f64 / 1e3, "dur": (end - start) as f64 / 1e3,
    })
}
