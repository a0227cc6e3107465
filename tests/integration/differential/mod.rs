//! The differential suite: the same bundle under another runtime and under the one that is tested, and what the container
//! sees compared field by field. A difference is fixed, or listed with its reason in `accepted.json`
//! (`accepted-libcontainer.json` when `RTX_TEST_ENGINE=libcontainer`). `RTX_TEST_SHOW=1` prints what the peer's side saw.

mod accepted;
mod compare;
mod host;

mod capabilities;
mod cgroups;
mod exec;
mod exits;
mod hooks;
mod idmaps;
mod mounts;
mod namespaces;
mod operations;
mod paths;
mod process;
mod propagation;
mod seccomp;
mod systemd;
mod terminal;

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::support::container::Container;
use crate::support::runtime::{Output, engine};
use crate::support::units::systemd_runs;
use crate::support::{Bundle, Runtime, report_skip, test_name};
use compare::{differences, rename};

/// How many cases there are: when as many have run, the accepted differences that none of them used are reported.
const ALL_CASES: usize = capabilities::CASES
    + cgroups::CASES
    + exec::CASES
    + exits::CASES
    + hooks::CASES
    + idmaps::CASES
    + mounts::CASES
    + namespaces::CASES
    + operations::CASES
    + paths::CASES
    + process::CASES
    + propagation::CASES
    + seccomp::CASES
    + systemd::CASES
    + terminal::CASES;

/// Declares the cases of one area as tests. `probe` cases change a bundle whose payload is the probe; `flow` cases take a
/// runtime through commands of their own and report what they saw.
macro_rules! cases {
    ($area:literal; $($kind:ident $name:ident => $body:expr;)*) => {
        pub const CASES: usize = [$(stringify!($name)),*].len();
        $(
            #[test]
            fn $name() {
                $crate::support::needs_root!();
                $crate::differential::$kind(concat!($area, "/", stringify!($name)), $body);
            }
        )*
    };
}
pub(crate) use cases;

/// Runs the bundle that `build` makes under both runtimes and compares what the probe, the host and `state` say.
fn probe(case: &str, build: impl Fn(&mut Bundle)) {
    flow(case, |runtime| {
        let mut bundle = Bundle::new();
        build(&mut bundle);
        lifecycle(runtime, &bundle)
    });
}

/// Runs `side` under both runtimes and compares the two reports. Keys that begin with '#' are for the reader of a failure.
fn flow(case: &str, side: impl Fn(&Runtime) -> Value) {
    flow_with(case, &[], side);
}

/// The same where both runtimes have their cgroups made by systemd.
fn scope(case: &str, side: impl Fn(&Runtime) -> Value) {
    if !systemd_runs() {
        accepted::case_done(ALL_CASES);
        return report_skip(&test_name(), "systemd does not run here");
    }
    flow_with(case, &["--systemd-cgroup"], side);
}

fn flow_with(case: &str, flags: &[&str], side: impl Fn(&Runtime) -> Value) {
    let Some(peer) = Runtime::peer() else {
        return report_skip(&test_name(), "no runc to compare with");
    };
    if let Some(reason) = accepted::cannot_run(case) {
        accepted::case_done(ALL_CASES);
        return report_skip(&test_name(), reason);
    }
    let expected = side(&peer.with_flags(flags));
    let actual = side(&Runtime::under_test().with_flags(flags));
    let found: Vec<_> =
        differences(&expected, &actual).into_iter().filter(|d| !accepted::covers(case, &d.field)).collect();
    accepted::case_done(ALL_CASES);
    if std::env::var_os("RTX_TEST_SHOW").is_some() {
        let _ = writeln!(std::io::stderr(), "{case}: {expected:#}");
    }
    if !found.is_empty() {
        let list: Vec<String> = found.iter().map(|d| format!("  {d}")).collect();
        let notes = |side: &Value| side.get("#stderr").cloned().unwrap_or_default();
        let notes = format!("stderr of the peer: {}\nstderr here: {}", notes(&expected), notes(&actual));
        panic!("{case}: {} differences (peer's value first):\n{}\n{notes}", found.len(), list.join("\n"));
    }
}

/// create, a look from the host, start, the payload's end, delete.
pub fn lifecycle(runtime: &Runtime, bundle: &Bundle) -> Value {
    let container = Container::new(runtime, bundle);
    let mut report = Report::default();
    if report.step("create", &container.create()) {
        report.add("host", host::look(container.pid()));
        report.add("state", state(&container));
        if report.step("start", &container.start()) {
            report.add("exit", json!(container.wait_exit()));
            report.add("seen", payload_report(&container.stdout()));
        }
        report.step("delete", &container.delete(&["--force"]));
    }
    report.add("rootfs", host::tree(&bundle.rootfs()));
    report.finish(&container)
}

/// `run` in the foreground and what it says.
pub fn foreground(runtime: &Runtime, bundle: &Bundle, flags: &[&str]) -> Value {
    let container = Container::new(runtime, bundle);
    let mut report = Report::default();
    let output = container.run(flags);
    report.step("run", &output);
    report.add("seen", payload_report(&output.stdout));
    report.add("rootfs", host::tree(&bundle.rootfs()));
    report.finish(&container)
}

/// The probe's JSON, or whatever else was printed.
pub fn payload_report(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|_| json!(stdout))
}

/// `state` without what is different in every run.
pub fn state(container: &Container) -> Value {
    let mut state = container.state().unwrap_or_default();
    if let Some(fields) = state.as_object_mut() {
        fields.remove("created");
        if let Some(pid) = fields.get_mut("pid") {
            *pid = json!(pid.as_i64().is_some_and(|p| p > 0));
        }
    }
    state
}

/// What one side saw, step by step.
#[derive(Default)]
pub struct Report {
    fields: Map<String, Value>,
    stderr: String,
}

impl Report {
    pub fn add(&mut self, key: &str, value: Value) {
        self.fields.insert(key.to_owned(), value);
    }

    /// Notes the exit code of a command; whether it was 0.
    pub fn step(&mut self, name: &str, output: &Output) -> bool {
        self.add(name, json!(output.code));
        self.stderr += &output.stderr;
        output.code == 0
    }

    /// The report with names instead of what is different on every run: id, bundle and state directory.
    pub fn finish(mut self, container: &Container) -> Value {
        self.fields.insert("#stderr".to_owned(), json!(self.stderr));
        if let Some(keyrings) = self.fields.get_mut("seen").and_then(|seen| seen.get_mut("keyrings")) {
            let own = json!(format!("_ses.{}", container.id));
            *keyrings = json!({ "own": keyrings.as_array().is_some_and(|all| all.contains(&own)) });
        }
        // libcontainer keeps the environment in a map, which has no order.
        if engine().as_deref() == Some("libcontainer")
            && let Some(Value::Array(env)) = self.fields.get_mut("seen").and_then(|seen| seen.get_mut("env"))
        {
            env.sort_by_key(Value::to_string);
        }
        let names = [
            (container.id.clone(), "ID"),
            (container.bundle.path().display().to_string(), "BUNDLE"),
            (container.bundle.name(), "BUNDLE-NAME"),
            (container.runtime.scratch().display().to_string(), "SCRATCH"),
        ];
        rename(Value::Object(self.fields), &names)
    }
}
