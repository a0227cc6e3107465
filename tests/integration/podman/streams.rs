//! What goes in and out of a container beside a terminal: attach, logs, exec's stdin, cp; as root and as an ordinary user.

use std::fs;

use super::{Named, everyone};
use crate::support::runtime::read_lossy;

#[test]
fn attach() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.start(&["--interactive"], "echo up; read line; echo \"<$line>\"; echo err >&2; exit 6");
        let output = container.call(&["attach"], &[]).input("typed\n").run();
        assert!(output.stdout.starts_with("<typed>\n") && output.stderr == "err\n", "{output:?}");
        assert_eq!(container.podman(&["wait"], &[]).ok().stdout, "6\n");
    }
}

#[test]
fn start_again_attached() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        let run = container.run(&["--interactive"], &["sh", "-c", "cat; exit 5"]);
        assert_eq!((run.code, &*run.stdout), (5, ""), "{run:?}");
        let again = container.call(&["start", "--attach", "--interactive"], &[]).input("typed\n").run();
        assert_eq!((again.code, &*again.stdout), (5, "typed\n"), "{again:?}");
    }
}

#[test]
fn logs() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.start(&[], "echo up; echo err >&2; until test -e /tmp/go; do sleep 0.05; done; echo last");
        let following = container.call(&["logs", "--follow"], &[]).start();
        // The container's end may take this along, once it has done its work.
        container.podman(&["exec"], &["touch", "/tmp/go"]);
        let output = following.wait().ok();
        assert_eq!((&*output.stdout, &*output.stderr), ("up\nlast\n", "err\n"));
        assert_eq!(container.podman(&["logs", "--tail", "1"], &[]).ok().stdout, "last\n");
        let stamped = container.podman(&["logs", "--timestamps"], &[]).ok().stdout;
        assert!(stamped.lines().all(|line| line.starts_with("20")) && stamped.ends_with(" last\n"), "{stamped}");
    }
}

#[test]
fn stdin_of_exec() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.start(&[], "echo up; exec sleep 600");
        let output = container.call(&["exec", "--interactive"], &["sh", "-c", "cat; echo err >&2; exit 4"]);
        let output = output.input("typed\n").run();
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (4, "typed\n", "err\n"));
        assert_eq!(container.podman(&["exec"], &["cat"]).ok().stdout, "");
    }
}

#[test]
fn cp() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container
            .start(&["--volume", "/unnamed"], "echo up; mkdir /tmp/made; echo made > /tmp/made/file; exec sleep 600");
        let given = host.dir().join("user/home/given");
        fs::write(&given, "given\n").expect("write a file");
        let (at, taken) = (format!("{}:", container.name), host.dir().join(format!("user/home/taken-{who:?}")));
        let (given, taken_text) = (given.display().to_string(), taken.display().to_string());
        let cp = |from: &str, to: &str| host.call_as(who, &["cp", from, to]).run().ok();
        cp(&given, &format!("{at}/tmp/given"));
        cp(&given, &format!("{at}/unnamed/given"));
        assert_eq!(container.podman(&["exec"], &["cat", "/tmp/given", "/unnamed/given"]).ok().stdout, "given\ngiven\n");
        cp(&format!("{at}/tmp/made"), &taken_text);
        assert_eq!(read_lossy(&taken.join("file")), "made\n");
        container.podman(&["stop", "--time", "0"], &[]).ok();
        cp(&format!("{at}/tmp/made/file"), &format!("{taken_text}/again"));
        assert_eq!(read_lossy(&taken.join("again")), "made\n");
    }
}

#[test]
fn top() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.start(&[], "sleep 601 & echo up; exec sleep 600");
        let top = container.podman(&["top"], &["pid", "user", "args"]).ok().stdout;
        assert!(top.contains("sleep 600") && top.contains("sleep 601") && top.contains("root"), "{top}");
    }
}
