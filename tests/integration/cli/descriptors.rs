//! Descriptors: --preserve-fds, LISTEN_FDS, the sockets for terminals and pidfds, and what must not be inherited.

use serde_json::json;

use super::{running, waiting};
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, Output, Runtime, needs_root, skip};

/// Lists what descriptors 3 to 9 are.
const LIST: &str = "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n $(readlink /proc/$$/fd/$n); done; env | grep ^LISTEN; true";

/// `run` of a payload that lists its descriptors, called by a shell that opens 3, 4 and 5.
fn list(flags: &[&str], before: &str) -> Output {
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell(LIST));
    let container = Container::new(&runtime, &bundle);
    let script = format!("exec 3</etc/passwd 4</etc/group 5</etc/hosts; {before} exec \"$@\"");
    let mut output = container.background("run", flags).through_shell(&script).run().ok();
    output.stdout = container.stdout();
    output
}

#[test]
fn nothing_is_preserved_by_default() {
    needs_root!();
    assert_eq!(list(&[], "").stdout, "");
}

#[test]
fn preserve_fds_passes_the_first_ones() {
    needs_root!();
    assert_eq!(list(&["--preserve-fds", "2"], "").stdout, "3 /etc/passwd\n4 /etc/group\n");
}

#[test]
fn listen_fds_count_when_they_are_for_this_process() {
    needs_root!();
    let output = list(&[], "export LISTEN_FDS=1 LISTEN_PID=$$;").stdout;
    assert!(
        output.starts_with("3 /etc/passwd\nLISTEN_")
            && output.contains("LISTEN_FDS=1\n")
            && output.contains("LISTEN_PID=1\n"),
        "{output}"
    );
}

#[test]
fn listen_fds_of_another_process_are_ignored() {
    needs_root!();
    assert_eq!(list(&[], "export LISTEN_FDS=1 LISTEN_PID=1;").stdout, "");
}

/// runc counts --preserve-fds after LISTEN_FDS.
#[test]
fn preserve_fds_come_after_listen_fds() {
    needs_root!();
    let output = list(&["--preserve-fds", "1"], "export LISTEN_FDS=1 LISTEN_PID=$$;").stdout;
    assert!(output.starts_with("3 /etc/passwd\n4 /etc/group\nLISTEN_"), "{output}");
}

#[test]
fn preserving_a_closed_descriptor_is_an_error() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell(LIST));
    let container = Container::new(&runtime, &bundle);
    assert_eq!(container.run(&["--preserve-fds", "5"]).code, 1);
}

#[test]
fn console_socket_gets_the_terminal() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("tty; stty size; read line; echo got $line"));
    bundle.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({ "height": 21, "width": 42 }));
    let socket = FdSocket::listen(bundle.path(), "console.sock");
    let container = Container::new(&runtime, &bundle);
    container.create_with(&["--console-socket", &socket.path()]).ok();
    let (master, name) = socket.receive().expect("a terminal");
    let terminal = Terminal::of(master);
    assert!(name.contains("pts") || name.contains("ptmx"), "{name}");
    container.start().ok();
    terminal.wait_for("21 42");
    terminal.send("hello\n");
    terminal.wait_for("got hello");
    assert_eq!(container.wait_exit(), Some(0));
}

#[test]
fn pidfd_socket_gets_the_pidfd() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let socket = FdSocket::listen(bundle.path(), "pidfd.sock");
    let container = Container::new(&runtime, &bundle);
    container.create_with(&["--pidfd-socket", &socket.path()]).ok();
    let (pidfd, _) = socket.receive().expect("a pidfd");
    let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("fdinfo");
    assert!(info.contains(&format!("Pid:\t{}\n", container.pid())), "{info}");
    let socket = FdSocket::listen(bundle.path(), "exec.sock");
    container.start().ok();
    assert_eq!(container.exec(&["--pidfd-socket", &socket.path()], &["true"]).code, 0);
    assert!(socket.receive().is_some());
}

#[test]
fn exec_preserves_descriptors() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), waiting());
    let container = running(&runtime, &bundle);
    let call = container.exec_call(&["--preserve-fds", "1"], &["sh", "-c", LIST]);
    let output = call.through_shell("exec 3</etc/passwd 4</etc/group; exec \"$@\"").run().ok();
    assert_eq!(output.stdout, "3 /etc/passwd\n");
}

/// The standard streams are the caller's own: what the payload reads and writes goes there directly.
#[test]
fn standard_streams_are_passed_through() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("cat; echo err >&2"));
    let container = Container::new(&runtime, &bundle);
    let output = container.background("run", &[]).input("from stdin\n").run().ok();
    assert_eq!((container.stdout(), output.stderr), ("from stdin\n".to_owned(), "err\n".to_owned()));
}
