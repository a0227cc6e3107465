//! The differential suite once more, on the `libcontainer` engine: its differences from runc have a list of their own,
//! `differential/accepted-libcontainer.json`. The engine is chosen for a whole process, so this test starts another one.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::children::wait_child;
use crate::support::runtime::{engine, read_lossy};
use crate::support::{Runtime, needs_root, skip};

/// Several times what it takes on two busy cores.
const TIME_LIMIT: Duration = Duration::from_secs(900);

#[test]
fn libcontainer_differs_only_where_it_is_listed() {
    needs_root!();
    if let Some(name) = engine() {
        skip!("RTX_TEST_ENGINE={name} has chosen the engine");
    }
    let runtime = Runtime::under_test();
    if !runtime.is_rtx()
        || !runtime.run(&["engine", "list"]).ok().stdout.lines().any(|l| l.starts_with("libcontainer "))
    {
        skip!("{} is built without the libcontainer engine", runtime.program.display());
    }
    let log = runtime.scratch().join("differential.log");
    let file = std::fs::File::create(&log).expect("make the log");
    let mut child = Command::new(std::env::current_exe().expect("this program's path"))
        .args(["differential::", "--test-threads=2"])
        .env("RTX_TEST_ENGINE", "libcontainer")
        .stdin(Stdio::null())
        .stdout(file)
        .spawn()
        .expect("start this program again");
    let status = wait_child(&mut child, TIME_LIMIT);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = read_lossy(&log);
    let summary = output.lines().rfind(|l| l.starts_with("test result:")).unwrap_or("no result");
    let _ = writeln!(std::io::stderr(), "libcontainer engine: {summary}");
    assert!(status.is_some_and(|s| s.success()), "{output}");
}
