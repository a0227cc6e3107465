use super::{LONG, Supervised};
use crate::support::children::poll_until;
use crate::support::{Bundle, Container, own_engine};
use serde_json::{Value, json};
use std::io::Write as _;

fn seqs(text: &str) -> Vec<u64> {
    let seq = |line: &str| serde_json::from_str::<Value>(line).expect("an event")["seq"].as_u64().expect("seq");
    text.lines().map(seq).collect()
}

#[test]
fn what_is_done_to_a_container_is_recorded() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let follower = runtime.invoke(&["events", "--follow", &container.id]).start();
    container.exec(&[], &["/bin/sh", "-c", "exit 6"]).fails(6, "");
    runtime.run(&["pause", &container.id]).ok();
    runtime.run(&["resume", &container.id]).ok();
    runtime.run(&["update", "--pids-limit", "77", &container.id]).ok();
    container.kill("KILL").ok();
    container.wait();
    let events = container.events(&[]);
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap_or_default()).collect();
    let wanted = ["created", "started", "exec_started", "exec_exited", "paused", "resumed", "updated", "stopped"];
    assert_eq!(kinds, wanted);
    assert_eq!(events[3]["data"]["exitCode"], 6);
    assert_eq!(events[6]["data"]["pids"]["limit"], 77);
    assert_eq!(events[7]["data"]["signal"], 9);
    for (number, event) in events.iter().enumerate() {
        assert_eq!((&event["seq"], &event["id"]), (&json!(number + 1), &json!(container.id)));
        assert!(event["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
    assert_eq!(container.events(&["--since", "6"]).len(), 2);
    assert_eq!(container.events(&["--since", "2000-01-01T00:00:00Z"]).len(), 8);
    runtime.run(&["events", "--since", "yesterday", &container.id]).fails(1, "neither a time");
    container.delete(&[]).ok();
    // The follower has seen all of it, and its end.
    let seen = follower.wait_within(LONG).ok().stdout;
    assert_eq!(seqs(&seen), (1..=9).collect::<Vec<_>>());
    assert!(seen.lines().last().is_some_and(|line| line.contains("\"deleted\"")), "{seen}");
}

/// The events that callers of runc know are there for the asking.
#[test]
fn statistics_are_as_they_were() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let stats: Value = serde_json::from_str(&runtime.run(&["events", "--stats", &container.id]).ok().stdout).unwrap();
    assert_eq!(stats["type"], "stats");
    assert!(stats.get("seq").is_none() && stats["data"]["pids"]["current"] == 1, "{stats}");
}

/// A hundred subscribers at once and others that come and go, while much happens; one of them does not read.
#[test]
fn no_event_is_missed_or_seen_twice() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let follow = || runtime.invoke(&["events", "--follow", &container.id]);
    let followers: Vec<_> = (0..100).map(|_| follow().start()).collect();
    let (unread, mut full) = std::io::pipe().expect("make a pipe");
    full.write_all(&[b'\n'; 64 << 10]).expect("fill the pipe");
    let stuck = follow().stdout(full).start();
    // Large events: what is asked for is in them.
    let file = runtime.scratch().join("large.json");
    let large = json!({ "unified": {}, "pids": { "limit": 100 }, "rdma": {}, "hugepageLimits": [] });
    std::fs::write(&file, large.to_string()).expect("write limits");
    let path = file.display().to_string();
    for _ in 0..30 {
        runtime.run(&["update", "--resources", &path, &container.id]).ok();
    }
    let (mut seen, mut last) = (Vec::new(), 0);
    for _ in 0..5 {
        runtime.run(&["pause", &container.id]).ok();
        runtime.run(&["resume", &container.id]).ok();
        let text = runtime.run(&["events", "--since", &last.to_string(), &container.id]).ok().stdout;
        seen.extend(seqs(&text));
        last = *seen.last().expect("an event");
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    container.kill("KILL").ok();
    container.wait();
    container.delete(&[]).ok();
    for follower in followers {
        let numbers = seqs(&follower.wait_within(LONG).ok().stdout);
        assert_eq!(numbers, (1..=last + 2).collect::<Vec<_>>());
    }
    // Its reader goes, and so does it, without a word.
    drop(unread);
    let output = stuck.wait_within(LONG);
    assert_eq!((output.code, output.stderr.as_str()), (141, ""), "{output:?}");
}

#[test]
fn those_of_all_containers_are_in_the_order_of_time() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 0");
    let follower = runtime.invoke(&["events", "--all", "--follow"]).start();
    let containers = [Container::new(&runtime, &bundle), Container::new(&runtime, &bundle)];
    for container in &containers {
        container.supervise(&[]).ok();
        assert_eq!(container.wait(), 0);
    }
    let events = runtime.run(&["events", "--all"]).ok().stdout;
    let ids: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event")["id"].as_str().map(str::to_owned))
        .collect();
    let [one, other] = &containers;
    assert_eq!(ids.len(), 6);
    assert!(ids[..3].iter().all(|id| id.as_ref() == Some(&one.id)), "{events}");
    assert!(ids[3..].iter().all(|id| id.as_ref() == Some(&other.id)), "{events}");
    runtime.run(&["events", "--all", &one.id]).fails(1, "");
    runtime.run(&["events", "--all", "--since", "3"]).fails(1, "give a time");
    let all_seen = || (follower.stdout_now().lines().count() >= 6).then_some(());
    poll_until(LONG, all_seen).expect("the follower sees containers that came after it");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(follower.pid()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .expect("end the follower");
    assert_eq!(follower.wait().code, 143);
}
