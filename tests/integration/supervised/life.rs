use super::{LONG, Supervised, wait_gone};
use crate::support::children::{poll_until, stat_field};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, edit, leftover, own_engine, skip};
use serde_json::{Value, json};
use std::path::Path;

/// A script of the payload, the code that `wait` returns, and what `state` says of the end.
#[test]
fn how_a_program_ended_is_known() {
    let runtime = own_engine!();
    let cases = [
        ("exit 0", 0, json!({ "exitCode": 0 })),
        ("exit 7", 7, json!({ "exitCode": 7 })),
        ("trap '' TERM; sleep 600 & wait", 137, json!({ "signal": 9 })),
    ];
    for (script, code, end) in cases {
        let bundle = Bundle::shell(script);
        let container = Container::new(&runtime, &bundle);
        container.supervise(&[]).ok();
        let smaster = container.shown()["supervisor"].as_i64();
        if code == 137 {
            container.kill("KILL").ok();
        }
        assert_eq!(container.wait(), code, "{script}");
        let state = container.shown();
        assert_eq!((&state["status"], &state["mode"]), (&json!("stopped"), &json!("supervised")));
        for key in ["exitCode", "signal"] {
            assert_eq!(state.get(key), end.get(key), "{script}: {state}");
        }
        assert_eq!((&state["oomKilled"], &state["restarts"]), (&json!(false), &json!(0)));
        for (before, after) in [("createdAt", "startedAt"), ("startedAt", "finishedAt")] {
            assert!(state[before].as_str() < state[after].as_str(), "{state}");
        }
        assert!(state.get("supervisor").is_none() && state.get("unsupervisedSince").is_none(), "{state}");
        if let Some(pid) = smaster {
            wait_gone(pid as i32);
        }
        assert!(leftover::cgroups(&container.id).is_empty(), "what it held goes with it");
        let list = runtime.run(&["list", "--format", "json"]).ok().stdout;
        let list: Vec<Value> = serde_json::from_str(&list).expect("list prints JSON");
        assert_eq!(list[0]["finishedAt"], state["finishedAt"]);
        container.delete(&[]).ok();
        assert!(!runtime.root().join(&container.id).exists());
    }
}

#[test]
fn create_waits_for_start_and_wait_for_what_it_is_told() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let wait = |condition: &str| runtime.invoke(&["wait", "--condition", condition, "-t", "60", &container.id]);
    container.create_with(&["--supervise"]).ok();
    assert_eq!(container.status(), "created");
    assert!(container.shown().get("startedAt").is_none());
    wait("created").run().ok();
    runtime.run(&["wait", "--condition", "running", "-t", "10ms", &container.id]).fails(124, "timed out");
    let waiting = wait("running").start();
    container.start().ok();
    waiting.wait().ok();
    // The first process of a pid namespace does not heed it.
    runtime.run(&["kill", "--timeout", "100ms", &container.id, "TERM"]).ok();
    assert_eq!(container.wait(), 137);
    wait("running").run().fails(1, "has stopped");
    runtime.run(&["wait", "nosuch"]).fails(1, "container does not exist");
}

#[test]
fn what_is_not_supervised_is_waited_for_without_a_code() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("read x");
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let state = container.shown();
    assert!(state.get("mode").is_none() && state.get("createdAt").is_none(), "nothing is added: {state}");
    container.start().ok();
    container.wait_exit();
    runtime.run(&["wait", &container.id]).fails(1, "only who started it knows how");
    runtime.run(&["logs", &container.id]).fails(1, "rtx keeps that of supervised ones");
    runtime.run(&["events", "--follow", &container.id]).fails(1, "--supervise");
    runtime.run(&["attach", &container.id]).fails(1, "is not supervised");
    assert!(!runtime.root().join(&container.id).join("events.jsonl").exists());
}

/// As where the kernel did not let smaster wait for it: that is no success.
#[test]
fn an_end_that_smaster_could_not_see_is_none() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 7");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    assert_eq!(container.wait(), 7);
    edit(&runtime.root().join(&container.id).join("supervisor.json"), |supervision| {
        supervision["end"].as_object_mut().expect("an end").remove("exitCode");
    });
    runtime.run(&["wait", &container.id]).fails(1, "could not learn how");
    runtime.run(&["wait", "--condition", "created", &container.id]).ok();
}

