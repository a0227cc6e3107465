//! Containers as services: health, restarts, readiness, saving; as root and as an ordinary user.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::host::{Host, Who};
use super::{Named, PATIENCE, everyone, podman};
use crate::support::children::poll_until;
use crate::support::payload;
use crate::support::runtime::next_number;

/// podman leaves the timer to systemd; the check itself is an `exec`.
#[test]
fn healthcheck() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        let flags = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "disable", "--health-retries", "1"];
        container.start(&flags, "echo up; exec sleep 600");
        let check = || host.call_as(who, &["healthcheck", "run", &container.name]).run();
        assert_eq!(check().code, 1);
        assert_eq!(container.inspect(".State.Health.Status"), "unhealthy");
        container.podman(&["exec"], &["touch", "/tmp/ok"]).ok();
        assert_eq!(check().code, 0);
        assert_eq!(container.inspect(".State.Health.Status"), "healthy");
    }
}

/// conmon's exit command is podman again, which creates the container anew.
#[test]
fn restart() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.run(&["--detach", "--restart", "on-failure:2"], &["sh", "-c", "echo x; exit 3"]).ok();
        let seen = || {
            let logs = container.podman(&["logs"], &[]).stdout;
            (logs == "x\nx\nx\n" && container.inspect(".State.Status") == "exited").then_some(())
        };
        assert!(poll_until(PATIENCE, seen).is_some(), "{:?}", container.podman(&["logs"], &[]));
        assert_eq!(container.inspect(".State.ExitCode"), "3");

        let container = Named::of(host, who);
        container.run(&["--detach", "--restart", "always"], &["sh", "-c", "echo x; sleep 0.2"]).ok();
        let seen = || (container.podman(&["logs"], &[]).stdout.lines().count() >= 3).then_some(());
        assert!(poll_until(PATIENCE, seen).is_some());
        // podman cannot remove what its own exit command has stopped, or starts again, meanwhile.
        let remove = || (container.podman(&["rm", "--force", "--time", "0"], &[]).code == 0).then_some(());
        assert!(poll_until(PATIENCE, remove).is_some(), "{:?}", container.podman(&["rm", "--force"], &[]));
    }
}

/// A socket as a service manager's.
fn manager(host: &Host) -> (UnixDatagram, PathBuf) {
    let path = host.dir().join(format!("notify-{}", next_number()));
    let socket = UnixDatagram::bind(&path).expect("bind a socket");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("chmod a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("limit the wait");
    (socket, path)
}

/// What comes until a message says READY=1.
#[track_caller]
fn until_ready(socket: &UnixDatagram) -> String {
    let mut all = String::new();
    while !all.contains("READY=1") {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("not ready ({e}), only {all:?}"));
        all += &String::from_utf8_lossy(&buffer[..length]);
        all.push('\n');
    }
    all
}

/// conmon is ready when the container runs; with `container` it is the program that says so, through the runtime.
#[test]
fn sdnotify() {
    for (host, who) in everyone!() {
        for (mode, script) in [
            ("conmon", "echo up; exec sleep 600"),
            ("container", "echo up; probe --notify READY=1; exec sleep 600"),
            ("ignore", "echo up; test -z \"$NOTIFY_SOCKET\" || exit 1; exec sleep 600"),
        ] {
            let (socket, path) = manager(host);
            let container = Named::of(host, who);
            let probe = format!("{}:/bin/probe:ro", payload::probe().display());
            let flags = ["--detach", "--sdnotify", mode, "--volume", &probe];
            let call = container.run_call(&flags, &["sh", "-c", script]);
            let output = call.env("NOTIFY_SOCKET", &path.display().to_string()).run();
            assert_eq!(output.code, 0, "{who:?} {mode}: {output:?}");
            if mode != "ignore" {
                let text = until_ready(&socket);
                assert!(mode == "container" || text.contains("MAINPID="), "{who:?} {mode}: {text:?}");
            }
            container.wait_logs("up");
            assert_eq!(container.inspect(".State.Status"), "running", "{who:?} {mode}");
        }
    }
}

/// Where CRIU cannot work, the failure is CRIU's, is told, and leaves the container running.
#[test]
fn checkpoint_and_restore() {
    let host = podman!();
    let container = Named::of(host, Who::Root);
    container.start(&["--security-opt", "seccomp=unconfined"], "echo up; while :; do sleep 0.1; done");
    let saved = container.podman(&["container", "checkpoint"], &[]);
    if saved.code != 0 {
        assert_eq!(saved.code, 125, "{saved:?}");
        assert!(saved.stderr.to_lowercase().contains("criu"), "{saved:?}");
        assert_eq!(container.inspect(".State.Status"), "running");
        assert_eq!(container.podman(&["exec"], &["echo", "alive"]).ok().stdout, "alive\n");
        return;
    }
    assert_eq!(container.inspect(".State.Status"), "exited");
    container.podman(&["container", "restore"], &[]).ok();
    assert_eq!(container.inspect(".State.Status"), "running");
    assert_eq!(container.podman(&["exec"], &["echo", "alive"]).ok().stdout, "alive\n");
}
