//! The check of a config.json against the runtime-spec 1.3.0: every problem at once, each with its JSON pointer, what
//! is wrong and what would be right.
//!
//! Two passes. The first walks the document along a description of the spec's schema (`tables`) and finds wrong types,
//! missing and unknown properties, values out of range; the second applies the rules that need more than one value or
//! more than a type, one file for each part of the spec. The second never repeats what the first has said: a value of
//! the wrong type is as good as absent to it.
//!
//! Severity follows what runs elsewhere: what runc refuses is an [`Severity::Error`], what it runs against the letter of
//! the spec a [`Severity::Warning`].

use std::fmt::Display;
use std::path::Path;

use serde_json::Value;

mod document;
mod hooks;
mod intel_rdt;
mod linux;
mod mappings;
mod mounts;
pub mod names;
mod normalise;
mod platforms;
mod process;
mod resources;
mod scheduling;
mod schema;
mod seccomp;
mod sysctl;
mod tables;
mod unsupported;

pub use normalise::{normalise, normalise_process};
pub use process::{NO_ID, NO_SELINUX, apparmor_is_enabled, selinux_is_enabled};
pub use schema::properties;
pub use unsupported::{UNSUPPORTED, is_unsupported};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The container cannot be created as described.
    Error,
    /// It runs, but not as the author may have thought.
    Warning,
    /// Nothing wrong; something is ignored.
    Note,
}

/// One thing to say about a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a JSON pointer (RFC 6901), empty for the whole document.
    pub pointer: String,
    pub severity: Severity,
    /// What is wrong. Contains the text that runc's callers match on, where there is one.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{at}: {}; {}", self.problem, self.remedy)
    }
}

/// Every problem of a config.json. With the bundle's directory its root file system is looked at as well.
pub fn check(config: &Value, bundle: Option<&Path>) -> Vec<Finding> {
    let mut report = Report::default();
    schema::check(&mut report, &tables::SPEC, config);
    unsupported::check(&mut report, config, "");
    document::check(&mut report, config, bundle);
    if let Some(process) = present(config, "process") {
        process::check(&mut report, process, "/process");
        process::check_mapped(&mut report, config, process);
        scheduling::check_deadline_and_cpus(&mut report, config);
    }
    mounts::check(&mut report, config);
    hooks::check(&mut report, config);
    linux::check_names(&mut report, config);
    if let Some(linux) = present(config, "linux") {
        linux::check(&mut report, linux);
        mappings::check(&mut report, linux);
        sysctl::check(&mut report, linux);
        resources::check(&mut report, linux);
        seccomp::check(&mut report, linux);
        intel_rdt::check(&mut report, linux);
    }
    report.findings
}

/// The same rules for a process document alone, as `exec --process` takes it. Pointers are relative to it.
pub fn check_process(process: &Value) -> Vec<Finding> {
    let mut report = Report::default();
    schema::check(&mut report, &tables::PROCESS, process);
    unsupported::check(&mut report, process, "/process");
    process::check(&mut report, process, "");
    report.findings
}

/// Collects findings. Problem and remedy come as anything printable, so that nothing is formatted for a clean document.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn error(&mut self, at: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Error, at, problem, remedy);
    }

    fn warning(&mut self, at: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, at, problem, remedy);
    }

    fn note(&mut self, at: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Note, at, problem, remedy);
    }

    fn add(
        &mut self,
        severity: Severity,
        at: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (pointer, problem, remedy) = (at.into(), problem.into(), remedy.into());
        self.findings.push(Finding { pointer, severity, problem, remedy });
    }
}

/// A property that is there. JSON null counts as absent, as it does for every runtime written in Go.
fn present<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// The elements of a list; none if it is absent or no list.
fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn integer(object: &Value, name: &str) -> Option<i128> {
    object.get(name).and_then(as_integer)
}

fn as_integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// A key as it stands in a JSON pointer: RFC 6901 section 4.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
