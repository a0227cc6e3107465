use super::{LONG, Supervised, wait_gone};
use crate::support::children::{is_alive, poll_until, wait_orphan};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, own_engine};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill smaster");
    wait_gone(pid);
    // It was handed over to this process.
    let _ = wait_orphan(pid, Duration::from_secs(10));
}

/// smaster is killed at many instants while the container prints: that runs on, the state says so, and all of it can be
/// deleted.
#[test]
fn a_container_survives_its_smaster() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("i=0; while :; do i=$((i+1)); echo $i; echo $i >/n; sleep 0.02; done");
    bundle.set("/root/readonly", json!(false));
    let count = || read_lossy(&bundle.rootfs().join("n")).trim().parse::<u64>().unwrap_or(0);
    for round in 0..12u64 {
        let container = Container::new(&runtime, &bundle);
        container.supervise(&[]).ok();
        let smaster = container.smaster();
        let until = Instant::now() + Duration::from_micros(round * 3700);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        kill(smaster);
        let (pid, before) = (container.pid(), count());
        let goes_on = || (count() > before + 2 || count() < before).then_some(());
        poll_until(LONG, goes_on).expect("the program runs on, and prints");
        assert!(is_alive(pid));
        let state = container.shown();
        assert_eq!((&state["status"], state.get("supervisor")), (&json!("running"), None), "{state}");
        let since = state["unsupervisedSince"].as_str().expect("since when").to_owned();
        assert_eq!(container.shown()["unsupervisedSince"], since.as_str(), "the first one counts");
        let list: Vec<Value> =
            serde_json::from_str(&runtime.run(&["list", "--format", "json"]).ok().stdout).expect("JSON");
        assert!(list.iter().any(|shown| shown["unsupervisedSince"] == since.as_str()));
        assert_eq!(container.kinds(), ["created", "started", "unsupervised"]);
        runtime.run(&["attach", &container.id]).fails(1, "its smaster was killed");
        if round % 2 == 0 {
            container.delete(&["--force"]).ok();
        } else {
            container.kill("KILL").ok();
            let wait = runtime.run(&["wait", "--timeout", "60", &container.id]);
            wait.fails(1, "nobody saw how");
            container.delete(&[]).ok();
        }
        assert!(!runtime.root().join(&container.id).exists());
    }
}

/// At the end of the container, and in restarts, smaster writes much: what it leaves when it is killed there can be deleted
/// and says nothing that is wrong.
#[test]
fn one_that_is_killed_while_the_container_ends_leaves_what_can_be_deleted() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("read x; exit 7");
    for round in 0..16u64 {
        let container = Container::new(&runtime, &bundle);
        container.supervise(&["--interactive", "--restart", "on-failure:3"]).ok();
        let smaster = container.smaster();
        let ends = runtime.invoke(&["attach", &container.id]).input("\n").start();
        let until = Instant::now() + Duration::from_micros(round * 2900);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let _ = kill_process(Pid::from_raw(smaster).expect("a pid"), Signal::KILL);
        wait_gone(smaster);
        let _ = wait_orphan(smaster, Duration::from_secs(10));
        let _ = ends.wait_within(LONG);
        if let Some(state) = container.state() {
            assert!(state.get("exitCode").is_none_or(|code| *code == 7), "{state}");
            assert!(state.get("signal").is_none(), "{state}");
        }
        container.delete(&["--force"]).ok();
        assert!(!runtime.root().join(&container.id).exists());
    }
}

/// The command is killed while it makes the container: nothing of that is left after the next one of the same id.
#[test]
fn a_command_that_is_killed_takes_its_smaster_along() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "600"] }] }));
    let container = Container::new(&runtime, &bundle);
    let call = container.background("create", &["--supervise"]).start();
    let hangs = || runtime.root().join(&container.id).join("state.json").exists().then_some(());
    poll_until(LONG, hangs).expect("the creation hangs in its hook");
    kill_process(Pid::from_raw(call.pid()).expect("a pid"), Signal::KILL).expect("kill the command");
    assert_eq!(call.wait().code, 137);
    container.delete(&["--force"]).ok();
}
