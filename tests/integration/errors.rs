//! What is said and returned when something is wrong: exit codes, and the words that callers match.
//!
//! The expectations are those of runc 1.5.1; rtx may say more, but these phrases must be in what it says. The tests skip
//! when another runtime stands in for rtx.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, Container, Output, Runtime, needs_root, own_engine, skip};

/// Declares situations as tests: a name, the exit code, a phrase that stderr must contain, and how to get there.
macro_rules! situations {
    ($($name:ident: $code:literal, $phrase:literal, $act:expr;)*) => {
        $(
            #[test]
            fn $name() {
                needs_root!();
                let runtime = Runtime::under_test();
                if !runtime.is_rtx() {
                    skip!("the runtime under test is not rtx");
                }
                let act: fn(&Runtime) -> Output = $act;
                check(&act(&runtime), $code, $phrase);
            }
        )*
    };
}

/// One line on stderr for a failure of the runtime itself, nothing when there is nothing to say.
#[track_caller]
fn check(output: &Output, code: i32, phrase: &str) {
    assert_eq!(output.code, code, "exit code; stderr: {}", output.stderr);
    // A quotation mark may be escaped, as in logrus's msg="...".
    let said = output.stderr.replace("\\\"", "\"");
    assert!(said.contains(phrase), "{phrase:?} is not in stderr: {}", output.stderr);
    if !phrase.is_empty() {
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "more than one line: {}", output.stderr);
    }
}

/// `run` of a bundle that `build` spoils; its payload is `true`.
fn run(runtime: &Runtime, build: impl Fn(&mut Bundle)) -> Output {
    let mut bundle = Bundle::new();
    bundle.args(&["/bin/true"]);
    build(&mut bundle);
    Container::new(runtime, &bundle).run(&[])
}

