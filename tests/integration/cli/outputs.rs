//! The formats of state, list, ps, events, spec, features and --version.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{running, waiting};
use crate::support::{Bundle, Container, Runtime, needs_root, own_engine, skip};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
}

#[test]
fn state_has_the_fields_that_callers_read() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    bundle.set("/annotations", json!({ "org.example": "x" }));
    let container = running(&runtime, &bundle);
    let state = container.state().expect("a state");
    assert_eq!(state["id"], json!(container.id));
    assert_eq!(state["pid"], json!(container.pid()));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.rootfs()));
    assert_eq!(state["annotations"], json!({ "org.example": "x" }));
    assert_eq!(state["owner"], "");
    assert!(state["ociVersion"].is_string());
    let created = state["created"].as_str().expect("created");
    assert!(chrono::DateTime::parse_from_rfc3339(created).is_ok() && created.ends_with('Z'), "{created}");
}

#[test]
fn the_root_in_the_state_is_a_plain_path() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    bundle.set("/root/path", json!("rootfs/./../rootfs//."));
    let container = running(&runtime, &bundle);
    assert_eq!(container.state().expect("a state")["rootfs"], json!(bundle.rootfs()));
}

#[test]
fn state_is_indented_json() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let text = runtime.run(&["state", &container.id]).ok().stdout;
    assert!(text.starts_with("{\n  \"ociVersion\"") && text.trim_end().ends_with('}'), "{text}");
}

#[test]
fn state_of_a_stopped_container_has_pid_0() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    container.kill("KILL").ok();
    container.wait_exit();
    let state = container.state().expect("a state");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
}

#[test]
fn list_as_table() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let empty = runtime.run(&["list"]).ok().stdout;
    assert_eq!(empty.split_whitespace().collect::<Vec<_>>(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let container = running(&runtime, &bundle);
    let table = runtime.run(&["list"]).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    let bundle_path = bundle.path().display().to_string();
    assert_eq!(
        (row[0], row[1], row[2], row[3]),
        (&*container.id, &*container.pid().to_string(), "running", &*bundle_path)
    );
    assert_eq!(row[5], "root");
    // Columns are aligned: each value starts below its heading.
    for (heading, value) in [("STATUS", "running"), ("BUNDLE", &bundle_path)] {
        assert_eq!(lines[0].find(heading), lines[1].find(value), "{table}");
    }
}

#[test]
fn list_as_ids_and_as_json() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    assert_eq!(runtime.run(&["list", "-q"]).ok().stdout, "");
    // runc prints null, which is no list to jq and the like.
    assert_eq!(
        runtime.run(&["list", "--format", "json"]).ok().stdout.trim(),
        if runtime.is_rtx() { "[]" } else { "null" }
    );
    let (one, two) = (running(&runtime, &bundle), running(&runtime, &bundle));
    let mut ids: Vec<String> = runtime.run(&["list", "--quiet"]).ok().stdout.lines().map(str::to_owned).collect();
    ids.sort();
    let mut expected = vec![one.id.clone(), two.id.clone()];
    expected.sort();
    assert_eq!(ids, expected);
    let list = parse(&runtime.run(&["list", "-f", "json"]).ok().stdout);
    let list = list.as_array().expect("an array");
    assert_eq!(list.len(), 2);
    assert!(
        list.iter()
            .all(|c| c["status"] == "running" && c["owner"] == "root" && c["pid"].is_i64() && c["created"].is_string())
    );
}

