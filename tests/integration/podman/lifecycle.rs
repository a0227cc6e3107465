//! A container's life: run, logs, exec, stop, kill, pause, rm, and what is a process at each point.

use std::io::Read;
use std::time::Duration;

use super::{IMAGE, Named, PATIENCE, podman};
use crate::support::children::{is_alive, poll_until, stat_field};
use crate::support::leftover::processes;

#[test]
fn run_gives_both_outputs_and_the_code() {
    let host = podman!();
    let output = Named::new(host).run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
}

#[test]
fn run_passes_stdin_on() {
    let host = podman!();
    let call = Named::new(host);
    let output = call.run_call(&["--rm", "--interactive"], &["wc", "-c"]).input("twelve chars").run().ok();
    assert_eq!(output.stdout.trim(), "12");
}

/// Who reads the output of `run --detach` hears its end while the container still runs: nobody else holds the pipe.
#[test]
fn detached_lets_go_of_its_pipes() {
    let host = podman!();
    let container = Named::new(host);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let errors = writer.try_clone().expect("duplicate a pipe");
    let call = container.run_call(&["--detach"], &["sh", "-c", "echo first; echo second >&2; exec sleep 600"]);
    call.stdout(writer).stderr(errors).run().ok();
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read to the end");
    assert_eq!(text.trim(), container.inspect(".Id"));
    container.wait_logs("first");
    assert_eq!(container.inspect(".State.Status"), "running");
    let logs = container.podman(&["logs"], &[]).ok();
    assert_eq!((&*logs.stdout, &*logs.stderr), ("first\n", "second\n"));
}

#[test]
fn exec_runs_beside_the_payload() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; exec sleep 600");
    let words =
        ["sh", "-c", "echo $A $(id -u) $(pwd) $(readlink /proc/1/ns/mnt) $(readlink /proc/self/ns/mnt); exit 4"];
    assert_eq!(container.podman(&["exec", "--user", "plain"], &["id", "-u"]).ok().stdout, "1000\n");
    let output = container.podman(&["exec", "--env", "A=b", "--workdir", "/tmp"], &words);
    let fields: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!((output.code, &fields[..3]), (4, &["b", "0", "/tmp"][..]), "{output:?}");
    assert_eq!(fields[3], fields[4]);
    container.podman(&["exec", "--detach"], &["sh", "-c", "echo > /tmp/done"]).ok();
    let done = || (container.podman(&["exec"], &["test", "-e", "/tmp/done"]).code == 0).then_some(());
    assert!(poll_until(PATIENCE, done).is_some(), "exec --detach did nothing");
}

#[test]
fn stop_lets_the_payload_choose_its_code() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done");
    container.podman(&["stop", "--time", "100"], &[]).ok();
    assert_eq!(container.inspect(".State.ExitCode"), "7");
    container.podman(&["start"], &[]).ok();
    assert_eq!(container.inspect(".State.Status"), "running");
    container.podman(&["stop", "--time", "0"], &[]).ok();
}

#[test]
fn kill_sends_any_signal() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "trap 'echo heard' USR1; echo up; while :; do sleep 0.05; done");
    container.podman(&["kill", "--signal", "USR1"], &[]).ok();
    container.wait_logs("heard");
    container.podman(&["kill"], &[]).ok();
    assert_eq!(container.podman(&["wait"], &[]).ok().stdout, "137\n");
    container.podman(&["kill"], &[]).fails(125, "container state improper");
}

#[test]
fn rm_removes_the_stopped_and_by_force_the_running() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; exec sleep 600");
    let (id, pid) = (container.inspect(".Id"), container.inspect(".State.Pid"));
    container.podman(&["rm"], &[]).fails(2, "as it is running");
    container.podman(&["rm", "--force", "--time", "0"], &[]).ok();
    assert!(!is_alive(pid.parse().expect("a pid")));
    let gone = || processes(&id).is_empty().then_some(());
    assert!(poll_until(PATIENCE, gone).is_some(), "left: {:?}", processes(&id));
    assert!(crate::support::leftover::cgroups(&id).is_empty());
    host.enter(&["test", "!", "-e", &format!("/run/rtx/{id}")]).ok();
    assert_eq!(container.podman(&["container", "exists"], &[]).code, 1);
}

/// conmon takes init for its child. Between create and start nothing else of the runtime is there, and nothing at all after.
#[test]
fn nothing_of_the_runtime_survives_create_but_init() {
    let host = podman!();
    let container = Named::new(host);
    let parent = host.cgroup_parent();
    let args = ["create", "--network", "none", &*parent, "--name", &container.name, IMAGE, "sleep", "600"];
    host.podman(&args).ok();
    container.podman(&["init"], &[]).ok();
    let (id, pid) = (container.inspect(".Id"), container.inspect(".State.Pid"));
    let pid: i32 = pid.parse().expect("a pid");
    let others = || -> Vec<_> {
        let all = processes(&id).into_iter().filter(|(other, _)| *other != pid);
        all.map(|(_, command)| command).filter(|command| !command.contains("conmon ")).collect()
    };
    assert_eq!(others(), Vec::<String>::new());
    let parent: i32 = stat_field(pid, 4).and_then(|parent| parent.parse().ok()).expect("init's parent");
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).expect("the parent's name");
    assert_eq!(comm, "conmon\n");
    container.podman(&["start"], &[]).ok();
    let is_payload =
        || crate::support::runtime::read_lossy(format!("/proc/{pid}/cmdline").as_ref()).starts_with("sleep");
    assert!(poll_until(PATIENCE, || is_payload().then_some(())).is_some());
    assert_eq!(others(), Vec::<String>::new());
}

#[test]
fn pause_stops_every_process() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; while :; do :; done");
    container.podman(&["pause"], &[]).ok();
    assert_eq!(container.inspect(".State.Status"), "paused");
    let pid: i32 = container.inspect(".State.Pid").parse().expect("a pid");
    let used = || (stat_field(pid, 14), stat_field(pid, 15));
    let before = used();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(used(), before, "it used the CPU while it was paused");
    container.podman(&["unpause"], &[]).ok();
    assert_eq!(container.inspect(".State.Status"), "running");
    container.podman(&["exec"], &["true"]).ok();
}

#[test]
fn top_and_stats_see_the_processes() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&["--memory", "64m"], "sleep 601 & echo up; exec sleep 600");
    let top = container.podman(&["top"], &["pid", "args"]).ok().stdout;
    assert!(top.contains("sleep 600") && top.contains("sleep 601"), "{top}");
    let stats = container.podman(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}"], &[]).ok().stdout;
    assert!(stats.starts_with("2 ") && stats.contains("/ 67.11MB"), "{stats}");
}
