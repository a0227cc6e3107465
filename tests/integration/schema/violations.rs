//! Every property of the schema on the real binary: what is right is accepted, or refused as not supported; what violates
//! the schema is found where it is, and nothing is created from it.

use std::path::PathBuf;

use rtx::config::check::UNSUPPORTED;
use serde_json::{Value, json};

use super::samples::{Schema, concrete, wrong};
use crate::support::runtime::next_number;
use crate::support::{Bundle, Output, Runtime, leftover, needs_root, report_total, skip};

/// Sections that are checked and not described here.
const FOREIGN: &[&str] = &["/solaris", "/windows", "/vm", "/zos", "/freebsd"];

/// One bundle whose configuration changes.
struct Bench {
    runtime: Runtime,
    bundle: Bundle,
    base: Value,
}

impl Bench {
    fn new() -> Bench {
        let mut bundle = Bundle::new();
        bundle.args(&["/bin/true"]);
        let base = bundle.spec.clone();
        Bench { runtime: Runtime::under_test(), bundle, base }
    }

    fn write(&mut self, document: Value) -> String {
        self.bundle.spec = document;
        self.bundle.write();
        self.bundle.path().display().to_string()
    }

    fn check(&mut self, document: Value) -> Output {
        let path = self.write(document);
        self.runtime.run(&["check", &path])
    }

    /// `create` under an id that nothing else has.
    fn create(&mut self, document: Value) -> (String, Output) {
        let path = self.write(document);
        let id = format!("{}-{}", self.bundle.name(), next_number());
        let output = self.runtime.run(&["create", "--bundle", &path, &id]);
        (id, output)
    }
}

/// What a property needs beside it to make sense.
fn prepare(base: &Value, pointer: &str) -> Value {
    let mut base = base.clone();
    let mut namespace = |kind: &str| {
        base["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": kind }));
    };
    if pointer.starts_with("/linux/timeOffsets") {
        namespace("time");
    }
    if pointer.starts_with("/linux/uidMappings") || pointer.starts_with("/linux/gidMappings") {
        namespace("user");
        for name in ["uidMappings", "gidMappings"] {
            base["linux"][name] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        }
    }
    if pointer.starts_with("/mounts/*/") && pointer.contains("Mappings") {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        let bind = json!({ "destination": "/tmp", "source": "/tmp", "options": ["bind"] });
        base["mounts"] = json!([bind]);
        base["mounts"][0]["uidMappings"] = map.clone();
        base["mounts"][0]["gidMappings"] = map;
    }
    if pointer.starts_with("/linux/namespaces/*") {
        base.as_object_mut().expect("an object").remove("hostname");
    }
    if pointer.starts_with("/process/capabilities/permitted") {
        base["process"]["capabilities"] = json!({});
    }
    if pointer.starts_with("/linux/memoryPolicy/") {
        base["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0" });
    }
    match pointer {
        "/process/scheduler/priority" => base["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO" }),
        "/process/scheduler/runtime" | "/process/scheduler/deadline" | "/process/scheduler/period" => {
            base["process"]["scheduler"] = json!({
                "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000, "period": 3_000_000
            });
        }
        _ => {}
    }
    if pointer.starts_with("/linux/resources/memory") {
        base["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
    }
    base
}

/// A right value for most properties is accepted by all of rtx but the host. This is what a host may say instead.
fn is_of_the_host(finding: &str) -> bool {
    ["Intel RDT is not enabled", "controller", "cgroup", "no network device"]
        .iter()
        .any(|reason| finding.contains(reason))
}

fn is_not_supported_yet(finding: &str) -> bool {
    // The specification names no flag, and runc takes none.
    let flags = finding.contains("personality flags are not supported");
    flags || finding.contains("rtx does not support") && UNSUPPORTED.iter().any(|(_, what)| finding.contains(what))
}

