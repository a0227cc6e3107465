//! Terminals: by console socket and in the foreground, their size and owner, and that the caller's is restored.

use std::io::Read;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Report, cases};
use crate::support::children::poll_until;
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, Runtime};

const LOOK: &str = "tty; stty size; ls -ln /dev/console | awk '{print $1,$3,$4}'; [ -t 1 ] && [ -t 2 ] && echo all; ps -o tty,pid 2>/dev/null | head -2; echo end";

/// A bundle with a terminal whose payload is a script.
fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.set("/process/terminal", json!(true));
    bundle
}

/// create with a console socket, start, what the payload prints.
fn by_socket(runtime: &Runtime, build: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = bundle(LOOK);
    build(&mut bundle);
    let socket = FdSocket::listen(bundle.path(), "console.sock");
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    if report.step("create", &container.create_with(&["--console-socket", &socket.path()])) {
        let (master, name) = socket.receive().expect("a terminal on the console socket");
        let terminal = Terminal::of(master);
        report.add("name", json!(name));
        report.add("settings", json!(terminal.settings()));
        report.step("start", &container.start());
        report.add("exit", json!(container.wait_exit()));
        terminal.wait_for("end");
        report.add("seen", json!(terminal.settled_text()));
    }
    report.finish(&container)
}

/// A foreground run on a terminal of 33 rows and 77 columns; `act` may type and resize.
fn foreground(runtime: &Runtime, script: &str, act: impl Fn(&Terminal)) -> Value {
    let bundle = bundle(script);
    let terminal = Terminal::open(33, 77);
    let before = terminal.settings();
    let container = Container::new(runtime, &bundle);
    let call = container.background("run", &[]).through(&["setsid", "--ctty"]);
    let running = call.stdin(terminal.slave()).stdout(terminal.slave()).stderr(terminal.slave()).start();
    act(&terminal);
    let mut report = Report::default();
    report.step("run", &running.wait());
    report.add("seen", json!(terminal.settled_text()));
    report.add("restored", json!(before == terminal.settings()));
    report.finish(&container)
}

/// A foreground run whose output nobody reads any more.
fn unread(runtime: &Runtime, script: &str) -> Value {
    let bundle = bundle(script);
    let terminal = Terminal::open(24, 80);
    let container = Container::new(runtime, &bundle);
    let call = container.background("run", &[]).through(&["setsid", "--ctty"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let running = call.stdin(terminal.slave()).stdout(writer).stderr(terminal.slave()).start();
    let mut report = Report::default();
    report.step("run", &running.wait());
    report.finish(&container)
}

/// A foreground run that gets SIGTERM while nobody reads what it prints, and somebody does again.
fn signalled_while_unread(runtime: &Runtime) -> Value {
    let bundle = bundle("trap 'exit 9' TERM; yes & wait");
    let terminal = Terminal::open(24, 80);
    let container = Container::new(runtime, &bundle);
    let call = container.background("run", &[]).through(&["setsid", "--ctty"]);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let running = call.stdin(terminal.slave()).stdout(writer).stderr(terminal.slave()).start();
    reader.read_exact(&mut [0; 65536]).expect("read a pipe");
    // By then the pipe is full again.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_raw(running.pid()).expect("a process"), Signal::TERM).expect("kill");
    let stopped = poll_until(Duration::from_secs(5), || (container.status() != "running").then_some(()));
    let mut report = Report::default();
    report.add("stopped", json!(stopped.is_some()));
    let rest = std::io::read_to_string(reader).expect("read a pipe");
    report.add("whole", json!(rest.bytes().all(|byte| b"y\r\n".contains(&byte))));
    report.step("run", &running.wait());
    report.finish(&container)
}

cases! {
    "terminal";
    flow foreground_signalled_while_unread => signalled_while_unread;
    flow foreground_without_a_reader => |r| unread(r, "echo a; sleep 0.3; echo b; sleep 0.1; exit 7");
    flow socket => |r| by_socket(r, |_| {});
    flow socket_with_size => |r| by_socket(r, |b| { b.set("/process/consoleSize", json!({ "height": 40, "width": 100 })); });
    flow socket_as_user => |r| by_socket(r, |b| { b.set("/process/user", json!({ "uid": 1000, "gid": 1000 })); });
    flow socket_in_user_namespace => |r| by_socket(r, |b| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        b.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    });
    flow socket_missing => |r| {
        let bundle = bundle(LOOK);
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("create", &container.create());
        report.finish(&container)
    };
    flow socket_without_terminal => |r| {
        let bundle = Bundle::shell(LOOK);
        let socket = FdSocket::listen(bundle.path(), "console.sock");
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("create", &container.create_with(&["--console-socket", &socket.path()]));
        report.finish(&container)
    };
    flow socket_nobody_listens => |r| {
        let bundle = bundle(LOOK);
        let container = Container::new(r, &bundle);
        let mut report = Report::default();
        report.step("create", &container.create_with(&["--console-socket", "/nope/console.sock"]));
        report.finish(&container)
    };
    flow foreground_size => |r| foreground(r, "sleep 0.3; stty size; echo end", |t| t.wait_for("end"));
    flow foreground_exit_code => |r| foreground(r, "echo end; exit 12", |_| {});
    // Between the two nobody has the terminal open.
    flow foreground_opened_again => |r| foreground(
        r,
        "T=$(tty); exec <&- >/dev/null 2>&1; sleep 0.3; exec <$T >$T 2>&1; yes 0123456789 | head -c 100000; echo ready; read x; echo got $x; exit 3",
        |t| { t.wait_for("ready"); t.send("typed\n"); },
    );
    flow foreground_typing => |r| foreground(r, "read line; echo got $line; echo end", |t| t.send("hello\n"));
    flow foreground_interrupt => |r| foreground(r, "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.05; done", |t| {
        t.wait_for("up");
        t.send("\u{3}");
    });
    flow foreground_end_of_file => |r| foreground(r, "echo up; cat; echo end", |t| { t.wait_for("up"); t.send("\u{4}"); });
    flow foreground_resize => |r| foreground(r, "sleep 0.5; trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done", |t| {
        t.wait_for("up");
        t.resize(44, 99);
    });
    flow without_terminal => |r| super::foreground(r, &bundle(LOOK), &[]);
}