/// A command on a running container.
fn on_running(runtime: &Runtime, act: impl Fn(&Container) -> Output) -> Output {
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = Container::new(runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    act(&container)
}

/// A command on a container whose payload has ended.
fn on_stopped(runtime: &Runtime, act: impl Fn(&Container) -> Output) -> Output {
    on_running(runtime, |container| {
        container.kill("KILL").ok();
        assert_eq!(container.wait_exit(), Some(137));
        act(container)
    })
}

fn on_paused(runtime: &Runtime, act: impl Fn(&Container) -> Output) -> Output {
    on_running(runtime, |container| {
        verb(container, "pause").ok();
        let output = act(container);
        verb(container, "resume");
        output
    })
}

fn verb(container: &Container, verb: &str) -> Output {
    container.runtime.run(&[verb, &container.id])
}

fn exec(runtime: &Runtime, flags: &[&str], words: &[&str]) -> Output {
    on_running(runtime, |container| container.exec(flags, words))
}

/// `create` with an id of the caller's choosing.
fn create_as(runtime: &Runtime, id: &[&str]) -> Output {
    let bundle = Bundle::new();
    bundle.write();
    let path = bundle.path().display().to_string();
    runtime.run(&[&["create", "--bundle", &path], id].concat())
}

fn hook(b: &mut Bundle, point: &str, script: &str, timeout: i64) {
    let path = b.make_script("hook", script).display().to_string();
    b.set("/hooks", json!({ point: [{ "path": path, "timeout": timeout }] }));
}

fn seccomp(b: &mut Bundle, call: &str, action: &str) {
    let rules = json!([{ "names": [call], "action": action }]);
    b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
}

fn sysctl(b: &mut Bundle, name: &str) {
    b.set("/linux/sysctl", json!({ name: "1" }));
}

fn rlimit(b: &mut Bundle, name: &str, soft: u64, hard: u64) {
    b.set("/process/rlimits", json!([{ "type": name, "soft": soft, "hard": hard }]));
}

// Unknown containers, ids and command lines.
situations! {
    state_of_unknown: 1, "container does not exist", |r| r.run(&["state", "nosuch"]);
    start_of_unknown: 1, "container does not exist", |r| r.run(&["start", "nosuch"]);
    kill_of_unknown: 1, "container does not exist", |r| r.run(&["kill", "nosuch", "9"]);
    delete_of_unknown: 1, "container does not exist", |r| r.run(&["delete", "nosuch"]);
    delete_force_of_unknown: 0, "", |r| r.run(&["delete", "--force", "nosuch"]);
    pause_of_unknown: 1, "container does not exist", |r| r.run(&["pause", "nosuch"]);
    ps_of_unknown: 1, "container does not exist", |r| r.run(&["ps", "nosuch"]);
    update_of_unknown: 1, "container does not exist", |r| r.run(&["update", "--pids-limit", "5", "nosuch"]);
    exec_in_unknown: 255, "container does not exist", |r| r.run(&["exec", "nosuch", "true"]);
    id_in_use_and_no_terminal: 1, "container with given ID already exists", |r| on_running(r, |c| {
        let mut bundle = Bundle::new();
        bundle.set("/process/terminal", json!(true)).write();
        r.invoke(&["run", "-b", &bundle.path().display().to_string(), &c.id]).through(&["setsid"]).run()
    });
    id_in_use: 1, "container with given ID already exists", |r| on_running(r, |c| r.run(&["create", "-b", &c.bundle.path().display().to_string(), &c.id]));
    id_invalid: 1, "invalid container ID format", |r| create_as(r, &["a/b"]);
    id_climbs: 1, "invalid container ID format", |r| create_as(r, &[".."]);
    id_empty: 1, "container id cannot be empty", |r| create_as(r, &[""]);
    no_id_for_start: 1, "\"start\" requires exactly 1 argument", |r| r.run(&["start"]);
    two_ids: 1, "\"create\" requires", |r| create_as(r, &["one", "two"]);
    unknown_command: 3, "No help topic for 'nosuch'", |r| r.run(&["nosuch"]);
    unknown_flag: 1, "flag provided but not defined: -nosuch", |r| r.run(&["state", "--nosuch", "x"]);
    unknown_global_flag: 1, "flag provided but not defined: -nosuch", |r| r.invoke(&["state", "x"]).through_shell("p=$1; shift; exec \"$p\" --nosuch \"$@\"").run();
}

// Commands in the wrong state of a container.
situations! {
    start_of_running: 1, "cannot start an already running container", |r| on_running(r, |c| c.start());
    delete_of_running: 1, "that is not stopped: running", |r| on_running(r, |c| c.delete(&[]));
    kill_with_unknown_signal: 1, "unknown signal \"NOSUCH\"", |r| on_running(r, |c| c.kill("NOSUCH"));
    kill_with_a_hyphen: 1, "unknown signal \"-KILL\"", |r| on_running(r, |c| c.kill("-KILL"));
    resume_of_running: 1, "container not paused", |r| on_running(r, |c| verb(c, "resume"));
    update_with_bad_value: 1, "invalid value for memory", |r| on_running(r, |c| r.run(&["update", "--memory", "abc", &c.id]));
    update_with_invalid_json: 1, "invalid character", |r| on_running(r, |c| r.invoke(&["update", "--resources", "-", &c.id]).input("rubbish").run());
    pause: 0, "", |r| on_running(r, |c| verb(c, "pause"));
    pause_of_paused: 1, "container not running", |r| on_paused(r, |c| verb(c, "pause"));
    exec_in_paused: 255, "cannot exec in a paused container (use --ignore-paused to override)", |r| on_paused(r, |c| c.exec(&[], &["true"]));
    kill_of_paused: 0, "", |r| on_paused(r, |c| c.kill("KILL"));
    start_of_stopped: 1, "cannot start a container that has stopped", |r| on_stopped(r, |c| c.start());
    exec_in_stopped: 255, "cannot exec in a stopped container", |r| on_stopped(r, |c| c.exec(&[], &["true"]));
    kill_of_stopped: 1, "container not running", |r| on_stopped(r, |c| c.kill("KILL"));
    kill_all_of_stopped: 0, "", |r| on_stopped(r, |c| r.run(&["kill", "--all", &c.id, "9"]));
    pause_of_stopped: 1, "container not running", |r| on_stopped(r, |c| verb(c, "pause"));
    ps_of_stopped: 0, "", |r| on_stopped(r, |c| verb(c, "ps"));
    delete_of_stopped: 0, "", |r| on_stopped(r, |c| c.delete(&[]));
    checkpoint_of_stopped: 1, "cannot be checkpointed in stopped state", |r| on_stopped(r, |c| verb(c, "checkpoint"));
}

// exec.
situations! {
    exec_of_missing_program: 255, "exec: \"/nope\": stat /nope: no such file or directory", |r| exec(r, &[], &["/nope"]);
    exec_of_directory: 255, "exec: \"/etc\": is a directory: permission denied", |r| exec(r, &[], &["/etc"]);
    exec_of_not_executable: 255, "exec: \"/etc/passwd\": permission denied", |r| exec(r, &[], &["/etc/passwd"]);
    exec_of_name_not_in_path: 255, "exec: \"nope\": executable file not found in $PATH", |r| exec(r, &[], &["nope"]);
    exec_with_missing_cwd: 255, "no such file or directory", |r| exec(r, &["--cwd", "/nope"], &["true"]);
    exec_as_unknown_user: 255, "bad uid", |r| exec(r, &["--user", "nobodyhere"], &["true"]);
    exec_as_no_uid: 255, "--user: 4294967295 means", |r| exec(r, &["--user", "4294967295"], &["true"]);
    exec_with_nameless_variable: 255, "--env =x: invalid environment variable: name cannot be empty", |r| exec(r, &["-e", "=x"], &["true"]);
    exec_as_no_user: 255, "--user: 4294967295 means \"no id\" to Linux: invalid argument", |r| exec(r, &["--user", "0:4294967295"], &["true"]);
    exec_in_no_group: 255, "--additional-gids: 4294967295 means \"no id\" to Linux: invalid argument", |r| exec(r, &["-g", "5", "-g", "4294967295"], &["true"]);
    exec_of_document_in_no_group: 255, "/user/additionalGids/0: 4294967295 means \"no id\" to Linux: invalid argument", |r| {
        let process = r.scratch().join("process.json");
        fs::write(&process, json!({ "args": ["true"], "cwd": "/", "user": { "uid": 0, "gid": 0, "additionalGids": [u32::MAX] } }).to_string()).expect("write a process");
        exec(r, &["--process", &process.display().to_string()], &[])
    };
    run_in_no_group: 1, "/process/user/additionalGids/1: 4294967295 means \"no id\" to Linux: invalid argument", |r| run(r, |b| { b.set("/process/user/additionalGids", json!([5, u32::MAX])); });
    exec_exits_3: 3, "", |r| exec(r, &[], &["sh", "-c", "exit 3"]);
    exec_killed_by_9: 137, "", |r| exec(r, &[], &["sh", "-c", "kill -9 $$"]);
    exec_terminal_without_terminal: 255, "/dev/tty: no such device or address", |r| on_running(r, |c| c.exec_call(&["-t"], &["true"]).through(&["setsid"]).run());
}

// Bundles.
situations! {
    no_config: 1, "JSON specification file config.json not found", |r| {
        let bundle = Bundle::new();
        r.run(&["run", "-b", &bundle.path().display().to_string(), "x"])
    };
    no_bundle: 1, "/nope: no such file or directory", |r| r.run(&["run", "-b", "/nope", "x"]);
    config_is_not_json: 1, "config.json", |r| {
        let bundle = Bundle::new();
        fs::write(bundle.host("config.json"), "{").expect("write half a config.json");
        r.run(&["run", "-b", &bundle.path().display().to_string(), "x"])
    };
    args_missing: 1, "args must not be empty", |r| run(r, |b| { b.remove("/process/args"); });
    args_empty: 1, "args must not be empty", |r| run(r, |b| { b.args(&[]); });
    program_missing: 1, "exec: \"/nope\": stat /nope: no such file or directory", |r| run(r, |b| { b.args(&["/nope"]); });
    program_not_in_path: 1, "exec: \"nope\": executable file not found in $PATH", |r| run(r, |b| { b.args(&["nope"]); });
    program_is_directory: 1, "exec: \"/etc\": is a directory: permission denied", |r| run(r, |b| { b.args(&["/etc"]); });
    program_not_executable: 1, "exec: \"/etc/passwd\": permission denied", |r| run(r, |b| { b.args(&["/etc/passwd"]); });
    payload_exits_42: 42, "", |r| run(r, |b| { b.shell_payload("exit 42"); });
    init_cannot_kill_itself: 0, "", |r| run(r, |b| { b.shell_payload("kill -15 $$"); });
    cwd_is_made: 0, "", |r| run(r, |b| { b.set("/process/cwd", json!("/made")).set("/root/readonly", json!(false)); });
    cwd_relative: 1, "Cwd must be an absolute path", |r| run(r, |b| { b.set("/process/cwd", json!("x")); });
    root_missing: 1, "no such file or directory", |r| run(r, |b| { b.set("/root/path", json!("nope")); });
    root_is_file: 1, "not a directory", |r| run(r, |b| { b.make_file("file", ""); b.set("/root/path", json!("file")); });
    no_root: 1, "root must be specified", |r| run(r, |b| { b.remove("/root"); });
    oci_version_missing: 0, "", |r| run(r, |b| { b.remove("/ociVersion"); });
    oci_version_unknown: 0, "", |r| run(r, |b| { b.set("/ociVersion", json!("9.9.9")); });
    oci_version_nonsense: 0, "", |r| run(r, |b| { b.set("/ociVersion", json!("x")); });
    unknown_top_level_property: 0, "", |r| run(r, |b| { b.spec["nosuch"] = json!(1); });
}

// Mounts, namespaces, the process.
situations! {
    bind_source_missing: 1, "/nope: no such file or directory", |r| run(r, |b| { b.mount("/tmp", "bind", "/nope", &["bind"]); });
    mount_destination_relative: 0, "", |r| run(r, |b| { b.mount("tmp", "tmpfs", "tmpfs", &[]); });
    file_system_unknown: 1, "no such device", |r| run(r, |b| { b.mount("/tmp", "nosuchfs", "x", &[]); });
    bind_over_proc: 1, "/proc", |r| run(r, |b| { b.mount("/proc", "bind", "/tmp", &["bind"]); });
    namespace_unknown: 1, "foo", |r| run(r, |b| { b.namespace("foo", ""); });
    namespace_twice: 1, "pid", |r| run(r, |b| { b.spec["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "pid" })); });
    namespace_path_missing: 1, "/nope: no such file or directory", |r| run(r, |b| { b.namespace("network", "/nope"); });
    hostname_without_uts: 1, "unable to set hostname without a private UTS namespace", |r| run(r, |b| { b.without_namespace("uts"); });
    mount_on_the_root_by_dots: 1, "/mounts/7/destination: the destination is the container's root", |r| run(r, |b| {
        b.mount("/mnt/../..", "tmpfs", "tmpfs", &[]);
    });
    control_characters_in_a_name: 1, "type a\\u{202e}b\\nc", |r| run(r, |b| { b.mount("/tmp", "a\u{202e}b\nc", "x", &[]); });
    sysctl_that_the_kernel_refuses: 1, "/linux/sysctl/net.ipv4.ip_forward: write", |r| run(r, |b| {
        b.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "x" }));
    });
    device_number_out_of_range: 1, "/linux/resources/blockIO/throttleReadBpsDevice/0/minor: 4294967296 is no minor", |r| run(r, |b| {
        b.set("/linux/resources/blockIO", json!({ "throttleReadBpsDevice": [{ "major": 8, "minor": 1u64 << 32, "rate": 1 }] }));
    });
    user_namespace_without_maps: 1, "no uid mappings found", |r| run(r, |b| { b.namespace("user", ""); });
    rlimit_unknown: 1, "RLIMIT_NOSUCH", |r| run(r, |b| rlimit(b, "RLIMIT_NOSUCH", 1, 1));
    rlimit_soft_over_hard: 1, "rlimit", |r| run(r, |b| rlimit(b, "RLIMIT_NOFILE", 20, 10));
    oom_score_out_of_range: 1, "oom", |r| run(r, |b| { b.set("/process/oomScoreAdj", json!(5000)); });
    seccomp_action_unknown: 1, "SCMP_ACT_NOSUCH", |r| run(r, |b| seccomp(b, "mkdir", "SCMP_ACT_NOSUCH"));
    seccomp_errno_too_large: 1, "/linux/seccomp/defaultErrnoRet: 4095 is no error", |r| run(r, |b| {
        b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095 }));
    });
    seccomp_of_another_byte_order: 1, "/linux/seccomp/architectures/1: SCMP_ARCH_S390X has another", |r| run(r, |b| {
        let both = json!(["SCMP_ARCH_NATIVE", "SCMP_ARCH_S390X"]);
        b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": both }));
    });
    seccomp_call_unknown: 0, "", |r| run(r, |b| seccomp(b, "nosuchcall", "SCMP_ACT_ERRNO"));
    sysctl_of_the_host: 1, "sysctl \"kernel.panic\" is not in a separate kernel namespace", |r| run(r, |b| sysctl(b, "kernel.panic"));
    sysctl_unknown: 1, "o such file or directory", |r| run(r, |b| sysctl(b, "net.nosuch"));
    personality_unknown: 1, "personality", |r| run(r, |b| { b.set("/linux/personality", json!({ "domain": "X" })); });
    root_propagation_unknown: 1, "rootfsPropagation", |r| run(r, |b| { b.set("/linux/rootfsPropagation", json!("x")); });
    device_of_bad_type: 1, "device type", |r| run(r, |b| { b.set("/linux/devices", json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }])); });
    memory_limit_too_small: 1, "memory", |r| run(r, |b| { b.set("/linux/resources/memory", json!({ "limit": 1 })); });
    cpuset_out_of_range: 1, "cpuset", |r| run(r, |b| { b.set("/linux/resources/cpu", json!({ "cpus": "900" })); });
    pids_limit_negative: 0, "", |r| run(r, |b| { b.set("/linux/resources/pids", json!({ "limit": -1 })); });
    hook_missing: 1, "/nope: no such file or directory", |r| run(r, |b| { b.set("/hooks", json!({ "prestart": [{ "path": "/nope" }] })); });
    hook_fails: 1, "createRuntime hook #0", |r| run(r, |b| hook(b, "createRuntime", "exit 1", 10));
    hook_times_out: 1, "timeout", |r| run(r, |b| hook(b, "createRuntime", "exec sleep 20", 1));
    terminal_without_terminal: 1, "/dev/tty: no such device or address", |r| {
        let mut bundle = Bundle::shell("true");
        bundle.set("/process/terminal", json!(true));
        Container::new(r, &bundle).background("run", &[]).through(&["setsid"]).run()
    };
    terminal_detached_without_socket: 1, "without setting console socket", |r| {
        let mut bundle = Bundle::shell("true");
        bundle.set("/process/terminal", json!(true));
        Container::new(r, &bundle).run_detached(&[])
    };
}

