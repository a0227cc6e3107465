//! One document a rule: the pointer and the text that has to be in the finding.

use super::*;

/// Puts `value` at `pointer` of a good document and expects exactly one error, at that pointer.
fn error(pointer: &str, value: Value, problem: &str) {
    error_at(pointer, value, pointer, problem);
}

fn error_at(pointer: &str, value: Value, at: &str, problem: &str) {
    let errors = errors(&with(pointer, value.clone()));
    let unsupported = |finding: &Finding| finding.problem.starts_with("rtx does not support");
    let errors: Vec<_> = errors.into_iter().filter(|finding| !unsupported(finding)).collect();
    assert_eq!(errors.len(), 1, "{pointer} = {value}: {errors:#?}");
    assert_eq!(errors[0].pointer, at);
    assert!(errors[0].problem.contains(problem), "{pointer} = {value}: {}", errors[0]);
    assert!(!errors[0].remedy.is_empty());
}

fn warning(pointer: &str, value: Value, problem: &str) {
    let findings = check(&with(pointer, value.clone()), None);
    assert_eq!(findings.len(), 1, "{pointer} = {value}: {findings:#?}");
    assert_eq!((findings[0].severity, findings[0].pointer.as_str()), (Severity::Warning, pointer));
    assert!(findings[0].problem.contains(problem), "{}", findings[0]);
}

fn fine(pointer: &str, value: Value) {
    let findings = check(&with(pointer, value.clone()), None);
    assert_eq!(findings, [], "{pointer} = {value}");
}

#[test]
fn types_and_ranges() {
    error("/process", json!(null), "process property must not be empty");
    error("/process/terminal", json!("yes"), "must be true or false, not a string");
    error("/process/user/uid", json!(-1), "out of range for uint32");
    error("/process/user/gid", json!(1u64 << 32), "out of range for uint32");
    error("/process/args", json!("sh"), "must be an array, not a string");
    error("/process/args/0", json!(1), "must be a string, not a number");
    error("/linux", json!([]), "must be an object, not an array");
    error("/linux/resources/pids/limit", json!(1.5), "not a whole number");
    error("/linux/resources/blockIO/weight", json!(70000), "out of range for uint16");
    error("/process/args/0", json!("a\0b"), "nul byte");
    error("/annotations/x", json!(1), "must be a string");
    fine("/mounts", json!(null));
    fine("/process/rlimits", json!(null));
}

#[test]
fn document() {
    warning("/ociVersion", json!("9.9.9"), "not one that rtx knows");
    warning("/ociVersion", json!("nonsense"), "SemVer");
    warning("/ociVersion", json!("1.4.0"), "newer");
    warning("/ociVersion", json!(null), "requires");
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.3.0"] {
        fine("/ociVersion", json!(version));
    }
    error("/root", json!(null), "root must be specified");
    error_at("/root", json!({}), "/root/path", "root.path must be specified");
    error("/hostname", json!("x".repeat(65)), "64 bytes");
    error_at("/linux/namespaces", json!([{ "type": "mount" }]), "/hostname", "")
        .to_owned_unit(|| with("/hostname", json!("h")));
    warning("/annotations/", json!("x"), "must not be empty");
}

/// Two changes to the minimal document where one is not enough.
trait TwoChanges {
    fn to_owned_unit(self, document: impl FnOnce() -> Value);
}