#[test]
fn what_is_right_is_accepted_or_refused_by_name() {
    needs_root!();
    let (mut bench, schema) = (Bench::new(), Schema::new());
    if !bench.runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut wrongly = Vec::new();
    for property in &schema.0 {
        let pointer = property.pointer;
        let base = prepare(&bench.base, pointer);
        let document = match pointer {
            // The least that the schema allows would not be enough to run, and the base has them.
            "/root" | "/process" | "/process/args" | "/linux" | "/linux/memoryPolicy" => base,
            "/linux/namespaces" | "/linux/namespaces/*/path" | "/linux/uidMappings" | "/linux/gidMappings" => base,
            _ if pointer.ends_with("Mappings") => base,
            _ => schema.with(&base, pointer, schema.right(pointer)),
        };
        let output = bench.check(document);
        let errors = output.stdout.lines().filter(|line| line.starts_with("error: "));
        for error in errors.filter(|error| !is_not_supported_yet(error) && !is_of_the_host(error)) {
            wrongly.push(format!("{pointer}: {error}"));
        }
    }
    assert!(wrongly.is_empty(), "\n{}", wrongly.join("\n"));
}

/// A violation: what was done, the pointer at which it must be found, and the document.
fn violations(schema: &Schema, base: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for property in &schema.0 {
        let pointer = property.pointer;
        let base = prepare(base, pointer);
        for value in wrong(property) {
            let document = schema.with(&base, pointer, value.clone());
            all.push((format!("{pointer} = {value}"), concrete(pointer), document));
        }
        if property.kind == "object" && !FOREIGN.contains(&pointer) {
            for name in schema.required_below(pointer) {
                let mut document = schema.with(&base, pointer, schema.right(pointer));
                let object = schema.reach(&mut document, &format!("{pointer}/{name}"));
                *object = Value::Null;
                let object = document.pointer_mut(&escaped(&concrete(pointer))).expect("the object");
                object.as_object_mut().expect("an object").remove(name);
                all.push((format!("{pointer} without {name}"), format!("{}/{name}", concrete(pointer)), document));
            }
        }
    }
    for value in [json!([]), json!("x"), json!(1), json!(null), json!(true)] {
        all.push((format!("the document = {value}"), String::new(), value));
    }
    all
}

/// None of the keys used has a character that a pointer writes otherwise.
fn escaped(pointer: &str) -> String {
    assert!(!pointer.contains('~'));
    pointer.to_owned()
}

#[test]
fn every_violation_is_found_where_it_is() {
    needs_root!();
    let (mut bench, schema) = (Bench::new(), Schema::new());
    if !bench.runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut missed = Vec::new();
    for (what, pointer, document) in violations(&schema, &bench.base.clone()) {
        let output = bench.check(document);
        let at = format!("error: {}: ", if pointer.is_empty() { "/" } else { &pointer });
        let found = output.stdout.lines().any(|line| line.starts_with(&at));
        if output.code != 1 || !found {
            missed.push(format!("{what}: code {}, {}", output.code, output.stdout.trim()));
        }
    }
    assert!(missed.is_empty(), "{} missed\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn no_violation_is_run() {
    needs_root!();
    let (mut bench, schema) = (Bench::new(), Schema::new());
    let all = violations(&schema, &bench.base.clone());
    let (count, mut run, mut unnamed) = (all.len(), Vec::new(), Vec::new());
    for (what, pointer, document) in all {
        let (id, output) = bench.create(document);
        if output.code == 0 {
            bench.runtime.run(&["delete", "--force", &id]);
        }
        let at = format!("{}: ", if pointer.is_empty() { "/" } else { &pointer });
        if bench.runtime.is_rtx() && !output.stderr.contains(&at) {
            unnamed.push(format!("{what}: {}", output.stderr.trim()));
        }
        // 1 is an error that was told; anything else is a crash.
        if output.code != 1 {
            run.push(format!("{what}: code {} {}", output.code, output.stderr.trim()));
        }
    }
    report_total(&format!("INPUT schema violations: {count} tried, {} wrong", run.len()));
    let states: Vec<PathBuf> = std::fs::read_dir(bench.runtime.root())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(&bench.bundle.name()))
        .collect();
    let left = leftover::of(&bench.bundle.name(), bench.bundle.path(), &bench.runtime.root());
    assert!(run.is_empty(), "{} of {count} were run\n{}", run.len(), run.join("\n"));
    assert!(unnamed.is_empty(), "{} without their place\n{}", unnamed.len(), unnamed.join("\n"));
    assert!(states.is_empty() && left.is_empty(), "left behind: {states:?} {left:?}");
}
