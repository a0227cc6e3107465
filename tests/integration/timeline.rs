//! `--timeline`: where the time of a command went.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::support::children::poll_until;
use crate::support::runtime::engine;
use crate::support::{Bundle, Container, Runtime, skip};

/// Ends the test where another runtime or engine is tested.
macro_rules! runtime {
    () => {{
        let runtime = Runtime::under_test();
        if !runtime.is_rtx() || engine().is_some() {
            skip!("--timeline is rtx's, and its steps are of the engine oci");
        }
        runtime
    }};
}

const LONG: Duration = Duration::from_secs(20);

struct Trace {
    events: Vec<Value>,
    /// Whether the kernel lets system calls be recorded here.
    has_calls: bool,
}

impl Trace {
    fn read(path: &Path) -> Trace {
        let text = fs::read_to_string(path).expect("a trace");
        let trace: Value = serde_json::from_str(&text).expect("a trace in JSON");
        let has_calls = trace["otherData"]["missing"].is_null();
        let Value::Array(events) = &trace["traceEvents"] else { panic!("{trace}") };
        Trace { events: events.clone(), has_calls }
    }

    fn names(&self, category: &str) -> Vec<&str> {
        let of_category = self.events.iter().filter(|event| event["cat"] == category);
        of_category.filter_map(|event| event["name"].as_str()).collect()
    }

    #[track_caller]
    fn has(&self, category: &str, names: &[&str]) {
        let there = self.names(category);
        for name in names {
            assert!(there.contains(name), "no {category} {name} in {there:?}");
        }
    }

    /// Every event lies in the recording and has a process with a name.
    fn is_whole(&self) {
        let named: Vec<_> = self.events.iter().filter(|event| event["ph"] == "M").map(|event| &event["pid"]).collect();
        for event in &self.events {
            assert!(named.contains(&&event["pid"]), "{event}");
            if event["ph"] == "X" {
                assert!(event["ts"].as_f64() >= Some(0.0) && event["dur"].as_f64() >= Some(0.0), "{event}");
            }
        }
    }
}

#[test]
fn of_a_run_as_a_trace_and_as_a_picture() {
    let runtime = runtime!();
    // Neither rtx nor what starts it sleeps.
    let bundle = Bundle::shell("sleep 0.01; cat /proc/self/comm");
    let (trace, picture) = (bundle.host("trace.json"), bundle.host("picture.svg"));
    let container = Container::new(&runtime, &bundle);
    let files = [trace.display().to_string(), picture.display().to_string()];
    let output = container.run(&["--timeline", &files[0], "--timeline", &files[1]]).ok();
    assert_eq!(output.stdout, "cat\n");
    let trace = Trace::read(&trace);
    trace.is_whole();
    trace.has("step", &["stage1: prepare", "smaster: create", "spawn stage2", "Mount proc", "EnterRoot", "clean up"]);
    if trace.has_calls {
        trace.has("syscall", &["clone3", "execveat", "pivot_root", "execve", "unlinkat"]);
        let there = trace.names("syscall");
        let sleeps = ["nanosleep", "clock_nanosleep"];
        assert!(!there.iter().any(|name| sleeps.contains(name)), "the container's program is in it: {there:?}");
        // When the container was created.
        let clocks = there.iter().filter(|name| **name == "clock_gettime").count();
        assert!(clocks <= 1, "the recording's own calls are in it: {clocks} looks at the clock");
    }
    let picture = fs::read_to_string(picture).expect("a picture");
    for part in ["<svg ", "stage1 and smaster", "stage2 (pid ", "Mount proc", "</svg>"] {
        assert!(picture.contains(part), "no {part} in the picture");
    }
}

#[test]
fn of_create_and_exec() {
    let runtime = runtime!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let [created, executed] = ["create.json", "exec.json"].map(|name| bundle.host(name));
    container.create_with(&["--timeline", &created.display().to_string()]).ok();
    let trace = Trace::read(&created);
    trace.is_whole();
    trace.has("step", &["smaster: create", "wait for stage2", "give up privileges"]);
    container.start().ok();
    container.exec(&["--timeline", &executed.display().to_string()], &["true"]).ok();
    let trace = Trace::read(&executed);
    trace.is_whole();
    trace
        .has("step", &["stage1: prepare", "spawn stage2", "smaster: join", "wait for the program", "wait for the end"]);
}

#[test]
fn of_what_fails() {
    let runtime = runtime!();
    let mut bundle = Bundle::new();
    bundle.args(&["/nonexistent"]);
    let trace = bundle.host("trace.json");
    let container = Container::new(&runtime, &bundle);
    let output = container.run(&["--timeline", &trace.display().to_string()]);
    assert_ne!(output.code, 0, "{}", output.stderr);
    let trace = Trace::read(&trace);
    trace.is_whole();
    trace.has("step", &["give up privileges", "undo"]);
}

#[test]
fn a_file_that_cannot_be_written_is_said_first() {
    let runtime = runtime!();
    let bundle = Bundle::new();
    let container = Container::new(&runtime, &bundle);
    let file = bundle.host("nowhere/trace.json");
    container.create_with(&["--timeline", &file.display().to_string()]).fails(1, "--timeline ");
    let pipe = bundle.host("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o600), 0).expect("make a pipe");
    container.create_with(&["--timeline", &pipe.display().to_string()]).fails(1, "nobody reads what is written there");
    runtime.invoke(&["state", &container.id]).run().fails(1, "does not exist");
    // Somebody who does gets it.
    let mut reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().expect("start cat");
    let is_read = || container.create_with(&["--timeline", &pipe.display().to_string()]).code == 0;
    poll_until(LONG, || is_read().then_some(())).expect("the pipe is read");
    let mut text = String::new();
    reader.stdout.take().expect("a pipe").read_to_string(&mut text).expect("read what cat has read");
    reader.wait().expect("cat ends");
    assert!(serde_json::from_str::<Value>(&text).is_ok_and(|trace| trace["traceEvents"].is_array()), "{text}");
}
