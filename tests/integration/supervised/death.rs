use super::{LONG, Supervised, wait_gone};
use crate::support::children::{is_alive, poll_until, wait_orphan};
use crate::support::runtime::{find_program, read_lossy};
use crate::support::{Bundle, Container, leftover, own_engine, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill smaster");
    wait_gone(pid);
    // It was handed over to this process.
    let _ = wait_orphan(pid, Duration::from_secs(10));
}

/// Instants within a time, as many as are wanted of a test: a sample, or with RTX_TEST_SWEEP=all a hundred.
fn instants(sample: u32, within: Duration) -> impl Iterator<Item = (u32, Duration)> {
    let all = std::env::var("RTX_TEST_SWEEP").is_ok_and(|value| value == "all");
    let count = if all { 100 } else { sample };
    (0..count).map(move |round| (round, within * round / count))
}

/// Shorter than a sleep can be told to take.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn tell(what: &str, count: u32, survived: u32) {
    let _ = writeln!(std::io::stderr(), "SWEEP smaster killed {what}: {count} instants, {survived} containers ran on");
}

/// smaster is killed at many instants while the container prints: that runs on, the state says so, and all of it can be
/// deleted.
#[test]
fn a_container_survives_its_smaster() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("i=0; while :; do i=$((i+1)); echo $i; echo $i >/n; sleep 0.02; done");
    bundle.set("/root/readonly", json!(false));
    let count = || read_lossy(&bundle.rootfs().join("n")).trim().parse::<u64>().unwrap_or(0);
    let mut count_of = 0;
    for (round, instant) in instants(12, Duration::from_millis(44)) {
        let container = Container::new(&runtime, &bundle);
        container.supervise(&[]).ok();
        let smaster = container.smaster();
        pass(instant);
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
        assert!(leftover::cgroups(&container.id).is_empty());
        count_of += 1;
    }
    tell("while the program runs", count_of, count_of);
}

/// At the end of the container, and in restarts, smaster writes much: what it leaves when it is killed there can be deleted
/// and says nothing that is wrong.
#[test]
fn one_that_is_killed_while_the_container_ends_leaves_what_can_be_deleted() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("read x; exit 7");
    let mut tried = 0;
    for (_, instant) in instants(16, Duration::from_millis(46)) {
        let container = Container::new(&runtime, &bundle);
        container.supervise(&["--interactive", "--restart", "on-failure:3"]).ok();
        let smaster = container.smaster();
        let ends = runtime.invoke(&["attach", &container.id]).input("\n").start();
        pass(instant);
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
        assert!(leftover::cgroups(&container.id).is_empty());
        tried += 1;
    }
    tell("while the program ends and is restarted", tried, 0);
}

/// Before the command has returned it says so, or the container is there; whatever there is, is deleted.
#[test]
fn one_that_is_killed_while_it_is_born_leaves_what_can_be_deleted() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let (mut tried, mut survived) = (0, 0);
    for (_, instant) in instants(12, Duration::from_millis(60)) {
        let container = Container::new(&runtime, &bundle);
        let call = container.background("run", &["--detach", "--supervise"]).start();
        let children = format!("/proc/{0}/task/{0}/children", call.pid());
        let child = || read_lossy(Path::new(&children)).split_whitespace().next()?.parse().ok();
        let seen: Option<Option<i32>> =
            poll_until(LONG, || child().map(Some).or((!is_alive(call.pid())).then_some(None)));
        pass(instant);
        let smaster = seen.flatten().unwrap_or_else(|| container.smaster());
        let _ = kill_process(Pid::from_raw(smaster).expect("a pid"), Signal::KILL);
        let output = call.wait_within(LONG);
        let _ = wait_orphan(smaster, Duration::from_secs(10));
        if output.code == 0 {
            assert!(is_alive(container.pid()));
            assert_eq!(container.status(), "running");
            survived += 1;
        }
        container.delete(&["--force"]).ok();
        assert!(!runtime.root().join(&container.id).exists());
        assert!(leftover::cgroups(&container.id).is_empty());
        tried += 1;
    }
    tell("while it is born", tried, survived);
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

/// A command that cannot hear its smaster leaves nothing of the container, however far that has come.
#[test]
fn a_smaster_that_is_not_heard_leaves_nothing() {
    let runtime = own_engine!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let mut bundle = Bundle::shell("exec sleep 600");
    for hook in ["0", "0.3"] {
        bundle.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", hook] }] }));
        for word in ["1", "2"] {
            let container = Container::new(&runtime, &bundle);
            let failing = format!("inject=recvmsg:error=ENOMEM:when={word}");
            let create = container.background("create", &["--supervise"]);
            create.through(&["strace", "-o", "/dev/null", "-e", &failing]).run().fails(1, "out of memory");
            let nothing = || leftover::of(&container.id, bundle.path(), &runtime.root()).is_empty().then_some(());
            let left = || leftover::of(&container.id, bundle.path(), &runtime.root());
            assert!(poll_until(LONG, nothing).is_some(), "word {word}, hook of {hook} s: {:?}", left());
        }
    }
}

/// Where the kernel has no memory for a while to tell it what there is to do, smaster asks again.
#[test]
fn a_smaster_outlives_a_want_of_memory() {
    let runtime = own_engine!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let bundle = Bundle::shell("echo printed; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.create_with(&["--supervise"]).ok();
    let smaster = container.smaster();
    let mut tracer = Command::new("timeout")
        .args(["-s", "KILL", "120", "strace", "-o", "/dev/null", "-e", "inject=poll:error=ENOMEM:when=1..3", "-p"])
        .arg(smaster.to_string())
        .stderr(Stdio::null())
        .spawn()
        .expect("start strace");
    let status = || read_lossy(Path::new(&format!("/proc/{smaster}/status")));
    let is_traced = || {
        let status = status();
        (status.contains("TracerPid:\t") && !status.contains("TracerPid:\t0\n")).then_some(())
    };
    poll_until(LONG, is_traced).expect("smaster is traced");
    container.start().ok();
    let is_there = || runtime.run(&["logs", &container.id]).stdout.contains("printed").then_some(());
    poll_until(LONG, is_there).expect("the output is written down");
    assert_eq!(container.smaster(), smaster);
    container.kill("KILL").ok();
    assert_eq!(Supervised::wait(&container), 137);
    container.delete(&[]).ok();
    tracer.wait().expect("strace ends with smaster");
}
