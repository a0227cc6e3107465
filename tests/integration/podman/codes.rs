//! The exit codes that podman makes of rtx's words: 127 for what is not there, 126 for what may not be run, 125 for
//! its own errors (podman-run(1), "Exit Status").

use super::{Named, podman};

#[test]
fn of_run() {
    let host = podman!();
    Named::new(host).run(&[], &["/nope"]).fails(127, "/nope");
    Named::new(host).run(&[], &["nope"]).fails(127, "executable file not found in $PATH");
    Named::new(host).run(&[], &["/etc/passwd"]).fails(126, "permission denied");
    Named::new(host).run(&[], &["/etc"]).fails(126, "permission denied");
    // Anything else that a runtime says is an "OCI runtime error", with 126 too; 125 is podman's own.
    let output = Named::new(host).run(&["--sysctl", "kernel.shm_rmid_forced=x"], &["true"]);
    output.fails(126, "OCI runtime error").fails(126, "kernel/shm_rmid_forced: invalid argument");
    Named::new(host).run(&["--volume", "/nope/nowhere:/data"], &["true"]).fails(125, "/nope/nowhere");
}

#[test]
fn of_exec() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; exec sleep 600");
    container.podman(&["exec"], &["/nope"]).fails(127, "/nope");
    container.podman(&["exec"], &["/etc/passwd"]).fails(126, "permission denied");
    assert_eq!(container.podman(&["exec"], &["sh", "-c", "exit 5"]).code, 5);
    assert_eq!(container.podman(&["exec"], &["sh", "-c", "kill -9 $$"]).code, 137);
    container.podman(&["kill"], &[]).ok();
    container.podman(&["wait"], &[]).ok();
    container.podman(&["exec"], &["true"]).fails(255, "can only create exec sessions on running containers");
}

/// conmon reads the status of its child: init's own, by the exit file and by `wait`.
#[test]
fn through_conmons_exit_file() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&[], "echo up; exit 7");
    assert_eq!(container.podman(&["wait"], &[]).ok().stdout, "7\n");
    assert_eq!(container.inspect(".State.ExitCode"), "7");
    let id = container.inspect(".Id");
    let file = host.dir().join("of-root/tmp/exits").join(&id);
    if file.exists() {
        assert_eq!(crate::support::runtime::read_lossy(&file), "7");
    }
}

/// The error comes whole: podman shows the one JSON object that the runtime wrote to its log.
#[test]
fn with_the_runtimes_own_words() {
    let host = podman!();
    let output = Named::new(host).run(&[], &["/nope"]);
    let words = "exec: \"/nope\": stat /nope: no such file or directory: OCI runtime attempted to invoke a command that was not found";
    let name = host.runtime();
    assert!(output.stderr.starts_with(&format!("Error: {name}: {name} create ")), "{}", output.stderr);
    assert!(output.stderr.contains(words), "{}", output.stderr);
}