/// There is nothing that would tell of its end.
#[test]
fn what_has_no_process_is_waited_for() {
    let runtime = own_engine!();
    let mut bundle = Bundle::new();
    bundle.set("/annotations", json!({ "org.rtx.engine": "mock", "org.rtx.mock.duration": "300" }));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    runtime.run(&["wait", "--timeout", "60s", &container.id]).fails(1, "only who started it knows how");
}

#[test]
fn smaster_is_small_and_holds_nothing_of_its_caller() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let call = container.background("run", &["--detach", "--supervise"]);
    call.through_shell("exec 7</etc/passwd 9</dev/zero; exec \"$@\"").run().ok();
    let smaster = container.smaster();
    let process = format!("/proc/{smaster}");
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("{process}/fd")).expect("list descriptors").flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        open.push((entry.file_name().to_string_lossy().into_owned(), target));
    }
    for (number, target) in &open {
        let is_standard = number.len() == 1 && "012".contains(number.as_str());
        assert_eq!(is_standard, target == Path::new("/dev/null"), "{number} is {}", target.display());
        assert!(!target.starts_with("/etc") && !target.starts_with("/dev/zero"), "{open:?}");
    }
    assert_eq!(stat_field(smaster, 6).and_then(|session| session.parse().ok()), Some(smaster), "a session of its own");
    assert_eq!(stat_field(smaster, 20).as_deref(), Some("1"), "one thread");
    assert_eq!(stat_field(container.pid(), 4).and_then(|parent| parent.parse().ok()), Some(smaster));
    // What it maps of the executable is that of all processes of rtx.
    let rollup = read_lossy(Path::new(&format!("{process}/smaps_rollup")));
    let kilobytes =
        rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.split_whitespace().next()?.parse().ok());
    let kilobytes: u32 = kilobytes.expect("smaps_rollup says how much is anonymous");
    assert!(kilobytes <= 400, "{kilobytes} KB");
    // Only SIGKILL ends it.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP, rustix::process::Signal::INT] {
        rustix::process::kill_process(rustix::process::Pid::from_raw(smaster).expect("a pid"), signal).expect("kill");
    }
    container.kill("KILL").ok();
    assert_eq!(container.wait(), 137);
    wait_gone(smaster);
}

#[test]
fn memory_that_ran_out_is_told_of() {
    let runtime = own_engine!();
    let mut bundle = Bundle::new();
    bundle.args(&["/bin/tail", "/dev/zero"]);
    bundle.set("/linux/resources/memory", json!({ "limit": 20_000_000, "swap": 20_000_000 }));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    assert_eq!(container.wait(), 137);
    let state = container.shown();
    assert_eq!((&state["signal"], &state["oomKilled"]), (&json!(9), &json!(true)), "{state}");
    assert_eq!(container.kinds(), ["created", "started", "oom", "stopped"]);
}

#[test]
fn a_program_that_cannot_be_started_leaves_nothing_of_run() {
    let runtime = own_engine!();
    let mut bundle = Bundle::new();
    bundle.args(&["/nosuch"]);
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).fails(1, "no such file or directory");
    assert!(!runtime.root().join(&container.id).exists());
    container.create_with(&["--supervise"]).fails(1, "no such file or directory");
    drop(container);
    bundle.args(&["/bin/true"]).set("/hooks", json!({ "createRuntime": [{ "path": "/bin/false" }] }));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).fails(1, "createRuntime hook #0");
    assert!(!runtime.root().join(&container.id).exists());
}

#[test]
fn stop_ends_it_and_an_unheeding_one_as_well() {
    let runtime = own_engine!();
    for (script, code) in [
        ("trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done", 3),
        ("trap '' TERM; echo up; while :; do sleep 1; done", 137),
    ] {
        let bundle = Bundle::shell(script);
        let container = Container::new(&runtime, &bundle);
        container.supervise(&["--restart", "always"]).ok();
        let up = || runtime.run(&["logs", &container.id]).stdout.contains("up").then_some(());
        poll_until(LONG, up).expect("the program is up");
        let patience = if code == 3 { "60" } else { "100ms" };
        runtime.run(&["stop", "--timeout", patience, &container.id]).ok();
        assert_eq!(container.wait(), code);
        assert_eq!(container.shown()["restarts"], 0);
        runtime.run(&["stop", &container.id]).ok();
    }
}

