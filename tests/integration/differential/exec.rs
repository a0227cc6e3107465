//! exec: each flag, and what a process that joins a running container has in common with it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Report, cases, payload_report};
use crate::support::children::{shell_code, wait_orphan};
use crate::support::runtime::read_lossy;
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, Runtime};

/// Starts a container that `build` may change, and lets `act` run in it.
fn inside(runtime: &Runtime, build: impl Fn(&mut Bundle), act: impl Fn(&Container, &mut Report)) -> Value {
    let mut bundle = Bundle::new();
    let probe = bundle.spec["process"]["args"].clone();
    bundle.shell_payload("echo up; exec sleep 600");
    build(&mut bundle);
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.add("#probe", probe);
    if report.step("run", &container.run_detached(&[])) {
        container.wait_stdout("up");
        act(&container, &mut report);
    }
    report.finish(&container)
}

/// Runs the probe by exec with `flags`.
fn probe_with(runtime: &Runtime, build: impl Fn(&mut Bundle), flags: &[&str]) -> Value {
    command(runtime, build, flags, &["/bin/probe"])
}

fn command(runtime: &Runtime, build: impl Fn(&mut Bundle), flags: &[&str], words: &[&str]) -> Value {
    inside(runtime, build, |container, report| {
        let output = container.exec(flags, words);
        report.step("exec", &output);
        report.add("seen", payload_report(&output.stdout));
    })
}

/// Runs exec with a `--process` file.
fn process_file(runtime: &Runtime, process: Value) -> Value {
    process_file_in(runtime, nothing, process)
}

fn process_file_in(runtime: &Runtime, build: impl Fn(&mut Bundle), process: Value) -> Value {
    inside(runtime, build, |container, report| {
        let path = container.bundle.make_file("process.json", &process.to_string());
        let output = container.exec(&["--process", &path.display().to_string()], &[]);
        report.step("exec", &output);
        report.add("seen", payload_report(&output.stdout));
    })
}

/// Runs a program of the working directory by its name, with this PATH.
fn program_of_directory(runtime: &Runtime, path: &str) -> Value {
    let build = |b: &mut Bundle| drop(b.make_script("rootfs/home/planted", "echo planted"));
    command(runtime, build, &["--cwd", "/home", "--env", &format!("PATH={path}")], &["planted"])
}

/// Waits for a process of `exec --detach`: a zombie would keep the container's init from ending.
fn reap(pid_file: &Path) -> Option<i32> {
    let pid = read_lossy(pid_file).trim().parse().ok()?;
    wait_orphan(pid, Duration::from_secs(10)).map(shell_code)
}

/// exec in the background, with what the process prints and its exit code.
fn detached(runtime: &Runtime, script: &str) -> Value {
    inside(
        runtime,
        |_| {},
        |container, report| {
            let pid_file = container.bundle.host("exec.pid");
            let flags = ["--detach", "--pid-file", &pid_file.display().to_string()];
            let output = container.exec(&flags, &["sh", "-c", script]);
            report.step("exec", &output);
            report.add("exit", json!(reap(&pid_file)));
            report.add("seen", json!(read_lossy(&output.stdout_file)));
        },
    )
}

fn user_namespace(b: &mut Bundle) {
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    b.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
}

fn nothing(_: &mut Bundle) {}