/// One container of each status, seen from a directory that others may write to, where each is looked at more closely, as well.
#[test]
fn list_says_what_state_says() {
    needs_root!();
    let (runtime, idle, busy) = (Runtime::under_test(), waiting(), Bundle::shell("echo up; while :; do :; done"));
    let (created, stopped) = (Container::new(&runtime, &idle), running(&runtime, &idle));
    created.create().ok();
    stopped.kill("KILL").ok();
    stopped.wait_exit();
    let (asleep, at_work) = (running(&runtime, &idle), running(&runtime, &busy));
    let (asleep_paused, at_work_paused) = (running(&runtime, &idle), running(&runtime, &busy));
    for container in [&asleep_paused, &at_work_paused] {
        runtime.run(&["pause", &container.id]).ok();
    }
    let all = [
        (&created, "created"),
        (&stopped, "stopped"),
        (&asleep, "running"),
        (&at_work, "running"),
        (&asleep_paused, "paused"),
        (&at_work_paused, "paused"),
    ];
    for mode in [0o711, 0o770] {
        fs::set_permissions(runtime.root(), fs::Permissions::from_mode(mode)).expect("chmod");
        let list = parse(&runtime.run(&["list", "--format", "json"]).ok().stdout);
        let list = list.as_array().expect("an array");
        assert_eq!(list.len(), all.len(), "{mode:o}");
        for (container, status) in all {
            let shown = list.iter().find(|shown| shown["id"] == container.id.as_str()).expect("it is listed");
            assert_eq!(shown["status"], status, "{mode:o}");
            let state = container.state().expect("a state");
            assert_eq!((&state["status"], &state["pid"]), (&shown["status"], &shown["pid"]), "{mode:o}");
        }
    }
    for container in [&asleep_paused, &at_work_paused] {
        runtime.run(&["resume", &container.id]).ok();
    }
    let resumed = parse(&runtime.run(&["list", "--format", "json"]).ok().stdout);
    assert!(resumed.as_array().expect("an array").iter().all(|shown| shown["status"] != "paused"), "{resumed}");
}

/// What a killed `start` leaves: whether somebody still waits behind it has to be asked.
#[test]
fn list_does_not_take_one_that_waits_for_one_that_runs() {
    let (runtime, bundle) = (own_engine!(), waiting());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let state = runtime.root().join(&container.id);
    fs::rename(state.join("start.sock"), state.join("starting.sock")).expect("rename the start barrier");
    let status = || parse(&runtime.run(&["list", "--format", "json"]).ok().stdout)[0]["status"].clone();
    assert_eq!(status(), "created");
    container.start().ok();
    assert_eq!(status(), "running");
}

#[test]
fn list_with_an_unknown_format() {
    needs_root!();
    Runtime::under_test().run(&["list", "--format", "xml"]).fails(1, "format");
}

#[test]
fn ps_as_table_and_as_json() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let json_flags = [["ps", "--format", "json"], ["ps", "-f", "json"]];
    for flags in json_flags {
        let pids = parse(&runtime.run(&[&flags[..], &[&*container.id]].concat()).ok().stdout);
        assert_eq!(pids, json!([container.pid()]));
    }
    let table = runtime.run(&["ps", &container.id]).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("PID") && lines[0].contains("CMD") && lines[1].contains("sleep"),
        "{table}"
    );
    let chosen = runtime.run(&["ps", &container.id, "-o", "pid,comm"]).ok().stdout;
    assert!(chosen.contains("COMMAND") && chosen.contains(&container.pid().to_string()), "{chosen}");
}

#[test]
fn ps_counts_processes_of_exec() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let file = runtime.scratch().join("exec.pid");
    container.exec(&["--detach", "--pid-file", &file.display().to_string()], &["sleep", "600"]).ok();
    let pid: i32 = fs::read_to_string(&file).expect("the pid file").parse().expect("a plain number");
    let listed = runtime.run(&["ps", "-f", "json", &container.id]);
    container.kill("KILL").ok();
    crate::support::children::wait_orphan(pid, std::time::Duration::from_secs(5));
    let pids = parse(&listed.ok().stdout);
    let mut pids: Vec<i64> = pids.as_array().expect("an array").iter().filter_map(Value::as_i64).collect();
    pids.sort_unstable();
    let mut expected = vec![i64::from(container.pid()), i64::from(pid)];
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn events_stats_is_one_json_object() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    bundle
        .set("/linux/resources/memory", json!({ "limit": 67_108_864 }))
        .set("/linux/resources/pids", json!({ "limit": 33 }));
    let container = running(&runtime, &bundle);
    let stats = parse(&runtime.run(&["events", "--stats", &container.id]).ok().stdout);
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(container.id)));
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], json!(67_108_864));
    assert_eq!(stats["data"]["pids"]["limit"], json!(33));
    assert!(stats["data"]["pids"]["current"].as_u64().is_some_and(|n| n >= 1));
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|n| n > 0));
}

