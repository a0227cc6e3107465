//! How `list` reads records: one as rtx writes it in few calls and in place, any other one as `state` does. Nothing of that is
//! to be seen.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::runtime::find_program;
use crate::support::tracer::Tracer;
use crate::support::{Bundle, Container, Runtime, edit_record, own_engine, skip};

/// A bundle with annotations in whose text JSON spells letters otherwise, and with some that are not of ASCII.
fn annotated() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.set("/annotations", json!({ "a \"name\"": "\\ line\nnext\u{1}", "größe": "✓", "path": "/a/b" }));
    bundle
}

fn record(container: &Container) -> PathBuf {
    container.runtime.root().join(&container.id).join("state.json")
}

/// All that `list` prints, in each of its forms; nobody is told of anything.
fn listed(runtime: &Runtime) -> [String; 3] {
    [&["list"][..], &["list", "--quiet"], &["list", "--format", "json"]].map(|words| {
        let output = runtime.run(words).ok();
        assert_eq!(output.stderr, "");
        output.stdout
    })
}

fn status(runtime: &Runtime) -> Value {
    let list: Value = serde_json::from_str(&listed(runtime)[2]).expect("list prints JSON");
    list[0]["status"].clone()
}

#[test]
fn a_record_is_listed_however_it_is_written() {
    let (runtime, bundle, plain) = (own_engine!(), annotated(), Bundle::shell("exec sleep 600"));
    let containers: Vec<_> =
        [&bundle, &plain].iter().flat_map(|bundle| [(); 4].map(|()| Container::new(&runtime, bundle))).collect();
    for container in &containers {
        container.create().ok();
    }
    for of_one_bundle in containers.chunks(4) {
        of_one_bundle[1..].iter().for_each(|container| drop(container.start().ok()));
        runtime.run(&["pause", &of_one_bundle[2].id]).ok();
        of_one_bundle[3].kill("KILL").ok();
        of_one_bundle[3].wait_exit();
    }
    let before = listed(&runtime);
    let list: Value = serde_json::from_str(&before[2]).expect("list prints JSON");
    for (container, status) in containers.iter().zip(["created", "running", "paused", "stopped"].repeat(2)) {
        let shown =
            list.as_array().expect("an array").iter().find(|shown| shown["id"] == *container.id).expect("it is listed");
        assert_eq!(shown["status"], status);
        let state = container.state().expect("a state");
        for name in ["pid", "status", "bundle", "rootfs", "created", "annotations"] {
            assert_eq!(shown[name], state[name], "{name} of one that is {status}");
        }
    }

    type Rewrite = fn(&str) -> String;
    let ways: [(&str, Rewrite); 6] = [
        ("with white space", |line| {
            let value: Value = serde_json::from_str(line).expect("a record");
            serde_json::to_string_pretty(&value).expect("JSON").replace('\n', " ") + "\n"
        }),
        ("in another order", |line| serde_json::from_str::<Value>(line).expect("a record").to_string() + "\n"),
        ("with letters spelled otherwise", |line| line.replace('/', "\\/") + "\n"),
        ("without an end", str::to_owned),
        ("after many others", |line| format!("{line}\n").repeat(100)),
        ("before one that was never written whole", |line| {
            format!("{line}\n{}", &line[..line.floor_char_boundary(line.len() / 2)])
        }),
    ];
    for (what, rewrite) in ways {
        for container in &containers {
            let lines = fs::read_to_string(record(container)).expect("read a record");
            fs::write(record(container), rewrite(lines.lines().last().expect("a line"))).expect("write a record");
        }
        assert_eq!(listed(&runtime), before, "{what}");
        for container in &containers {
            let text = fs::read_to_string(record(container)).expect("read a record");
            let whole = text.lines().rfind(|line| serde_json::from_str::<Value>(line).is_ok()).expect("a record");
            fs::write(record(container), whole).expect("write a record");
        }
    }
    for container in [&containers[2], &containers[6]] {
        runtime.run(&["resume", &container.id]).ok();
    }
}