cases! {
    "exec";
    flow plain => |r| probe_with(r, nothing, &[]);
    flow cwd => |r| probe_with(r, nothing, &["--cwd", "/home"]);
    flow cwd_missing => |r| probe_with(r, nothing, &["--cwd", "/nope"]);
    flow cwd_of_container => |r| probe_with(r, |b| { b.set("/process/cwd", json!("/home")); }, &[]);
    flow env => |r| probe_with(r, nothing, &["--env", "A=1", "--env", "B=2", "--env", "A=3"]);
    flow user => |r| probe_with(r, nothing, &["--user", "1000"]);
    flow user_and_group => |r| probe_with(r, nothing, &["-u", "1000:1001"]);
    flow user_by_name => |r| probe_with(r, nothing, &["--user", "plain"]);
    flow additional_groups => |r| probe_with(r, nothing, &["--additional-gids", "5", "--additional-gids", "1001"]);
    flow user_of_container => |r| probe_with(r, |b| { b.set("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [5] })); }, &[]);
    flow root_in_container_of_user => |r| probe_with(r, |b| { b.set("/process/user", json!({ "uid": 1000, "gid": 1000 })); }, &["--user", "0"]);
    flow capability => |r| probe_with(r, nothing, &["--cap", "CAP_NET_RAW"]);
    flow two_capabilities_for_user => |r| probe_with(r, nothing, &["-c", "CAP_NET_RAW", "-c", "CAP_CHOWN", "-u", "1000"]);
    flow capability_unknown => |r| probe_with(r, nothing, &["--cap", "CAP_NOSUCH"]);
    flow no_new_privs => |r| probe_with(r, |b| { b.set("/process/noNewPrivileges", json!(false)); }, &["--no-new-privs"]);
    flow no_new_privs_taken_back => |r| probe_with(r, |b| { b.set("/process/noNewPrivileges", json!(true)); }, &["--no-new-privs=false"]);
    flow no_new_privs_of_container => |r| probe_with(r, |b| { b.set("/process/noNewPrivileges", json!(false)); }, &[]);
    flow umask_of_container => |r| probe_with(r, |b| { b.set("/process/user/umask", json!(0o077)); }, &[]);
    flow rlimits_of_container => |r| probe_with(r, |b| { b.set("/process/rlimits/0/soft", json!(77)); }, &[]);
    flow oom_score_of_container => |r| probe_with(r, |b| { b.set("/process/oomScoreAdj", json!(300)); }, &[]);
    flow seccomp_of_container => |r| command(r, |b| {
        b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] }));
    }, &[], &["sh", "-c", "grep Seccomp /proc/self/status; mkdir /dev/shm/x 2>&1"]);
    flow in_user_namespace => |r| probe_with(r, user_namespace, &[]);
    flow in_cgroup_namespace => |r| probe_with(r, |b| { b.namespace("cgroup", ""); }, &[]);
    flow in_host_pid_namespace => |r| probe_with(r, |b| { b.without_namespace("pid"); }, &[]);
    flow arguments => |r| probe_with(r, nothing, &["--"]);
    flow arguments_like_flags => |r| command(r, nothing, &[], &["/bin/echo", "-n", "--env", "A=b"]);
    flow missing_program => |r| command(r, nothing, &[], &["/nope"]);
    flow missing_program_in_path => |r| command(r, nothing, &[], &["nope"]);
    flow directory => |r| command(r, nothing, &[], &["/etc"]);
    flow not_executable => |r| command(r, nothing, &[], &["/etc/passwd"]);
    flow exit_code => |r| command(r, nothing, &[], &["sh", "-c", "exit 42"]);
    flow exit_by_signal => |r| command(r, nothing, &[], &["sh", "-c", "kill -9 $$"]);
    flow cgroup_is_the_containers => |r| command(r, nothing, &[], &["cat", "/proc/self/cgroup"]);
    flow sees_the_others => |r| command(r, nothing, &[], &["sh", "-c", "read -r name < /proc/1/comm; set -- /proc/[0-9]*; echo $name $#"]);
    flow descriptors => |r| command(r, nothing, &[], &["sh", "-c", "ls /proc/self/fd"]);
    flow in_sub_cgroup_of_unknown_controller => |r| command(r, nothing, &["--cgroup", "nosuch:/"], &["true"]);
    flow in_sub_cgroup_of_one_unknown_controller => |r| command(r, nothing, &["--cgroup", "pids,nosuch:/"], &["true"]);
    flow in_sub_cgroup_missing => |r| command(r, nothing, &["--cgroup", "pids:nosuch"], &["true"]);
    flow process_label => |r| command(r, nothing, &["--process-label", "system_u:system_r:svirt_t:s0"], &["true"]);
    flow detached_exits => |r| detached(r, "echo hello; exit 5");
    flow detached_killed => |r| detached(r, "kill -15 $$");
    flow process_file_small => |r| process_file(r, json!({ "args": ["/bin/probe"], "cwd": "/", "user": { "uid": 0, "gid": 0 } }));
    flow process_file_whole => |r| process_file(r, json!({
        "args": ["/bin/probe", "x"], "cwd": "/home", "env": ["PATH=/bin", "A=b"], "noNewPrivileges": true, "oomScoreAdj": 200,
        "user": { "uid": 1000, "gid": 1001, "additionalGids": [5], "umask": 63 },
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 60, "hard": 60 }],
    }));
    flow process_file_with_scores_and_limits_of_container => |r| process_file_in(r, |b| {
        b.set("/process/oomScoreAdj", json!(321)).set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]));
    }, json!({ "args": ["/bin/probe"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } }));
    flow path_is_empty => |r| program_of_directory(r, "");
    flow path_with_empty_element => |r| program_of_directory(r, "/bin:");
    flow path_with_dot => |r| program_of_directory(r, ".:/bin");
    flow path_with_dot_of_no_use => |r| command(r, nothing, &["--cwd", "/home", "--env", "PATH=.:/bin"], &["true"]);
    flow listen_fds_of_caller => |r| inside(r, nothing, |container, report| {
        let words = ["/bin/sh", "-c", "env | grep LISTEN; ls /proc/self/fd/3 2>&1 | grep -c passwd; true"];
        let call = container.exec_call(&[], &words);
        let output = call.through_shell("exec 3</etc/passwd; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"").run();
        report.step("exec", &output);
        report.add("seen", json!(output.stdout));
    });
    flow process_file_without_args => |r| process_file(r, json!({ "cwd": "/" }));
    flow process_file_relative_cwd => |r| process_file(r, json!({ "args": ["true"], "cwd": "x" }));
    flow preserve_fds => |r| inside(r, nothing, |container, report| {
        let call = container.exec_call(&["--preserve-fds", "2"], &["/bin/probe"]);
        let output = call.through_shell("exec 3</etc/hostname 4</etc/hostname 5</etc/hostname; exec \"$@\"").run();
        report.step("exec", &output);
        report.add("seen", payload_report(&output.stdout)["fds"].clone());
    });
    flow terminal_by_socket => |r| inside(r, nothing, |container, report| {
        let socket = FdSocket::listen(container.bundle.path(), "console.sock");
        let pid_file = container.bundle.host("exec.pid");
        let flags = ["--tty", "--detach", "--pid-file", &pid_file.display().to_string(), "--console-socket", &socket.path()];
        let output = container.exec(&flags, &["/bin/sh", "-c", "tty; stty size; readlink /proc/self/fd/0; echo end"]);
        if report.step("exec", &output) {
            let (master, name) = socket.receive().expect("a terminal on the console socket");
            let terminal = Terminal::of(master);
            terminal.wait_for("end");
            report.add("name", json!(name));
            report.add("exit", json!(reap(&pid_file)));
            report.add("seen", json!(terminal.settled_text()));
        }
    });
    // runc changes the modes of the terminal while the program runs already.
    flow terminal_in_foreground => |r| inside(r, nothing, |container, report| {
        let terminal = Terminal::open(33, 77);
        let call = container.exec_call(&["-t"], &["/bin/sh", "-c", "sleep 0.5; tty; stty size; echo end; exit 9"]);
        let output = call.through(&["setsid", "--ctty"]).stdin(terminal.slave()).stdout(terminal.slave()).stderr(terminal.slave()).run();
        report.step("exec", &output);
        terminal.wait_for("end");
        report.add("seen", json!(terminal.settled_text()));
    });
}
