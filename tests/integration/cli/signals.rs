//! kill, delete, pause and update as their callers use them, and --no-subreaper.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Action, tcflow};
use serde_json::json;

use super::{running, waiting};
use crate::support::children::{is_alive, poll_until, wait_orphan};
use crate::support::runtime::read_lossy;
use crate::support::terminal::Terminal;
use crate::support::{Bundle, Container, Runtime, needs_root, own_engine};

const LONG: Duration = Duration::from_secs(5);

/// A payload that says which signal it got.
fn trapping() -> Bundle {
    Bundle::shell("for s in TERM USR1 HUP WINCH; do trap \"echo $s\" $s; done; echo up; while :; do sleep 0.02; done")
}

#[test]
fn kill_by_every_form_of_a_name() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), trapping());
    let container = running(&runtime, &bundle);
    for (signal, seen) in [("USR1", "USR1"), ("SIGHUP", "HUP"), ("28", "WINCH"), ("15", "TERM")] {
        container.kill(signal).ok();
        container.wait_stdout(&format!("{seen}\n"));
    }
}

#[test]
fn kill_without_a_signal_is_term() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), trapping());
    let container = running(&runtime, &bundle);
    runtime.run(&["kill", &container.id]).ok();
    container.wait_stdout("TERM\n");
}

/// With the host's pid namespace nothing ends the others when init ends: containerd asks for all.
#[test]
fn kill_all_reaches_every_process() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("sleep 600 & echo up; exec sleep 600"));
    bundle.without_namespace("pid");
    let container = running(&runtime, &bundle);
    let cgroup: Vec<i32> = crate::support::leftover::processes(&container.id).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(cgroup.len(), 2);
    runtime.run(&["kill", "--all", &container.id, "9"]).ok();
    container.wait_exit();
    for pid in cgroup {
        wait_orphan(pid, Duration::from_secs(2));
        assert!(poll_until(Duration::from_secs(5), || (!is_alive(pid)).then_some(())).is_some(), "{pid} is alive");
    }
    runtime.run(&["kill", "-a", &container.id, "KILL"]).ok();
}

#[test]
fn delete_force_ends_what_runs() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    container.delete(&["--force"]).ok();
    assert_eq!(container.wait_exit(), Some(137));
    assert_eq!(container.status(), "");
    container.delete(&["-f"]).ok();
}

#[test]
fn delete_force_of_a_created_container() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.delete(&["--force"]).ok();
    assert_eq!(container.wait_exit(), Some(137));
}

#[test]
fn exec_in_a_paused_container_waits_when_asked() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    runtime.run(&["pause", &container.id]).ok();
    assert_eq!(container.status(), "paused");
    let waiting = container.exec_call(&["--ignore-paused"], &["echo", "thawed"]).start();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(waiting.stdout_now(), "");
    runtime.run(&["resume", &container.id]).ok();
    assert_eq!(waiting.wait().ok().stdout, "thawed\n");
}

/// The value of a cgroup v1 file, or of its v2 counterpart, of the container.
fn limit(container: &Container, controller: &str, v1: &str, v2: &str) -> String {
    let table = read_lossy(std::path::Path::new(&format!("/proc/{}/cgroup", container.pid())));
    let path = |name: &str| table.lines().find_map(|l| l.split_once(name)).map(|(_, path)| path.to_owned());
    if let Some(path) = path(&format!(":{controller}:")) {
        return read_lossy(std::path::Path::new(&format!("/sys/fs/cgroup/{controller}{path}/{v1}"))).trim().to_owned();
    }
    let path = path("0::").unwrap_or_default();
    read_lossy(std::path::Path::new(&format!("/sys/fs/cgroup{path}/{v2}"))).trim().to_owned()
}

