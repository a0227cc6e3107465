//! Exit codes and signals: how a payload ends, and what each command says about it.

use serde_json::{Value, json};

use super::{Report, cases};
use crate::support::{Bundle, Container, Runtime};

/// The exit code of a foreground `run` of a script.
fn run(runtime: &Runtime, script: &str) -> Value {
    let bundle = Bundle::shell(script);
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    let output = container.run(&[]);
    report.step("run", &output);
    report.add("seen", json!(output.stdout));
    report.add("known_afterwards", json!(container.state().is_some()));
    report.finish(&container)
}

/// A payload that waits, with every step of its life and each state between.
fn life(runtime: &Runtime, script: &str, act: impl Fn(&Container, &mut Report)) -> Value {
    let bundle = Bundle::shell(script);
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("create", &container.create());
    report.add("status_created", json!(container.status()));
    report.step("start", &container.start());
    container.wait_stdout("up");
    report.add("status_running", json!(container.status()));
    act(&container, &mut report);
    report.finish(&container)
}

/// `kill` with a signal and how the payload ends.
fn kill(runtime: &Runtime, script: &str, signal: &str) -> Value {
    life(runtime, script, |container, report| {
        if report.step("kill", &container.kill(signal)) {
            report.add("exit", json!(container.wait_exit()));
            report.add("status_stopped", json!(container.status()));
            report.add("seen", json!(container.stdout()));
            report.step("kill_again", &container.kill(signal));
            report.step("kill_all", &container.runtime.run(&["kill", "--all", &container.id, "KILL"]));
            report.step("exec_stopped", &container.exec(&[], &["true"]));
        }
        report.step("delete", &container.delete(&[]));
        report.add("status_deleted", json!(container.status()));
        report.step("delete_again", &container.delete(&[]));
        report.step("delete_forced_again", &container.delete(&["--force"]));
    })
}

/// Sends a signal to a foreground `run`.
fn forwarded(runtime: &Runtime, script: &str, signal: i32) -> Value {
    let bundle = Bundle::shell(script);
    let container = Container::new(runtime, &bundle);
    let running = container.background("run", &[]).start();
    container.wait_stdout("up");
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
    let pid = rustix::process::Pid::from_raw(running.pid()).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("signal the runtime");
    let mut report = Report::default();
    report.step("run", &running.wait());
    report.add("seen", json!(container.stdout()));
    report.finish(&container)
}

const WAIT: &str = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; trap 'echo hup; exit 4' HUP; echo up; while :; do sleep 0.05; done";

cases! {
    "exits";
    flow zero => |r| run(r, "true");
    flow one => |r| run(r, "exit 1");
    flow code_42 => |r| run(r, "echo out; echo err >&2; exit 42");
    flow code_255 => |r| run(r, "exit 255");
    flow code_127 => |r| run(r, "/nope 2>/dev/null");
    flow init_ignores_default_signals => |r| run(r, "kill -15 $$; kill -9 $$; echo alive; exit 6");
    flow with_host_pids_killed_by_term => |r| {
        let mut bundle = Bundle::shell("kill -15 $$");
        bundle.without_namespace("pid");
        super::foreground(r, &bundle, &[])
    };
    flow with_host_pids_killed_by_a_real_time_signal => |r| {
        let mut bundle = Bundle::shell("kill -35 $$");
        bundle.without_namespace("pid");
        super::foreground(r, &bundle, &[])
    };
    flow with_host_pids_an_orphan_killed_by_a_real_time_signal => |r| {
        let mut bundle = Bundle::shell("(sh -c 'kill -35 $$' &); (sh -c 'exit 4' &); sleep 0.3; exit 3");
        bundle.without_namespace("pid");
        super::foreground(r, &bundle, &[])
    };
    flow with_host_pids_killed_by_kill => |r| {
        let mut bundle = Bundle::shell("kill -9 $$");
        bundle.without_namespace("pid");
        super::foreground(r, &bundle, &[])
    };
    flow children_are_killed_with_init => |r| run(r, "sleep 600 & echo started");
    flow kept => |r| {
        let bundle = Bundle::shell("exit 5");
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("run", &container.run(&["--keep"]));
        report.add("status", json!(container.status()));
        report.step("delete", &container.delete(&[]));
        report.finish(&container)
    };
    flow kill_by_name => |r| kill(r, WAIT, "TERM");
    flow kill_by_long_name => |r| kill(r, WAIT, "SIGTERM");
    flow kill_by_lower_case_name => |r| kill(r, WAIT, "sigterm");
    flow kill_by_number => |r| kill(r, WAIT, "15");
    flow kill_with_kill => |r| kill(r, WAIT, "KILL");
    flow kill_with_hup => |r| kill(r, WAIT, "HUP");
    flow kill_unknown_signal => |r| kill(r, WAIT, "NOSUCH");
    flow kill_number_too_high => |r| kill(r, WAIT, "99");
    flow kill_without_signal => |r| life(r, WAIT, |container, report| {
        report.step("kill", &container.runtime.run(&["kill", &container.id]));
        report.add("exit", json!(container.wait_exit()));
    });
    flow kill_created => |r| {
        let bundle = Bundle::shell("true");
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("create", &container.create());
        report.step("exec", &container.exec(&[], &["echo", "in created"]));
        report.step("delete", &container.delete(&[]));
        report.finish(&container)
    };
    flow delete_created_after_kill => |r| {
        let bundle = Bundle::shell("true");
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("create", &container.create());
        report.step("kill", &container.kill("KILL"));
        report.add("exit", json!(container.wait_exit()));
        report.add("status", json!(container.status()));
        report.step("start", &container.start());
        report.step("delete", &container.delete(&[]));
        report.finish(&container)
    };
    flow delete_running => |r| life(r, WAIT, |container, report| {
        report.step("delete", &container.delete(&[]));
        report.add("status", json!(container.status()));
        report.step("delete_forced", &container.delete(&["--force"]));
        report.add("exit", json!(container.wait_exit()));
    });
    flow start_twice => |r| life(r, WAIT, |container, report| { report.step("start_again", &container.start()); });
    flow pause_and_resume => |r| life(r, WAIT, |container, report| {
        let verb = |name: &str| container.runtime.run(&[name, &container.id]);
        report.step("resume_running", &verb("resume"));
        report.step("pause", &verb("pause"));
        report.add("status", json!(container.status()));
        report.step("pause_again", &verb("pause"));
        report.step("exec", &container.exec(&[], &["true"]));
        report.step("resume", &verb("resume"));
        report.add("status_again", json!(container.status()));
        report.step("exec_again", &container.exec(&[], &["true"]));
    });
    flow delete_forced_while_paused => |r| life(r, WAIT, |container, report| {
        report.step("pause", &container.runtime.run(&["pause", &container.id]));
        report.step("delete", &container.delete(&["--force"]));
    });
    flow run_forwards_term => |r| forwarded(r, WAIT, 15);
    flow run_forwards_hup => |r| forwarded(r, WAIT, 1);
}