#[test]
fn spec_writes_the_default_configuration() {
    let runtime = Runtime::under_test();
    let dir = runtime.scratch().join("bundle");
    fs::create_dir(&dir).expect("make a directory");
    runtime.run(&["spec", "--bundle", &dir.display().to_string()]).ok();
    let text = fs::read_to_string(dir.join("config.json")).expect("config.json was written");
    let spec = parse(&text);
    assert_eq!((&spec["process"]["terminal"], &spec["process"]["args"]), (&json!(true), &json!(["sh"])));
    assert_eq!((&spec["root"]["readonly"], &spec["process"]["noNewPrivileges"]), (&json!(true), &json!(true)));
    assert_eq!(spec["mounts"].as_array().map(Vec::len), Some(7));
    assert!(text.starts_with("{\n\t\"ociVersion\""), "indented by tabs, as runc's: {text}");
    // The bundle is never overwritten.
    let again = runtime.run(&["spec", "-b", &dir.display().to_string()]);
    again.fails(1, "config.json exists");
}

#[test]
fn spec_rootless_maps_the_caller() {
    let runtime = Runtime::under_test();
    runtime.invoke(&["spec", "--rootless"]).cwd(runtime.scratch()).run().ok();
    let spec = parse(&fs::read_to_string(runtime.scratch().join("config.json")).expect("config.json was written"));
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(spec["linux"]["uidMappings"], json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
    let namespaces: Vec<&Value> =
        spec["linux"]["namespaces"].as_array().expect("namespaces").iter().map(|n| &n["type"]).collect();
    assert!(namespaces.contains(&&json!("user")) && !namespaces.contains(&&json!("network")));
    assert!(spec["linux"]["resources"].is_null());
}

/// Which depends on the host: with cgroup v2 alone a cgroup namespace is among them.
#[test]
fn spec_has_the_namespaces_of_runcs() {
    let runtime = own_engine!();
    let Some(peer) = Runtime::peer() else { skip!("no runc to compare with") };
    for flags in [&[][..], &["--rootless"]] {
        let namespaces = |runtime: &Runtime| {
            runtime.invoke(&[&["spec"], flags].concat()).cwd(runtime.scratch()).run().ok();
            let file = runtime.scratch().join("config.json");
            let spec = parse(&fs::read_to_string(&file).expect("config.json was written"));
            fs::remove_file(file).expect("remove config.json");
            spec["linux"]["namespaces"].clone()
        };
        assert_eq!(namespaces(&runtime), namespaces(&peer), "{flags:?}");
    }
}

/// The default bundle runs as it is, once its payload needs no terminal.
#[test]
fn spec_can_be_run() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::new());
    runtime.run(&["spec", "--bundle", &bundle.path().display().to_string()]).ok();
    bundle.spec = parse(&fs::read_to_string(bundle.host("config.json")).expect("config.json"));
    bundle.set("/process/terminal", json!(false)).shell_payload("hostname; id -u");
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert!(output.stdout.ends_with("\n0\n"), "{}", output.stdout);
}

#[test]
fn features_is_json_with_what_callers_ask_for() {
    let runtime = Runtime::under_test();
    let features = parse(&runtime.run(&["features"]).ok().stdout);
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(features["hooks"].as_array().is_some_and(|h| h.contains(&json!(hook))), "hook {hook}");
    }
    for option in ["bind", "rbind", "ro", "rro", "nosuid", "rslave"] {
        assert!(features["mountOptions"].as_array().is_some_and(|m| m.contains(&json!(option))), "option {option}");
    }
    assert!(features["linux"]["namespaces"].as_array().is_some_and(|n| n.contains(&json!("cgroup"))));
    assert!(features["linux"]["capabilities"].as_array().is_some_and(|c| c.contains(&json!("CAP_SYS_ADMIN"))));
    assert_eq!(features["linux"]["seccomp"]["enabled"], json!(true));
}

