//! create, run --detach and exec --detach: what stays when they return, and what callers wait for.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{running, waiting};
use crate::support::children::{shell_code, stat_field, wait_orphan};
use crate::support::leftover::processes;
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, needs_root, skip};

/// conmon and containerd's shim are subreapers: init becomes their child, and they read its exit status.
#[test]
fn init_becomes_the_subreapers_child() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exit 7"));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let parent = stat_field(container.pid(), 4);
    assert_eq!(parent, Some(std::process::id().to_string()));
    container.start().ok();
    assert_eq!(container.wait_exit(), Some(7));
}

#[test]
fn nothing_but_init_survives_create() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let pids: Vec<i32> = processes(&container.id).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(pids, [container.pid()]);
    container.start().ok();
    container.wait_stdout("up");
    let pids: Vec<i32> = processes(&container.id).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(pids, [container.pid()]);
}

/// containerd reads create's stdout until end-of-file when there is a terminal: nobody may keep the pipe.
#[test]
fn create_with_a_terminal_lets_go_of_its_pipes() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    bundle.set("/process/terminal", json!(true));
    let container = Container::new(&runtime, &bundle);
    let socket = crate::support::terminal::FdSocket::listen(bundle.path(), "c.sock");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let duplicate = writer.try_clone().expect("duplicate a pipe");
    let call = container.background("create", &["--console-socket", &socket.path()]);
    call.stdout(writer).stderr(duplicate).run().ok();
    let start = Instant::now();
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read to the end");
    assert!(start.elapsed() < Duration::from_secs(2), "end-of-file came late");
    assert!(socket.receive().is_some());
}

/// Without a terminal the payload has the pipe, and end-of-file comes when the container ends.
#[test]
fn stdout_ends_with_the_container() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("echo hello; sleep 0.3; echo bye"));
    let container = Container::new(&runtime, &bundle);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    container.background("create", &[]).stdout(writer).run().ok();
    container.start().ok();
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read to the end");
    assert_eq!(text, "hello\nbye\n");
    container.pid();
    assert_eq!(container.wait_exit(), Some(0));
}

#[test]
fn pid_file_is_a_plain_number_and_only_there_on_success() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let text = read_lossy(&container.pid_file());
    assert!(text.parse::<i32>().is_ok(), "{text:?}");
    assert_eq!(container.state().expect("a state")["pid"].to_string(), text);
    drop(container);
    bundle.args(&["/nope"]);
    let failing = Container::new(&runtime, &bundle);
    failing.run_detached(&[]).fails(1, "/nope");
    assert!(!failing.pid_file().exists());
}

#[test]
fn run_detached_returns_at_once() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    assert_eq!(container.wait_exit(), Some(137));
}

#[test]
fn run_keeps_only_when_asked() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exit 3"));
    let container = Container::new(&runtime, &bundle);
    assert_eq!(container.run(&[]).code, 3);
    assert_eq!(container.status(), "");
    assert_eq!(container.run(&["--keep"]).code, 3);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn exec_detached_hands_its_exit_status_over() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let file = runtime.scratch().join("exec.pid");
    container.exec(&["--detach", "--pid-file", &file.display().to_string()], &["sh", "-c", "sleep 0.1; exit 9"]).ok();
    let pid = fs::read_to_string(&file).expect("the pid file").parse().expect("a plain number");
    assert_eq!(stat_field(pid, 4), Some(std::process::id().to_string()));
    assert_eq!(wait_orphan(pid, Duration::from_secs(5)).map(shell_code), Some(9));
}

#[test]
fn exec_that_fails_writes_no_pid_file() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let file = runtime.scratch().join("exec.pid");
    let output = container.exec(&["--detach", "--pid-file", &file.display().to_string()], &["/nope"]);
    output.fails(255, "no such file or directory");
    assert!(!file.exists());
}

/// Slurm's documented form.
#[test]
fn flags_may_follow_the_id() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("echo hello"));
    let container = Container::new(&runtime, &bundle);
    let output = runtime.run(&["run", &container.id, "-b", &bundle.path().display().to_string()]).ok();
    assert_eq!(output.stdout, "hello\n");
}

#[test]
fn bundle_defaults_to_the_working_directory() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("echo hello"));
    let container = Container::new(&runtime, &bundle);
    let output = runtime.invoke(&["run", &container.id]).cwd(bundle.path()).run().ok();
    assert_eq!(output.stdout, "hello\n");
}

/// podman calls kill, pause and delete with nothing but an empty XDG_RUNTIME_DIR.
#[test]
fn an_empty_environment_is_enough() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    for words in
        [["pause", &container.id], ["resume", &container.id], ["kill", &container.id], ["state", &container.id]]
    {
        runtime.invoke(&words).through(&["env", "-i", "XDG_RUNTIME_DIR="]).run().ok();
    }
    container.kill("KILL");
    container.wait_exit();
    let stdio = Stdio::null;
    let call = runtime.invoke(&["delete", &container.id]).through(&["env", "-i", "XDG_RUNTIME_DIR="]);
    call.stdout(stdio()).stderr(stdio()).run().ok();
    assert_eq!(container.status(), "");
}

#[test]
fn ten_thousand_variables() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("env | grep -c ^BIG_"));
    let mut env = vec!["PATH=/bin".to_owned()];
    env.extend((0..10_000).map(|n| format!("BIG_{n}={}", "x".repeat(50))));
    bundle.set("/process/env", json!(env));
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert_eq!(output.stdout, "10000\n");
}

/// conmon leaves the names of its pipes in the environment though the descriptors are gone.
#[test]
fn the_callers_environment_stays_outside() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("env"));
    let seen = bundle.host("hook-env").display().to_string();
    let hook = bundle.make_script("hook", &format!("env > {seen}")).display().to_string();
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": hook }] }));
    let container = Container::new(&runtime, &bundle);
    let call = container.background("run", &[]).env("_OCI_SYNCPIPE", "3").env("_OCI_STARTPIPE", "4").env("SECRET", "x");
    call.run().ok();
    assert!(!container.stdout().contains("_OCI_") && !container.stdout().contains("SECRET"), "{}", container.stdout());
    let hook_env = fs::read_to_string(seen).expect("the hook ran");
    assert!(!hook_env.contains("_OCI_") || !runtime.is_rtx(), "{hook_env}");
}

/// A container that cannot be created leaves nothing, and its id can be used again.
#[test]
fn failing_create_leaves_nothing() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    bundle.mount("/tmp", "nosuchfs", "x", &[]);
    let container = Container::new(&runtime, &bundle);
    assert_eq!(container.create().code, 1);
    let left = crate::support::leftover::of(&container.id, bundle.path(), &runtime.root());
    assert!(left.is_empty(), "{left:?}");
}

/// A create that is killed in the middle leaves what `delete --force` or the next create of that id removes.
#[test]
fn killed_create_can_be_cleaned_up() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), waiting());
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let ready = bundle.host("hook-ready");
    let hook = bundle.make_script("hook", &format!("> {}; exec sleep 5", ready.display())).display().to_string();
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": hook }] }));
    let container = Container::new(&runtime, &bundle);
    let running = container.background("create", &[]).start();
    crate::support::children::poll_until(Duration::from_secs(5), || ready.exists().then_some(()))
        .expect("the hook ran");
    let pid = rustix::process::Pid::from_raw(running.pid()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the runtime");
    assert_eq!(running.wait().code, 137);
    runtime.run(&["delete", "--force", &container.id]).ok();
    // What is left after that is found when the container goes out of scope.
}