#[test]
fn update_by_flags_and_by_json() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    runtime.run(&["update", "--memory", "64M", "--pids-limit", "50", &container.id]).ok();
    assert_eq!(limit(&container, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(limit(&container, "pids", "pids.max", "pids.max"), "50");
    let json = r#"{"memory":{"limit":134217728},"pids":{"limit":60}}"#;
    runtime.invoke(&["update", "--resources", "-", &container.id]).input(json).run().ok();
    assert_eq!(limit(&container, "memory", "memory.limit_in_bytes", "memory.max"), "134217728");
    let file = runtime.scratch().join("resources.json");
    std::fs::write(&file, r#"{"cpu":{"quota":30000,"period":60000}}"#).expect("write the resources");
    runtime.run(&["update", &format!("--resources={}", file.display()), &container.id]).ok();
    assert_eq!(limit(&container, "cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("30000"));
    // A command that sets one thing leaves the others.
    assert_eq!(limit(&container, "pids", "pids.max", "pids.max"), "60");
}

/// containerd spells it with one dash.
#[test]
fn no_subreaper_with_one_dash() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exit 4"));
    assert_eq!(Container::new(&runtime, &bundle).run(&["-no-subreaper"]).code, 4);
    assert_eq!(Container::new(&runtime, &bundle).run(&["--no-subreaper"]).code, 4);
}

/// With several containers, each command reaches its own.
#[test]
fn containers_do_not_mix() {
    needs_root!();
    let (runtime, one, two) = (Runtime::under_test(), waiting(), waiting());
    let (first, second) = (running(&runtime, &one), running(&runtime, &two));
    first.kill("KILL").ok();
    assert_eq!(first.wait_exit(), Some(137));
    assert_eq!((first.status(), second.status()), ("stopped".to_owned(), "running".to_owned()));
}

/// As scripts pass what they have none of.
#[test]
fn empty_words_are_none() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), trapping());
    let container = running(&runtime, &bundle);
    let seen = container.exec(&["--user", "", "--cwd", ""], &["/bin/sh", "-c", "id -u; pwd"]).ok().stdout;
    assert_eq!(seen, "0\n/\n");
    container.kill("").ok();
    container.wait_stdout("TERM\n");
}

/// However long somebody is ready to wait.
#[test]
fn no_duration_is_too_long() {
    let runtime = own_engine!();
    needs_root!();
    let bundle = trapping();
    let container = running(&runtime, &bundle);
    let long = "5000000000000000h";
    for words in [
        &["kill", "--timeout", &u64::MAX.to_string(), &container.id, "0"][..],
        &["stop", "--timeout", long, "--signal", "KILL", &container.id],
    ] {
        let output = runtime.run(words);
        assert!(output.code != 134 && !output.stderr.contains("panicked"), "{words:?}: {}", output.stderr);
    }
    for words in [
        &["events", "--interval", long, &container.id][..],
        &["events", "--since", long, &container.id],
        &["logs", "--since", long, &container.id],
    ] {
        let output = runtime.run(words);
        assert!(output.code != 134 && !output.stderr.contains("panicked"), "{words:?}: {}", output.stderr);
    }
}

/// Nobody reads what a program on a terminal prints: signals reach the program all the same, and when it has ended, this command.
#[test]
fn a_terminal_that_is_not_read_holds_no_signal_up() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("trap 'exit 9' TERM; yes & wait");
    bundle.set("/process/terminal", json!(true));
    let terminal = Terminal::open(24, 80);
    // As after ^S.
    tcflow(terminal.slave(), Action::OOff).expect("stop a terminal");
    let (_unread, socket) = UnixStream::pair().expect("make a pair of sockets");
    let (_reader, pipe) = std::io::pipe().expect("make a pipe");
    let outputs: [Stdio; 3] = [terminal.slave().into(), OwnedFd::from(socket).into(), pipe.into()];
    for stdout in outputs {
        let container = Container::new(&runtime, &bundle);
        let call = container.background("run", &[]).through(&["setsid", "--ctty"]);
        let running = call.stdin(terminal.slave()).stdout(stdout).stderr(Stdio::null()).start();
        poll_until(LONG, || (container.status() == "running").then_some(())).expect("it runs");
        std::thread::sleep(Duration::from_millis(300));
        let ask = || kill_process(Pid::from_raw(running.pid()).expect("a process"), Signal::TERM).expect("kill");
        ask();
        poll_until(LONG, || (container.status() != "running").then_some(())).expect("it ends");
        ask();
        running.wait_within(LONG).fails(9, "");
    }
}
