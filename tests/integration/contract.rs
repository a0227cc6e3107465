//! The contract: what every engine of `rtx engine list` has to do, driven through the real binary. An engine that
//! cannot pass a test answers it with its typed refusal, `engine "NAME" does not support ...`, and with nothing else.

use std::time::Duration;

use rtx::engine::{PROVIDERS, Provider};
use serde_json::{Value, json};

use crate::support::children::poll_until;
use crate::support::{Bundle, Container, Output, Runtime, needs_root};

const LIMIT: Duration = Duration::from_secs(10);

/// What the container's program does.
#[derive(Clone, Copy)]
enum Payload {
    /// Nothing, until it is killed.
    Sleep,
    /// Ends by itself soon, with this code.
    Exit(i32),
}

/// One engine under test, with a bundle that it can run.
struct Subject {
    provider: &'static Provider,
    runtime: Runtime,
    bundle: Bundle,
}

impl Subject {
    fn new(provider: &'static Provider, payload: Payload) -> Subject {
        // Shown when a test fails.
        println!("engine {}", provider.name);
        let script = match payload {
            Payload::Sleep => "exec sleep 600".to_owned(),
            Payload::Exit(code) => format!("exit {code}"),
        };
        let mut bundle = Bundle::shell(&script);
        if !provider.capabilities.isolates {
            for pointer in ["/mounts", "/hostname", "/linux", "/root/readonly"] {
                bundle.remove(pointer);
            }
        }
        // What others take for a note, the mock engine does.
        bundle.spec["annotations"] = match payload {
            Payload::Sleep => json!({ "org.example.note": "asleep" }),
            Payload::Exit(code) => json!({
                "org.example.note": "short",
                "org.rtx.mock.exitCode": code.to_string(),
                "org.rtx.mock.duration": "20",
            }),
        };
        let runtime = Runtime::under_test().with_flags(&["--engine", provider.name]);
        Subject { provider, runtime, bundle }
    }

    fn container(&self) -> Container<'_> {
        Container::new(&self.runtime, &self.bundle)
    }

    /// A container that has been created, and started as well if its program is to run.
    fn created(&self) -> Container<'_> {
        let container = self.container();
        container.create_with(&["--allow-unconfined"]).ok();
        container
    }

    fn running(&self) -> Container<'_> {
        let container = self.created();
        container.start().ok();
        assert_eq!(container.status(), "running");
        container
    }

    /// The output of a command that this engine has done, or None if it has refused it as it should.
    #[track_caller]
    fn done(&self, output: Output) -> Option<Output> {
        let refusal = format!("engine {:?} does not support ", self.provider.name);
        if output.code != 0 && output.stderr.contains("does not support") {
            assert!(output.stderr.contains(&refusal), "not the typed refusal: {}", output.stderr);
            return None;
        }
        Some(output.ok())
    }
}

fn for_each_engine(payload: Payload, test: impl Fn(&Subject)) {
    for provider in PROVIDERS {
        match (provider.unavailable)() {
            None => test(&Subject::new(provider, payload)),
            Some(why) => crate::support::report_skip(provider.name, &why),
        }
    }
}

#[track_caller]
fn becomes(container: &Container<'_>, status: &str) {
    let reached = poll_until(LIMIT, || (container.status() == status).then_some(()));
    assert!(reached.is_some(), "the container is {:?} and not {status}", container.status());
}

#[test]
fn the_list_names_every_engine() {
    let listed = Runtime::under_test().run(&["engine", "list"]).ok().stdout;
    for provider in PROVIDERS {
        assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(provider.name)), "{listed}");
    }
}

#[test]
fn a_life_goes_from_created_to_nothing() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.created();
        assert_eq!(container.status(), "created");
        container.start().ok();
        assert_eq!(container.status(), "running");
        container.start().fails(1, "cannot start an already running container");
        container.delete(&[]).fails(1, "not stopped");
        container.kill("KILL").ok();
        becomes(&container, "stopped");
        container.start().fails(1, "cannot start a container that has stopped");
        container.kill("TERM").fails(1, "container not running");
        container.delete(&[]).ok();
        subject.runtime.run(&["state", &container.id]).fails(1, "container does not exist");
    });
}

#[test]
fn a_created_container_can_be_deleted() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.created();
        container.delete(&[]).ok();
        assert_eq!(container.status(), "");
    });
}

#[test]
fn delete_force_ends_a_running_container() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.running();
        container.delete(&["--force"]).ok();
        assert_eq!(container.status(), "");
        container.delete(&["--force"]).ok();
    });
}

#[test]
fn an_id_is_given_once() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.created();
        container.create_with(&["--allow-unconfined"]).fails(1, "container with given ID already exists");
        assert_eq!(container.status(), "created");
    });
}

