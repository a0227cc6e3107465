//! What the specification's runtime.md says of the operations and the life of a container, each sentence with an expectation
//! of its own and beside the peer.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Report, cases, state};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, leftover};

/// A payload that notes each time it is started in the bundle's "notes/started".
fn counting(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(&format!("echo started >> /tmp/started; echo up; {script}"));
    bundle.make_dir("notes");
    bundle.bind("notes", "/tmp", &["bind", "rw"]);
    bundle
}

fn starts(bundle: &Bundle) -> usize {
    read_lossy(&bundle.host("notes/started")).lines().count()
}

/// A life with a look after every operation: `start` where it must not be, and `delete` where it must not be, have no effect.
fn misplaced_operations(runtime: &Runtime) -> Value {
    let bundle = counting("exec sleep 600");
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("start_unknown", &container.start());
    report.step("create", &container.create());
    assert_eq!((container.status().as_str(), starts(&bundle)), ("created", 0), "args are applied by start alone");
    report.step("create_again", &container.create());
    assert_eq!(container.status(), "created");
    report.step("start", &container.start());
    container.wait_stdout("up");
    report.step("start_running", &container.start());
    report.step("delete_running", &container.delete(&[]));
    assert_eq!((container.status().as_str(), starts(&bundle)), ("running", 1), "neither had an effect");
    report.step("kill", &container.kill("KILL"));
    report.add("exit", json!(container.wait_exit()));
    report.step("start_stopped", &container.start());
    report.step("kill_stopped", &container.kill("TERM"));
    assert_eq!((container.status().as_str(), starts(&bundle)), ("stopped", 1), "neither had an effect");
    report.step("delete", &container.delete(&[]));
    report.step("state_deleted", &runtime.run(&["state", &container.id]));
    report.step("start_deleted", &container.start());
    report.step("kill_deleted", &container.kill("TERM"));
    report.step("create_with_the_id_again", &container.create());
    report.step("delete_created", &container.delete(&["--force"]));
    report.finish(&container)
}

