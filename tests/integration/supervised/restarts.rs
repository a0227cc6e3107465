use super::{LONG, Supervised};
use crate::support::children::poll_until;
use crate::support::runtime::find_program;
use crate::support::{Bundle, Container, own_engine, skip};
use serde_json::json;

#[test]
fn failures_are_repeated_as_often_as_asked() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("n=$(($(cat /n 2>/dev/null) + 1)); echo $n >/n; echo $n; exit 3");
    bundle.set("/root/readonly", json!(false));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "on-failure:2"]).ok();
    assert_eq!(container.wait(), 3);
    let state = container.shown();
    assert_eq!((&state["restarts"], &state["exitCode"]), (&json!(2), &json!(3)), "{state}");
    assert_eq!(runtime.run(&["logs", &container.id]).ok().stdout, "1\n2\n3\n");
    let once = ["started", "stopped", "restarting"];
    let wanted = [&["created"], &once[..], &once[..], &once[..2]].concat();
    assert_eq!(container.kinds(), wanted);
    let delays: Vec<_> = container.events(&[]).iter().filter_map(|event| event["data"]["delayMs"].as_u64()).collect();
    assert!(delays[0] == 0 && (250..=750).contains(&delays[1]), "{delays:?}");
}

#[test]
fn success_is_not_repeated_and_with_always_it_is_until_it_is_stopped() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("exit 0");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "on-failure"]).ok();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.shown()["restarts"], 0);

    drop(container);
    bundle.shell_payload("sleep 0.05");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "always"]).ok();
    let again = || container.shown()["restarts"].as_u64().filter(|count| *count >= 2);
    poll_until(LONG, again).expect("it is restarted again and again");
    runtime.run(&["stop", &container.id]).ok();
    container.wait();
    assert_eq!(container.status(), "stopped");
    assert!(!container.shown()["restarting"].as_bool().unwrap_or(false));
    container.delete(&[]).ok();
}

/// One that stays up long enough has as many tries as at first, and who follows its output sees that of all of them.
#[test]
fn one_that_stayed_up_begins_anew() {
    let runtime = own_engine!();
    let config = runtime.scratch().join("reset.json");
    let text = r#"{"supervision":{"backoff":{"delay":600000,"maxDelay":600000,"resetAfter":1}}}"#;
    std::fs::write(&config, text).expect("write");
    let quick = runtime.copy().with_flags(&["--config", &config.display().to_string()]);
    let mut bundle = Bundle::shell("n=$(($(cat /n 2>/dev/null) + 1)); echo $n >/n; echo $n; sleep 0.1; test $n = 4");
    bundle.set("/root/readonly", json!(false));
    let container = Container::new(&quick, &bundle);
    container.supervise(&["--restart", "on-failure:1"]).ok();
    let follower = quick.invoke(&["logs", "--follow", &container.id]).start();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.shown()["restarts"], 3);
    let told: Vec<_> = container.events(&[]).into_iter().filter(|event| event["type"] == "restarting").collect();
    assert!(told.iter().all(|event| event["data"] == json!({ "delayMs": 0, "inARow": 1 })), "{told:?}");
    assert_eq!(follower.wait_within(LONG).ok().stdout, "1\n2\n3\n4\n");
}

/// While it waits for its restart it is neither gone nor there.
#[test]
fn one_that_waits_for_its_restart_is_not_just_deleted() {
    let runtime = own_engine!();
    let config = runtime.scratch().join("slow.json");
    std::fs::write(&config, r#"{"supervision":{"backoff":{"delay":600000,"maxDelay":600000}}}"#).expect("write");
    let slow = runtime.copy().with_flags(&["--config", &config.display().to_string()]);
    let bundle = Bundle::shell("exit 1");
    let container = Container::new(&slow, &bundle);
    container.supervise(&["--restart", "always"]).ok();
    let waits = || (container.kinds().iter().filter(|kind| *kind == "restarting").count() == 2).then_some(());
    poll_until(LONG, waits).expect("it waits for its second restart");
    container.delete(&[]).fails(1, "about to be restarted");
    slow.run(&["stop", &container.id]).ok();
    assert_eq!(container.wait(), 1);
    container.delete(&[]).ok();
    // And by force.
    let container = Container::new(&slow, &bundle);
    container.supervise(&["--restart", "always"]).ok();
    let waits = || (container.kinds().iter().filter(|kind| *kind == "restarting").count() == 2).then_some(());
    poll_until(LONG, waits).expect("it waits for its second restart");
    if find_program("strace").is_none() {
        container.delete(&["--force"]).ok();
        skip!("no strace");
    }
    let trace = slow.scratch().join("delete");
    let strace = ["strace", "-f", "-o", &trace.display().to_string(), "-e", "trace=pidfd_send_signal"];
    slow.invoke(&["delete", "--force", &container.id]).through(&strace).run().ok();
    assert!(!slow.root().join(&container.id).exists());
    // It was told, and not killed after a while.
    let calls = std::fs::read_to_string(trace).expect("a trace");
    assert!(!calls.contains("SIGKILL"), "{calls}");
}

/// A restart that cannot be made is told of, and tried again.
#[test]
fn a_restart_that_fails_is_an_event() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("mv /bin/sh /bin/gone; exit 1");
    bundle.set("/root/readonly", json!(false));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "on-failure:1"]).ok();
    container.wait();
    let events = container.events(&[]);
    let failure = events.iter().find(|event| event["type"] == "failed_to_start").expect("it failed to start");
    assert!(failure["data"]["error"].as_str().is_some_and(|text| text.contains("no such file")), "{failure}");
    container.delete(&[]).ok();
}

#[test]
fn health_is_looked_after() {
    let runtime = own_engine!();
    // An orphan that nix could not wait for must not hide the checks that end after it.
    let mut bundle = Bundle::shell("(sh -c 'kill -35 $$' &); exec sleep 600");
    bundle.without_namespace("pid");
    bundle.set("/root/readonly", json!(false));
    let check = r#"{"exec":["/bin/test","!","-e","/ill"],"interval":0.1,"retries":2}"#;
    bundle.set("/annotations", json!({ "org.rtx.health": check }));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let becomes = |status: &str| {
        poll_until(LONG, || (container.shown()["health"] == status).then_some(())).expect(status);
    };
    becomes("healthy");
    bundle.make_file("rootfs/ill", "");
    becomes("unhealthy");
    let told: Vec<_> = container.events(&[]).into_iter().filter(|event| event["type"] == "health").collect();
    assert_eq!((&told[0]["data"]["status"], &told[1]["data"]["status"]), (&json!("healthy"), &json!("unhealthy")));
    assert_eq!((&told[0]["data"]["exitCode"], &told[1]["data"]["exitCode"]), (&json!(0), &json!(1)));
    drop(container);
    let check = r#"{"exec":["/bin/sleep","600"],"interval":0.1,"timeout":0.1,"retries":1}"#;
    bundle.set("/annotations", json!({ "org.rtx.health": check }));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let is_told = || container.events(&[]).into_iter().find(|event| event["type"] == "health");
    let told = poll_until(LONG, is_told).expect("a check that takes too long is told");
    assert_eq!(told["data"], json!({ "status": "unhealthy", "timedOut": true }));
    drop(container);
    bundle.set("/annotations", json!({ "org.rtx.health": "{}" }));
    Container::new(&runtime, &bundle)
        .create_with(&["--supervise"])
        .fails(1, "/annotations/org.rtx.health: not a health");
    let told = runtime.run(&["check", &bundle.path().display().to_string()]).ok().stdout;
    assert!(told.contains("warning: /annotations/org.rtx.health: not a health check"), "{told}");
}
