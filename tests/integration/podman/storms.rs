//! Larger numbers, which take a minute or more: many containers, commands and signals at the same time, and long outputs. Only
//! `make test-integrations` runs them (RTX_TEST_CALLERS).

use std::collections::BTreeMap;

use super::host::{Host, IMAGE};
use super::{Named, podman};
use crate::support::Output;
use crate::support::leftover::processes;
use crate::support::runtime::Running;
use crate::support::skip;

/// podman, where what takes long is wanted.
macro_rules! patient_podman {
    () => {{
        if std::env::var_os("RTX_TEST_CALLERS").is_none() {
            skip!("it takes long: make test-integrations");
        }
        podman!()
    }};
}

/// The ends of calls that run at the same time.
fn all(calls: Vec<Running>) -> Vec<Output> {
    calls.into_iter().map(Running::wait).collect()
}

/// That many containers, running.
#[track_caller]
fn started(host: &'static Host, count: usize, script: &str) -> Vec<Named> {
    let containers: Vec<Named> = (0..count).map(|_| Named::new(host)).collect();
    let calls = containers.iter().map(|container| container.run_call(&["--detach"], &["sh", "-c", script]).start());
    for output in all(calls.collect()) {
        output.ok();
    }
    containers
}

/// Fifty that end by themselves, each with its own word and code.
#[test]
fn fifty_at_once() {
    let host = patient_podman!();
    let containers: Vec<Named> = (0..50).map(|_| Named::new(host)).collect();
    let calls = containers.iter().enumerate().map(|(number, container)| {
        container.run_call(&["--rm"], &["sh", "-c", &format!("echo {number}; exit {number}")]).start()
    });
    for (number, output) in all(calls.collect()).into_iter().enumerate() {
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (number as i32, &*format!("{number}\n")),
            "{}",
            output.stderr
        );
    }
    for container in &containers {
        assert_eq!(container.podman(&["container", "exists"], &[]).code, 1);
    }
}

/// Twenty that live at the same time: each is stopped by three callers at once, and removed by two.
#[test]
fn stops_and_removals() {
    let host = patient_podman!();
    let containers = started(host, 20, "trap 'exit 7' TERM; echo up; while :; do sleep 0.2; done");
    containers.iter().for_each(|container| container.wait_logs("up"));
    let ids: Vec<String> = containers.iter().map(|container| container.inspect(".Id")).collect();
    let calls = containers.iter().flat_map(|container| {
        (0..3).map(|_| container.call(&["stop", "--time", "100"], &[]).start()).collect::<Vec<_>>()
    });
    for output in all(calls.collect()) {
        output.ok();
    }
    let mut codes = BTreeMap::new();
    for container in &containers {
        *codes.entry(container.podman(&["wait"], &[]).ok().stdout).or_insert(0) += 1;
    }
    assert_eq!(codes, BTreeMap::from([("7\n".to_owned(), 20)]));
    let calls = containers.iter().flat_map(|container| {
        (0..2).map(|_| container.call(&["rm", "--force", "--ignore"], &[]).start()).collect::<Vec<_>>()
    });
    all(calls.collect());
    for (container, id) in containers.iter().zip(&ids) {
        assert_eq!(container.podman(&["container", "exists"], &[]).code, 1);
        assert_eq!(processes(id), []);
        assert!(crate::support::leftover::cgroups(id).is_empty());
    }
}

/// Forty commands at once in one container, beside one that streams all the time.
#[test]
fn many_execs() {
    let host = patient_podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; exec sleep 3600");
    let script = "n=0; until [ -e /tmp/over ]; do n=$((n + 1)); echo $n; sleep 0.05; done; echo over; exit 9";
    let streaming = container.call(&["exec"], &["sh", "-c", script]).start();
    let calls = (0..40).map(|number| {
        let script = format!("head -c 100000 /dev/zero | wc -c; echo {number}; exit {number}");
        container.call(&["exec"], &["sh", "-c", &script]).start()
    });
    for (number, output) in all(calls.collect()).into_iter().enumerate() {
        let expected = (number as i32, format!("100000\n{number}\n"));
        assert_eq!((output.code, output.stdout), expected, "{}", output.stderr);
    }
    container.podman(&["exec"], &["touch", "/tmp/over"]).ok();
    let output = streaming.wait();
    let (counted, last) = output.stdout.rsplit_once("over\n").expect("the last word");
    assert_eq!((output.code, last), (9, ""));
    assert!(counted.lines().enumerate().all(|(index, line)| line == (index + 1).to_string()), "a line is lost");
    let top = container.podman(&["top"], &["args"]).ok().stdout;
    assert_eq!(top.lines().skip(1).map(str::trim_end).collect::<Vec<_>>(), ["sleep 3600"]);
}

/// Megabytes on both streams come whole, to who is attached and by the log.
#[test]
fn long_outputs() {
    let host = patient_podman!();
    let container = Named::new(host);
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let run = container.run(&[], &["sh", "-c", "seq 200000 & seq 200000 >&2; wait"]);
    let logs = container.podman(&["logs"], &[]);
    for (what, output) in [("run", run), ("logs", logs)] {
        assert_eq!(output.code, 0, "{what}");
        assert!(output.stdout == expected && output.stderr == expected, "{what} of {IMAGE} lost something");
    }
}