#[test]
fn state_says_what_the_specification_asks_for() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.running();
        let state = container.state().expect("a state");
        assert_eq!(state["ociVersion"], rtx::OCI_VERSION);
        assert_eq!(state["id"], container.id.as_str());
        assert_eq!(state["bundle"], subject.bundle.path().display().to_string());
        assert_eq!(state["annotations"]["org.example.note"], "asleep");
        let pid = state["pid"].as_i64().expect("a pid");
        let listed = subject.runtime.run(&["list", "--format", "json"]).ok();
        let listed: Value = serde_json::from_str(&listed.stdout).expect("list prints JSON");
        assert_eq!((&listed[0]["id"], &listed[0]["pid"]), (&json!(container.id), &json!(pid)));
        // Only an engine without processes may say so.
        assert!(pid > 0 || subject.provider.name == "mock", "{state}");
    });
}

#[test]
fn a_run_ends_with_the_exit_code_of_the_program() {
    needs_root!();
    for_each_engine(Payload::Exit(7), |subject| {
        let container = subject.container();
        assert_eq!(container.run(&["--allow-unconfined"]).code, 7);
        assert_eq!(container.status(), "");
    });
}

#[test]
fn a_signal_to_a_run_reaches_the_program() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.container();
        let call = container.background("run", &["--allow-unconfined"]);
        // The program inside is process 1 of its namespace, which a signal without a handler does not end.
        let running = call.through(&["timeout", "--signal=KILL", "20"]).start();
        becomes(&container, "running");
        if subject.provider.name == "libcontainer" {
            // Its start returns a while after the program has begun, and fails if that has ended by then.
            let command = format!("/proc/{}/comm", container.state().expect("a state")["pid"]);
            let has_begun = || (std::fs::read_to_string(&command).ok()?.trim() == "sleep").then_some(());
            poll_until(LIMIT, has_begun).expect("the program to begin");
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        container.kill("KILL").ok();
        let output = running.wait();
        assert_eq!(output.code, 137, "{}: {}", subject.provider.name, output.stderr);
        assert_eq!(container.status(), "");
    });
}

#[test]
fn exec_ends_with_the_exit_code_of_its_program() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let mut bundle = Bundle::shell("exec sleep 600");
        bundle.spec = subject.bundle.spec.clone();
        bundle.spec["annotations"]["org.rtx.mock.exitCode"] = json!("3");
        let container = Container::new(&subject.runtime, &bundle);
        container.create_with(&["--allow-unconfined"]).ok();
        container.start().ok();
        let output = container.exec(&[], &["/bin/sh", "-c", "exit 3"]);
        if output.code != 3 {
            assert!(subject.done(output).is_none(), "exec lost the exit code");
        }
        let running = container.status();
        assert_eq!(running, "running");
    });
}

#[test]
fn a_pause_is_a_state() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.running();
        if subject.done(subject.runtime.run(&["pause", &container.id])).is_none() {
            return;
        }
        assert_eq!(container.status(), "paused");
        subject.runtime.run(&["pause", &container.id]).fails(1, "not running");
        container.exec(&[], &["/bin/true"]).fails(255, "paused");
        subject.runtime.run(&["resume", &container.id]).ok();
        assert_eq!(container.status(), "running");
        subject.runtime.run(&["resume", &container.id]).fails(1, "not paused");
        subject.runtime.run(&["pause", &container.id]).ok();
        container.delete(&["--force"]).ok();
    });
}

#[test]
fn ps_lists_the_processes() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.running();
        let Some(output) = subject.done(subject.runtime.run(&["ps", "--format", "json", &container.id])) else {
            return;
        };
        let pids: Vec<i64> = serde_json::from_str(&output.stdout).expect("ps prints a list of pids");
        let pid = container.state().expect("a state")["pid"].as_i64().expect("a pid");
        let expected = if pid == 0 { Vec::new() } else { vec![pid] };
        assert_eq!(pids, expected);
    });
}

#[test]
fn limits_can_be_changed() {
    needs_root!();
    for_each_engine(Payload::Sleep, |subject| {
        let container = subject.running();
        let Some(_) = subject.done(subject.runtime.run(&["update", "--pids-limit", "77", &container.id])) else {
            return;
        };
        let Some(output) = subject.done(subject.runtime.run(&["events", "--stats", &container.id])) else { return };
        let event: Value = serde_json::from_str(&output.stdout).expect("events prints JSON");
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id)));
        let limit = event["data"]["pids"]["limit"].as_i64().unwrap_or(0);
        assert!(limit == 77 || subject.provider.name == "mock", "{event}");
    });
}

#[test]
fn an_unknown_id_is_said_to_be_unknown() {
    for_each_engine(Payload::Sleep, |subject| {
        for command in ["start", "state", "pause", "resume", "ps", "delete", "kill"] {
            subject.runtime.run(&[command, "nobody"]).fails(1, "container does not exist");
        }
        subject.runtime.run(&["update", "--pids-limit", "5", "nobody"]).fails(1, "container does not exist");
        subject.runtime.run(&["events", "--stats", "nobody"]).fails(1, "container does not exist");
        subject.runtime.run(&["exec", "nobody", "true"]).fails(255, "container does not exist");
        subject.runtime.run(&["delete", "--force", "nobody"]).ok();
    });
}
