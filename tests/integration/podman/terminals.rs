//! `run -it` and `exec -it` on a real pseudo terminal: conmon takes the container's from rtx, podman copies and resizes.

use super::{Named, everyone, podman};
use crate::support::runtime::Invocation;
use crate::support::terminal::Terminal;

/// Gives a call the terminal for its streams and as its controlling one, so that a change of size is heard.
fn on(terminal: &Terminal, call: Invocation) -> Invocation {
    let call = call.through(&["setsid", "--ctty", "--wait"]).env("TERM", "dumb");
    call.stdin(terminal.slave()).stdout(terminal.slave()).stderr(terminal.slave())
}

/// What is typed arrives, the size is the terminal's, a change of it too, and the exit code comes back.
fn converse(terminal: &Terminal, call: Invocation) {
    let running = on(terminal, call).start();
    terminal.wait_for("ready");
    terminal.send("hello\n");
    terminal.wait_for("<hello>");
    terminal.wait_for("size 30 100");
    terminal.resize(41, 121);
    terminal.wait_for("now 41 121");
    terminal.send("end\n");
    assert_eq!(running.wait().code, 9, "{}", terminal.text());
}

/// Waits for the first size too: podman sets it shortly after the start.
const SCRIPT: &str = "test -t 0 && test -t 1 && test -t 2 || exit 1
until test \"$(stty size)\" = '30 100'; do sleep 0.05; done
echo ready; read line; echo \"<$line>\"; echo size $(stty size)
until test \"$(stty size)\" = '41 121'; do sleep 0.05; done
echo now $(stty size); read line; exit 9";

#[test]
fn run() {
    for (host, who) in everyone!() {
        let terminal = Terminal::open(30, 100);
        let before = terminal.settings();
        let container = Named::of(host, who);
        converse(&terminal, container.run_call(&["--interactive", "--tty"], &["sh", "-c", SCRIPT]));
        assert_eq!(terminal.settings(), before.replace("rows 30; columns 100", "rows 41; columns 121"));
    }
}

#[test]
fn exec() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        container.start(&[], "echo up; exec sleep 600");
        let terminal = Terminal::open(30, 100);
        converse(&terminal, container.call(&["exec", "--interactive", "--tty"], &["sh", "-c", SCRIPT]));
    }
}

/// A container that was started in the background, left by the key for that, and found again.
#[test]
fn attach() {
    for (host, who) in everyone!() {
        let container = Named::of(host, who);
        let script = "echo up; read line; echo \"<$line>\"; read line; echo \"<$line>\"; read line; exit 9";
        container.start(&["--interactive", "--tty"], script);
        let terminal = Terminal::open(30, 100);
        let attached = on(&terminal, container.call(&["attach", "--detach-keys", "ctrl-q"], &[])).start();
        terminal.send("first\n");
        terminal.wait_for("<first>");
        terminal.send("\x11");
        attached.wait();
        assert_eq!(container.inspect(".State.Status"), "running");
        let terminal = Terminal::open(30, 100);
        let attached = on(&terminal, container.call(&["attach"], &[])).start();
        terminal.send("second\n");
        terminal.wait_for("<second>");
        terminal.send("end\n");
        attached.wait();
        assert_eq!(container.podman(&["wait"], &[]).ok().stdout, "9\n");
    }
}

/// A terminal in the background goes to the log, with the terminal's line ends.
#[test]
fn detached() {
    let host = podman!();
    let container = Named::new(host);
    container.start(&["--tty"], "tty; echo up; exec sleep 600");
    assert_eq!(container.podman(&["logs"], &[]).ok().stdout, "/dev/pts/0\r\nup\r\n");
}
