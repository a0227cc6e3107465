//! An ordinary user's containers are supervised as root's are.

use super::{LONG, Supervised, wait_gone};
use crate::rootless::{USER, bundle, range};
use crate::support::children::{poll_until, wait_orphan};
use crate::support::runtime::find_program;
use crate::support::{Bundle, Container, Runtime, own_engine, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, chown};

/// A runtime that the user calls, with a state directory of theirs.
fn users(runtime: Runtime) -> Runtime {
    chown(runtime.scratch(), Some(USER), Some(USER)).expect("chown");
    let id = USER.to_string();
    runtime.wrapped(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
}

fn of_user(script: &str) -> Bundle {
    let mut bundle = bundle(json!([range(0, USER, 1)]), json!([range(0, USER, 1)]));
    bundle.shell_payload(script).set("/root/readonly", json!(false));
    bundle
}

#[test]
fn everything_is_there_for_an_ordinary_user() {
    let runtime = own_engine!();
    if find_program("setpriv").is_none() {
        skip!("needs setpriv");
    }
    let runtime = users(runtime);
    let b = of_user("echo out; echo err >&2; read x; echo got $x; exit 7");
    let container = Container::new(&runtime, &b);
    container.supervise(&["--interactive", "--restart", "on-failure:1"]).ok();
    let smaster = container.smaster();
    let owner = std::fs::metadata(format!("/proc/{smaster}")).expect("look at smaster").uid();
    assert_eq!(owner, USER);
    let follower = runtime.invoke(&["events", "--follow", &container.id]).start();
    container.exec(&[], &["/bin/sh", "-c", "exit 6"]).fails(6, "");
    // It leaves without closing the input, which may be that of the next run by then.
    runtime.invoke(&["attach", "--detach-keys", "ctrl-a", &container.id]).input("a\n\u{1}").run().ok();
    poll_until(LONG, || (container.shown()["restarts"] == 1).then_some(())).expect("it is restarted");
    poll_until(LONG, || (container.status() == "running").then_some(())).expect("it runs again");
    runtime.invoke(&["attach", &container.id]).input("b\n").run().fails(7, "");
    assert_eq!(container.wait(), 7);
    wait_gone(smaster);
    let logs = runtime.run(&["logs", &container.id]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\ngot a\nout\ngot b\n", "err\nerr\n"));
    let state = container.shown();
    assert_eq!((&state["exitCode"], &state["restarts"]), (&json!(7), &json!(1)), "{state}");
    container.delete(&[]).ok();
    let seen = follower.wait_within(LONG).ok().stdout;
    let kinds: Vec<Value> =
        seen.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event")["type"].clone()).collect();
    let wanted = ["created", "started", "exec_started", "exec_exited", "stopped", "restarting", "started", "stopped"];
    assert_eq!(kinds, [&wanted[..], &["deleted"]].concat());
    // What no signal but SIGKILL ends, and a smaster that is killed.
    let b = of_user("trap '' TERM; echo up; while :; do sleep 1; done");
    for killed in [false, true] {
        let container = Container::new(&runtime, &b);
        container.supervise(&["--restart", "always"]).ok();
        let up = || runtime.run(&["logs", &container.id]).stdout.contains("up").then_some(());
        poll_until(LONG, up).expect("the program is up");
        if killed {
            let smaster = container.smaster();
            kill_process(Pid::from_raw(smaster).expect("a pid"), Signal::KILL).expect("kill smaster");
            wait_gone(smaster);
            let _ = wait_orphan(smaster, LONG);
            assert_eq!(container.status(), "running");
            assert!(container.shown()["unsupervisedSince"].is_string());
            container.delete(&["--force"]).ok();
        } else {
            runtime.run(&["stop", "--timeout", "100ms", &container.id]).ok();
            assert_eq!(container.wait(), 137);
            container.delete(&[]).ok();
        }
        assert!(!runtime.root().join(&container.id).exists());
    }
}

#[test]
fn health_is_looked_after_for_an_ordinary_user() {
    let runtime = own_engine!();
    if find_program("setpriv").is_none() {
        skip!("needs setpriv");
    }
    let runtime = users(runtime);
    let mut b = of_user("exec sleep 600");
    let check = r#"{"exec":["/bin/test","-e","/proc/self"],"interval":0.1}"#;
    b.set("/annotations", json!({ "org.rtx.health": check }));
    let container = Container::new(&runtime, &b);
    container.supervise(&[]).ok();
    poll_until(LONG, || (container.shown()["health"] == "healthy").then_some(())).expect("it is healthy");
    container.delete(&["--force"]).ok();
}