/// The configuration as it was at `create` holds, whatever becomes of the bundle.
fn bundle_changes(runtime: &Runtime, change: impl Fn(&Path)) -> Value {
    let mut bundle = Bundle::shell("echo as created");
    bundle.set("/hooks", json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", "exit 0"] }] }));
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("create", &container.create());
    change(&bundle.host("config.json"));
    report.add("state", state(&container));
    report.step("start", &container.start());
    report.add("exit", json!(container.wait_exit()));
    assert_eq!(container.stdout(), "as created\n");
    report.step("delete", &container.delete(&[]));
    report.finish(&container)
}

/// `delete` takes away what `create` made, and nothing that somebody else did.
fn resources(runtime: &Runtime) -> Value {
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    let parent = format!("/{}-parent", bundle.name());
    bundle.set("/linux/cgroupsPath", json!(format!("{parent}/made")));
    let foreign: Vec<PathBuf> = ["pids", "memory", "."]
        .iter()
        .map(|controller| Path::new("/sys/fs/cgroup").join(controller).join(&parent[1..]).join("foreign"))
        .filter(|path| path.ancestors().nth(2).is_some_and(|mount| mount.join("cgroup.procs").exists()))
        .filter(|path| fs::create_dir_all(path).is_ok())
        .collect();
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("create", &container.create());
    let made = leftover::cgroups(&format!("{}/made", &parent[1..]));
    report.add("made_some", json!(!made.is_empty()));
    report.step("start", &container.start());
    container.wait_stdout("up");
    report.step("kill", &container.kill("KILL"));
    report.add("exit", json!(container.wait_exit()));
    report.step("delete", &container.delete(&[]));
    assert!(!made.iter().any(|directory| directory.exists()), "what create made is gone");
    assert!(foreign.iter().all(|directory| directory.is_dir()), "what others made is not");
    for directory in &foreign {
        let _ = fs::remove_dir(directory);
        let _ = fs::remove_dir(directory.parent().expect("a parent"));
    }
    report.finish(&container)
}

/// Hooks of one point in their order, the second failing: which run, and what the container is afterwards.
fn three_hooks(runtime: &Runtime, point: &str) -> Value {
    let mut bundle = Bundle::shell("echo payload >> /tmp/order");
    bundle.make_dir("notes");
    bundle.bind("notes", "/tmp", &["bind", "rw"]);
    let order = bundle.host("notes/order").display().to_string();
    let hook = |name: &str, code: i32| json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; echo {name} >> {order}; exit {code}")] });
    bundle.set("/hooks", json!({ point: [hook("one", 0), hook("two", 3), hook("three", 0)] }));
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    if report.step("create", &container.create()) && report.step("start", &container.start()) {
        report.add("exit", json!(container.wait_exit()));
    }
    report.add("known", json!(container.state().is_some()));
    report.step("delete", &container.delete(&["--force"]));
    // A failing poststart hook ends a payload that has or has not written by then.
    let lines = read_lossy(&bundle.host("notes/order"));
    report.add("hooks", json!(lines.lines().filter(|line| *line != "payload").collect::<Vec<_>>()));
    report.finish(&container)
}

/// A document with `value` at `pointer` runs: the specification forbids an error.
fn ignored(runtime: &Runtime, pointer: &str, value: &Value) -> Value {
    let mut bundle = Bundle::shell("echo fine");
    bundle.set(pointer, value.clone());
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    let output = container.run(&[]);
    report.step("run", &output);
    assert_eq!((output.code, output.stdout.as_str()), (0, "fine\n"), "{}", output.stderr);
    report.finish(&container)
}

/// What `state` says at each status; its bundle is absolute even when it was given otherwise.
fn states(runtime: &Runtime) -> Value {
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    bundle.set("/annotations", json!({ "org.example.key": "value", "org.example.empty": "" }));
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    let directory = bundle.path().parent().expect("a parent");
    let relative = bundle.name();
    let pid_file = container.pid_file().display().to_string();
    let words = ["create", "--bundle", &relative, "--pid-file", &pid_file, &container.id];
    let stdout = fs::File::create(runtime.scratch().join("out")).expect("make a file");
    report.step("create", &runtime.invoke(&words).cwd(directory).stdout(stdout).run());
    assert_eq!(container.state().expect("a state")["pid"], json!(container.pid()), "the pid file has the same pid");
    let state = |container: &Container| {
        let mut state = state(container);
        // Each has its own: accepted.json has that for all cases.
        assert!(state.as_object_mut().is_some_and(|fields| fields.remove("ociVersion").is_some()));
        state
    };
    report.add("created", state(&container));
    report.step("start", &container.start());
    report.add("running", state(&container));
    report.step("kill", &container.kill("KILL"));
    report.add("exit", json!(container.wait_exit()));
    report.add("stopped", state(&container));
    report.step("delete", &container.delete(&[]));
    report.finish(&container)
}

/// `kill` before `start`: the program never runs.
fn killed_before_start(runtime: &Runtime, signal: &str) -> Value {
    let bundle = counting("exit 0");
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("create", &container.create());
    report.step("kill", &container.kill(signal));
    report.add("exit", json!(container.wait_exit()));
    report.add("status", json!(container.status()));
    report.step("start", &container.start());
    assert_eq!(starts(&bundle), 0);
    report.step("delete", &container.delete(&[]));
    report.finish(&container)
}

/// What the caller ignores, as after nohup(1), the payload does not.
fn ignoring(runtime: &Runtime, signal: &str) -> Value {
    let bundle = Bundle::shell("grep SigIgn /proc/self/status");
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step(
        "create",
        &container.background("create", &[]).through_shell(&format!("trap '' {signal}; exec \"$@\"")).run(),
    );
    report.step("start", &container.start());
    container.pid();
    report.add("exit", json!(container.wait_exit()));
    report.add("seen", json!(container.stdout()));
    report.step("delete", &container.delete(&[]));
    report.finish(&container)
}

cases! {
    "operations";
    flow ignoring_hup => |r| ignoring(r, "HUP");
    flow ignoring_term => |r| ignoring(r, "TERM");
    flow misplaced => misplaced_operations;
    flow config_replaced_after_create => |r| bundle_changes(r, |config| {
        let text = fs::read_to_string(config).expect("read config.json").replace("as created", "as changed");
        fs::write(config, text).expect("write config.json");
    });
    flow config_broken_after_create => |r| bundle_changes(r, |config| fs::write(config, "{").expect("write config.json"));
    flow config_removed_after_create => |r| bundle_changes(r, |config| fs::remove_file(config).expect("remove config.json"));
    flow resources_of_delete => resources;
    flow three_prestart => |r| three_hooks(r, "prestart");
    flow three_create_runtime => |r| three_hooks(r, "createRuntime");
    flow three_create_container => |r| three_hooks(r, "createContainer");
    flow three_poststart => |r| three_hooks(r, "poststart");
    flow three_poststop => |r| three_hooks(r, "poststop");
    flow unknown_property => |r| ignored(r, "/unknown", &json!("unknown"));
    flow unknown_property_within => |r| ignored(r, "/process/unknown", &json!({ "a": [1] }));
    flow unknown_annotation => |r| ignored(r, "/annotations", &json!({ "org.example.unknown": "" }));
    flow states_of_a_life => states;
    flow killed_before_start_by_term => |r| killed_before_start(r, "TERM");
    flow killed_before_start_by_hup => |r| killed_before_start(r, "HUP");
    flow killed_before_start_by_kill => |r| killed_before_start(r, "KILL");
}