#[test]
fn a_running_one_is_deleted_by_force_alone() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "always"]).ok();
    let smaster = container.smaster();
    container.delete(&[]).fails(1, "that is not stopped: running");
    container.delete(&["--force"]).ok();
    wait_gone(smaster);
    assert!(!runtime.root().join(&container.id).exists());
}

#[test]
fn one_that_was_never_started_has_no_exit_code() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 0");
    let container = Container::new(&runtime, &bundle);
    container.create_with(&["--supervise", "--restart", "always"]).ok();
    runtime.run(&["stop", &container.id]).ok();
    let state = container.shown();
    assert_eq!((&state["signal"], state.get("exitCode"), state.get("startedAt")), (&json!(15), None, None), "{state}");
    assert_eq!(container.wait(), 143);
    assert_eq!(container.kinds(), ["created", "stopped"]);
}

#[test]
fn a_signal_that_is_none_ends_nobody() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    runtime.run(&["kill", "--timeout", "1ms", &container.id, "0"]).ok();
    assert_eq!((container.status().as_str(), container.kinds().len()), ("running", 2));
}

/// Several at once: each has its line, and the first that failed says what is returned.
#[test]
fn several_are_waited_for() {
    let runtime = own_engine!();
    let bundles = ["exit 0", "exit 3", "exit 4"].map(Bundle::shell);
    let containers: Vec<_> = bundles.iter().map(|bundle| Container::new(&runtime, bundle)).collect();
    containers.iter().for_each(|container| drop(container.supervise(&[]).ok()));
    let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    let output = runtime.run(&[&["wait", "--timeout", "60s"], &ids[..]].concat());
    assert_eq!((output.code, output.stdout.as_str()), (3, "0\n3\n4\n"), "{output:?}");
}

fn cgroups_of(pid: i32) -> Vec<String> {
    read_lossy(Path::new(&format!("/proc/{pid}/cgroup"))).lines().map(str::to_owned).collect()
}

/// It has a cgroup of its own beside the container's, which a restart does not mistake for its caller's.
#[test]
fn smaster_has_a_cgroup_of_its_own() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; read x; exit 1");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--interactive", "--restart", "on-failure:1"]).ok();
    let (smaster, first) = (container.smaster(), cgroups_of(container.pid()));
    let leaf = format!("{}@smaster", container.id);
    let own: Vec<_> = cgroups_of(smaster).into_iter().filter(|line| line.ends_with(&leaf)).collect();
    if own.is_empty() {
        skip!("this host lets nobody make a cgroup beside the container's");
    }
    for line in own {
        let (hierarchy, path) = line.rsplit_once(':').expect("a line of cgroup");
        let beside = format!("{hierarchy}:{}", path.trim_end_matches("@smaster"));
        assert!(first.contains(&beside), "{beside} is not in {first:?}");
    }
    // It leaves without closing the input, which may be that of the next run by then.
    runtime.invoke(&["attach", "--detach-keys", "ctrl-a", &container.id]).input("\n\u{1}").run().ok();
    poll_until(LONG, || (container.shown()["restarts"] == 1).then_some(())).expect("it is restarted");
    poll_until(LONG, || (container.status() == "running").then_some(())).expect("it runs again");
    let pid = container.shown()["pid"].as_i64().expect("a pid") as i32;
    assert_eq!(cgroups_of(pid), first);
    runtime.invoke(&["attach", &container.id]).input("\n").run().fails(1, "");
    wait_gone(smaster);
    assert!(leftover::cgroups(&container.id).is_empty());
    // A path that bears no container's name is shared, and there is no leaf beside it.
    let mut bundle = Bundle::shell("exec sleep 600");
    let shared = format!("/rtxtest-shared-{}", std::process::id());
    bundle.set("/linux/cgroupsPath", json!(shared));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    assert!(!cgroups_of(container.smaster()).iter().any(|line| line.contains("@smaster")));
    container.delete(&["--force"]).ok();
}