/// What is left out is said on standard error, but not to a caller with a log, whose container has this standard error.
#[test]
fn capability_unknown() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("true"));
    bundle.capabilities(&["CAP_KILL", "CAP_NOSUCH"]);
    let container = Container::new(&runtime, &bundle);
    let output = container.run(&[]).ok();
    assert!(output.stderr.contains("CAP_NOSUCH"), "{}", output.stderr);
    if runtime.is_rtx() {
        let log = bundle.host("log").display().to_string();
        let path = bundle.path().display().to_string();
        let output = runtime.run(&["--log", &log, "run", "--bundle", &path, &container.id]).ok();
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn apparmor_where_there_is_none() {
    needs_root!();
    if Path::new("/sys/kernel/security/apparmor/profiles").exists() {
        skip!("this kernel has AppArmor");
    }
    let output = run(&Runtime::under_test(), |b| {
        b.set("/process/apparmorProfile", json!("nosuch"));
    });
    output.fails(1, "apparmor");
}

#[test]
fn intel_rdt_where_there_is_none() {
    needs_root!();
    if Path::new("/sys/fs/resctrl/info").exists() {
        skip!("this machine has Intel RDT");
    }
    let output = run(&Runtime::under_test(), |b| {
        b.set("/linux/intelRdt", json!({ "closID": "x", "l3CacheSchema": "L3:0=f" }));
    });
    output.fails(1, "ntelRdt");
}

/// `--log` with JSON: exactly one object with level, msg and time for a failure, and an empty file for a success.
#[test]
fn log_holds_one_line_for_a_failure() {
    needs_root!();
    let runtime = Runtime::under_test();
    let log = runtime.scratch().join("log.json");
    let runtime = runtime.with_flags(&["--log", &log.display().to_string(), "--log-format", "json"]);
    run(&runtime, |b| {
        b.args(&["/nope"]);
    });
    let text = fs::read_to_string(&log).expect("the log exists");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["level"], "error");
    assert!(lines[0]["msg"].as_str().is_some_and(|m| m.contains("/nope")), "{text}");
    let time = lines[0]["time"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time} is not RFC 3339");
}

#[test]
fn log_stays_empty_for_a_success() {
    needs_root!();
    let runtime = Runtime::under_test();
    let log = runtime.scratch().join("log.json");
    let runtime = runtime.with_flags(&["--log", &log.display().to_string(), "--log-format", "json"]);
    assert_eq!(run(&runtime, |_| {}).code, 0);
    assert_eq!(fs::read_to_string(&log).expect("the log exists"), "");
}

/// Its removal takes the configuration away before the directory.
#[test]
fn exec_into_one_that_is_being_removed_says_that_it_has_ended() {
    let (runtime, bundle) = (own_engine!(), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().ok();
    container.kill("KILL").ok();
    container.wait_exit();
    let config = runtime.root().join(&container.id).join("config.json");
    fs::remove_file(config).expect("remove the configuration");
    let output = runtime.run(&["exec", &container.id, "/bin/true"]);
    check(&output, 255, &format!("container {} has ended", container.id));
}