/// The pid alone says nothing: it may be another's by now.
#[test]
fn a_process_is_known_by_more_than_its_pid() {
    let (runtime, bundle) = (own_engine!(), annotated());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    assert_eq!(status(&runtime), "created");
    let kept = fs::read_to_string(record(&container)).expect("read the record");
    let line = kept.lines().last().expect("a line").to_owned() + "\n";
    let init = &serde_json::from_str::<Value>(&line).expect("a record")["init"];
    let (start_time, boot_id) = (init["startTime"].to_string(), init["bootId"].to_string());
    for (was, is) in [
        (format!("\"startTime\":{start_time}"), format!("\"startTime\":{start_time}0")),
        (boot_id.clone(), "\"of another boot\"".to_owned()),
        (format!("\"pid\":{}", init["pid"]), format!("\"pid\":{}", i32::MAX)),
        (format!("\"pid\":{},", init["pid"]), format!("\"pid\":{},", std::process::id())),
    ] {
        let changed = line.replace(&was, &is);
        assert_ne!(changed, line, "{was}");
        fs::write(record(&container), changed).expect("write the record");
        assert_eq!(status(&runtime), "stopped", "{is}");
    }
    fs::write(record(&container), &kept).expect("write the record");
    assert_eq!(status(&runtime), "created");
}

/// What is wrong with a record is said as `state` says it, and the others are listed.
#[test]
fn a_damaged_record_is_told_of() {
    let (runtime, bundle) = (own_engine!(), annotated());
    let (container, other) = (Container::new(&runtime, &bundle), Container::new(&runtime, &bundle));
    container.create().ok();
    other.create().ok();
    let kept = fs::read_to_string(record(&container)).expect("read the record");
    let line = kept.lines().last().expect("a line").to_owned();
    let damages: [(&str, String); 7] = [
        ("is damaged", line[..line.len() - 1].to_owned() + "\n"),
        ("is damaged", line.replace("\"places\"", "\"places")),
        ("is damaged", line.replace("\"places\"", "\"plates\"")),
        ("is damaged", line.replace("\"complete\":true", "\"complete\":1") + "\n"),
        ("is damaged", line.replace("\"init\"", "\"unknown\":0,\"init\"") + "\n"),
        ("is of version 7", line.replace("\"version\":1", "\"version\":7") + "\n"),
        ("is that of", line.replace(&*container.id, &other.id) + "\n"),
    ];
    for (expected, text) in damages {
        assert_ne!(text.trim_end(), line);
        fs::write(record(&container), &text).expect("write the record");
        let output = runtime.run(&["list", "--quiet"]).ok();
        assert_eq!(output.stdout, format!("{}\n", other.id), "{text}");
        assert!(output.stderr.contains(expected) && output.stderr.lines().count() == 1, "{}: {text}", output.stderr);
        assert!(output.stderr.contains(&container.id), "{}", output.stderr);
    }
    fs::write(record(&container), &kept).expect("write the record");
    edit_record(record(&container).parent().expect("a directory"), |record| record["engine"] = json!("none"));
    let output = runtime.run(&["list", "--quiet"]).ok();
    assert!(output.stderr.contains("there is no engine \"none\""), "{}", output.stderr);
    fs::write(record(&container), &kept).expect("write the record");
}

#[test]
fn a_container_takes_few_calls() {
    let (runtime, bundle) = (own_engine!(), annotated());
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let tracer = Tracer::new();
    let containers = [(); 3].map(|()| Container::new(&runtime, &bundle));
    let calls = |name: &str| {
        tracer.trace(name, runtime.invoke(&["list"])).run().ok();
        let traces = tracer.traces(name);
        // A debug build asks before it closes anything.
        let others = ["mmap(", "mremap(", "munmap(", "brk(", "fcntl("];
        let count = |is_meant: &dyn Fn(&str) -> bool| {
            traces.iter().flat_map(|text| text.lines()).filter(|line| is_meant(line)).count()
        };
        // Asked, read and closed where /proc does not tell: with cgroup v2, before Linux 6.1, and while init waits for a disk.
        let freezers = count(&|line| line.contains("/freezer.state\"") || line.contains("/cgroup.freeze\""));
        count(&|line| !others.iter().any(|call| line.starts_with(call))) - 3 * freezers
    };
    containers[0].create().ok();
    let one = calls("one");
    containers[1].create().ok();
    containers[2].create().ok();
    // Three for its record, as many for what /proc says, and one for its start barrier.
    assert_eq!(calls("three") - one, 2 * 7);
}
