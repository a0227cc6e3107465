//! The bundles of contrib/bundles run as their README says: as they are for root, in their rootless form otherwise.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use crate::support::children::poll_until;
use crate::support::runtime::{engine, next_number, read_lossy};
use crate::support::terminal::Terminal;
use crate::support::{Bundle, Container, Output, Runtime, is_root, needs_root, skip};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/bundles")
}

/// The directory of a bundle that is ready to run.
fn bundle(runtime: &Runtime, name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| script(&["build"]));
    if is_root() {
        return directory().join(name);
    }
    let rootless = runtime.scratch().join(name);
    script(&["rootless", name, &rootless.display().to_string()]);
    rootless
}

#[track_caller]
fn script(words: &[&str]) {
    let output = Command::new(directory().join(words[0])).args(&words[1..]).output().expect("run a script");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn id(name: &str) -> String {
    format!("bundle-{name}-{}-{}", std::process::id(), next_number())
}

/// `run` of a bundle until its end.
fn run(runtime: &Runtime, name: &str, flags: &[&str]) -> Output {
    let path = bundle(runtime, name).display().to_string();
    runtime.run(&[&["run", "--bundle", &path], flags, &[&*id(name)]].concat())
}

/// Whether this rtx has an engine; the bundles that name one are nothing for another one that was asked for.
fn has_engine(runtime: &Runtime, name: &str) -> bool {
    let listed = runtime.run(&["engine", "list"]).stdout;
    engine().is_none() && listed.lines().any(|line| line.split_whitespace().next() == Some(name))
}

/// A container that a failing test would leave behind.
struct Running<'a> {
    runtime: &'a Runtime,
    id: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.runtime.run(&["delete", "--force", &self.id]);
    }
}

#[test]
fn hello_greets() {
    let runtime = Runtime::under_test();
    let output = run(&runtime, "hello", &[]).ok();
    assert!(output.stdout.starts_with("Hello from container hello!\nprocess 1 of 1, user 0, kernel "), "{output:?}");
    assert_eq!(output.stderr, "");
}

#[test]
fn shell_is_interactive() {
    let runtime = Runtime::under_test();
    let path = bundle(&runtime, "shell").display().to_string();
    let terminal = Terminal::open(24, 80);
    let container = Running { runtime: &runtime, id: id("shell") };
    let call = runtime.invoke(&["run", "--bundle", &path, &container.id]).through(&["setsid", "--ctty"]);
    let running = call.stdin(terminal.slave()).stdout(terminal.slave()).stderr(terminal.slave()).start();
    terminal.wait_for("shell:/# ");
    terminal.send("tty; touch /no; touch /tmp/yes && echo $((40 + 2)); exit 5\n");
    terminal.wait_for("42");
    assert_eq!(running.wait().code, 5);
    let seen = terminal.settled_text();
    assert!(seen.contains("/dev/pts/0") && seen.contains("Read-only file system"), "{seen}");
}

#[test]
fn service_stops_when_it_is_told_to() {
    let runtime = Runtime::under_test();
    let path = bundle(&runtime, "service").display().to_string();
    let log = directory().join("service/data/log");
    if let Err(error) = std::fs::File::options().create(true).append(true).open(&log) {
        skip!("{} cannot be written to: {error}", log.display());
    }
    let container = Running { runtime: &runtime, id: id("service") };
    let before = read_lossy(&log).len();
    let running = runtime.invoke(&["run", "--bundle", &path, &container.id]).start();
    let up = || read_lossy(&log).get(before..).is_some_and(|new| new.contains("beat 1\n")).then_some(());
    poll_until(Duration::from_secs(15), up).expect("the service's first beat");
    runtime.run(&["kill", &container.id, "TERM"]).ok();
    let output = running.wait().ok();
    assert!(output.stdout.contains("service started as process ") && output.stdout.contains("\nstopping after "));
    assert!(read_lossy(&log).ends_with("beats\n"));
}

#[test]
fn limits_are_seen_from_inside() {
    needs_root!();
    let runtime = Runtime::under_test();
    let output = run(&runtime, "limits", &[]).ok();
    let line =
        |name: &str| output.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    assert!(line("memory limit: ").starts_with("33554432 "), "{output:?}");
    assert!(line("cpu quota: ").starts_with("50000 "), "{output:?}");
    assert!(line("pids limit: ").starts_with("20 "), "{output:?}");
    let started: u32 = line("started ").split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    assert!((10..20).contains(&started), "{output:?}");
}

#[test]
fn userns_maps_ids() {
    needs_root!();
    let runtime = Runtime::under_test();
    let path = bundle(&runtime, "userns");
    let is_open = |directory: &Path| directory.metadata().is_ok_and(|found| found.permissions().mode() & 1 == 1);
    if let Some(closed) = path.ancestors().find(|directory| !is_open(directory)) {
        skip!("{} is closed to the ids that the bundle maps", closed.display());
    }
    let output = run(&runtime, "userns", &[]).ok();
    let expected = "user 0, group 0 in here\nuids 0 to 65535 are 100000 to 165535 outside\n\
                    gids 0 to 65535 are 100000 to 165535 outside\n";
    assert_eq!(output.stdout, expected);
}

#[test]
fn seccomp_surprises_nobody() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        skip!("the profile is for x86");
    }
    let runtime = Runtime::under_test();
    let output = run(&runtime, "seccomp", &[]);
    // The payload itself exits 1 if a call was allowed or denied against its expectation.
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("Seccomp:\t2\n") && output.stdout.contains("unshare -U true: denied\n"));
}

#[test]
fn native_needs_agreement() {
    let runtime = Runtime::under_test();
    if !has_engine(&runtime, "native") {
        skip!("there is no engine native");
    }
    run(&runtime, "native", &[]).fails(1, "--allow-unconfined");
    let output = run(&runtime, "native", &["--allow-unconfined"]).ok();
    assert!(output.stdout.starts_with("Hello from process ") && output.stdout.ends_with("\n512\n"), "{output:?}");
}

#[test]
fn mock_does_as_its_annotations_say() {
    let runtime = Runtime::under_test();
    if !has_engine(&runtime, "mock") {
        skip!("there is no engine mock");
    }
    let output = run(&runtime, "mock", &[]);
    assert_eq!((output.code, &*output.stdout), (7, "Hello from a process that never was.\n"), "{}", output.stderr);
}

/// What is pretended to fail does not keep a container there for good.
#[test]
fn mock_that_cannot_be_deleted_is_deleted_by_force() {
    let runtime = Runtime::under_test();
    if !has_engine(&runtime, "mock") {
        skip!("there is no engine mock");
    }
    let (runtime, mut bundle) = (runtime.with_flags(&["--engine", "mock"]), Bundle::new());
    bundle.set("/annotations", json!({ "org.rtx.mock.fail": "delete" }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    assert_eq!(container.delete(&[]).code, 1);
    container.delete(&["--force"]).ok();
    assert_eq!(container.state(), None);
}