/// go-runc reads the first line's last word, "commit: " and "spec: ".
#[test]
fn version_in_the_form_that_callers_parse() {
    let runtime = Runtime::under_test();
    for flag in ["--version", "-v"] {
        let text = runtime.run(&[flag]).ok().stdout;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains(" version "), "{text}");
        assert!(lines.iter().any(|l| l.starts_with("spec: ")), "{text}");
    }
}

#[test]
fn help_of_every_command() {
    let runtime = Runtime::under_test();
    let verbs =
        "create start run exec kill delete state list ps pause resume update events spec features checkpoint restore";
    for verb in verbs.split(' ') {
        let help = runtime.run(&[verb, "--help"]).ok().stdout;
        assert!(help.contains(verb), "{help}");
    }
}

/// A pipe that nobody reads any more is no failure.
#[test]
fn help_that_cannot_be_printed() {
    let runtime = own_engine!();
    for words in [&["--help"][..], &["run", "--help"], &[], &["--version"]] {
        runtime.invoke(words).through_shell("exec \"$@\" >/dev/full").run().fails(1, "no space left on device");
        assert_eq!(runtime.invoke(words).through_shell("\"$@\" | head -c 1; exit").run().ok().stderr, "", "{words:?}");
    }
}

/// A warning that nobody can be told is lost, and neither the container nor the exit code are.
#[test]
fn a_warning_that_cannot_be_printed() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("exit 7");
    let set = json!(["CAP_KILL"]);
    bundle.set("/process/capabilities", json!({ "bounding": set, "permitted": set, "ambient": set }));
    let container = Container::new(&runtime, &bundle);
    let run = |stderr: &str| {
        bundle.write();
        let path = bundle.path().display().to_string();
        let call = runtime.invoke(&["run", "--bundle", &path, &container.id]);
        call.through_shell(&format!("exec \"$@\" 2>{stderr}")).run().code
    };
    assert!(container.run(&[]).stderr.contains("warning: can't raise ambient capability"));
    assert_eq!([run("/dev/full"), run("&-")], [7, 7]);
    assert!(container.state().is_none());
}

fn remove(runtime: &Runtime, id: &str) {
    let pid = parse(&runtime.run(&["state", id]).ok().stdout)["pid"].as_i64().expect("a pid");
    runtime.run(&["delete", "--force", id]).ok();
    crate::support::children::wait_orphan(pid as i32, std::time::Duration::from_secs(5));
}

/// A container id need not be given: one is made, and a command that leaves the container in the background prints it.
#[test]
fn an_id_is_made_when_none_is_given() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    bundle.write();
    let path = bundle.path().display().to_string();
    for words in [&["create", "--bundle", &*path][..], &["run", "--detach", "--bundle", &path][..]] {
        let id = runtime.run(words).ok().stdout.lines().next().unwrap_or_default().to_owned();
        let ulid = id.len() == 26 && id.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase());
        assert!(ulid, "{id} is not a lowercase ULID");
        remove(&runtime, &id);
    }
}

/// What cannot be told must not be lost either: `create` leaves the container and says so, `run` removes it.
#[test]
fn an_id_that_cannot_be_printed() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    bundle.write();
    let path = bundle.path().display().to_string();
    for (words, stays) in
        [(&["create", "--bundle", &*path][..], true), (&["run", "--detach", "--bundle", &path][..], false)]
    {
        let call = runtime.invoke(words).through_shell("exec \"$@\" >/dev/full");
        let output = call.run().fails(1, "no space left on device");
        assert_eq!(output.stderr.contains("the container is there"), stays, "{}", output.stderr);
        let listed = runtime.run(&["list", "--quiet"]).ok().stdout;
        assert_eq!(!listed.is_empty(), stays, "{listed}");
        for id in listed.lines() {
            assert!(output.stderr.contains(id), "{}", output.stderr);
            remove(&runtime, id);
        }
    }
}
