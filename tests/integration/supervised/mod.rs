//! Supervised containers: what is known of them, and what becomes of them when their smaster is killed.

mod ci;
mod death;
mod embedded;
mod events;
mod life;
mod output;
mod refusals;
mod restarts;
mod rootless;
mod socket;

use crate::support::children::{is_alive, poll_until, stat_field};
use crate::support::{Container, Output};
use serde_json::Value;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// What tests ask of a supervised container.
trait Supervised {
    /// `run --detach --supervise` with more flags.
    fn supervise(&self, flags: &[&str]) -> Output;
    fn shown(&self) -> Value;
    fn smaster(&self) -> i32;
    /// `wait`, which returns what it prints.
    fn wait(&self) -> i32;
    fn events(&self, flags: &[&str]) -> Vec<Value>;
    fn kinds(&self) -> Vec<String>;
}

impl Supervised for Container<'_> {
    fn supervise(&self, flags: &[&str]) -> Output {
        self.run_detached(&[&["--supervise"], flags].concat())
    }

    fn shown(&self) -> Value {
        self.state().expect("a state")
    }

    fn smaster(&self) -> i32 {
        self.shown()["supervisor"].as_i64().expect("a smaster") as i32
    }

    #[track_caller]
    fn wait(&self) -> i32 {
        let output = self.runtime.invoke(&["wait", "--timeout", "60s", &self.id]).start().wait_within(2 * LONG);
        assert_eq!(output.stdout.trim().parse(), Ok(output.code), "{output:?}");
        output.code
    }

    #[track_caller]
    fn events(&self, flags: &[&str]) -> Vec<Value> {
        let output = self.runtime.run(&[&["events"], flags, &[&*self.id]].concat()).ok();
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect()
    }

    fn kinds(&self) -> Vec<String> {
        let kind = |event: Value| event["type"].as_str().expect("a type").to_owned();
        self.events(&[]).into_iter().map(kind).collect()
    }
}

/// Waits until a process has ended, or until it is nobody's child.
#[track_caller]
fn wait_gone(pid: i32) {
    let gone = poll_until(LONG, || (!is_alive(pid)).then_some(()));
    assert!(gone.is_some(), "process {pid} is in state {:?}", stat_field(pid, 3));
}
