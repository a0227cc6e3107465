//! One document a rule: the pointer and the text that has to be in the finding.

use super::*;

/// Expects exactly one error, besides those for what is not supported yet.
pub(super) fn expect(document: &Value, at: &str, problem: &str) {
    let mut errors = errors(document);
    errors.retain(|finding| !finding.problem.starts_with("rtx does not support"));
    assert_eq!(errors.len(), 1, "{at}: {errors:#?}");
    assert_eq!(errors[0].pointer, at);
    assert!(errors[0].problem.contains(problem), "{}", errors[0]);
    assert!(!errors[0].remedy.is_empty());
}

/// `value` at `pointer` of a good document, and the error there.
pub(super) fn error(pointer: &str, value: Value, problem: &str) {
    expect(&with(pointer, value), pointer, problem);
}

pub(super) fn warning(pointer: &str, value: Value, at: &str, problem: &str) {
    let findings = check(&with(pointer, value.clone()), None);
    assert_eq!(findings.len(), 1, "{pointer} = {value}: {findings:#?}");
    assert_eq!((findings[0].severity, findings[0].pointer.as_str()), (Severity::Warning, at));
    assert!(findings[0].problem.contains(problem), "{}", findings[0]);
}

pub(super) fn fine(pointer: &str, value: Value) {
    assert_eq!(check(&with(pointer, value.clone()), None), [], "{pointer} = {value}");
}

#[test]
fn types_and_ranges() {
    error("/process", json!(null), "process property must not be empty");
    error("/process/terminal", json!("yes"), "must be true or false, not a string");
    error("/process/user/uid", json!(-1), "out of range for uint32");
    error("/process/user/gid", json!(1u64 << 32), "out of range for uint32");
    error("/process/args", json!("sh"), "must be an array, not a string");
    error("/process/args/1", json!(1), "must be a string, not a number");
    error("/linux", json!([]), "must be an object, not an array");
    error("/linux/resources/pids/limit", json!(1.5), "not a whole number");
    error("/linux/resources/blockIO/weight", json!(70000), "out of range for uint16");
    error("/process/args/1", json!("a\0b"), "nul byte");
    error("/annotations/x", json!(1), "must be a string");
    fine("/mounts", json!(null));
    fine("/process/rlimits", json!(null));
}

#[test]
fn unknown_properties_are_noted() {
    for (pointer, severity) in [("/process/frobnicate", Severity::Note), ("/process/Env", Severity::Warning)] {
        let findings = check(&with(pointer, json!([])), None);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].severity, findings[0].pointer.as_str()), (severity, pointer));
    }
    assert_eq!(check(&with("/windows", json!(3)), None)[0].severity, Severity::Note);
}

#[test]
fn document() {
    warning("/ociVersion", json!("9.9.9"), "/ociVersion", "not one that rtx knows");
    warning("/ociVersion", json!("nonsense"), "/ociVersion", "SemVer");
    warning("/ociVersion", json!("1.4.0"), "/ociVersion", "newer");
    warning("/ociVersion", json!(null), "/ociVersion", "requires");
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.3.0"] {
        fine("/ociVersion", json!(version));
    }
    error("/root", json!(null), "root must be specified");
    expect(&with("/root", json!({})), "/root/path", "root.path must be specified");
    error("/hostname", json!("x".repeat(65)), "64 bytes");
    warning("/annotations/", json!("x"), "/annotations/", "must not be empty");
}

#[test]
fn process() {
    error("/process/args", json!(null), "args must not be empty");
    error("/process/args", json!([]), "args must not be empty");
    error("/process/args/0", json!(""), "executable file not found in $PATH");
    error("/process/cwd", json!("tmp"), "Cwd must be an absolute path");
    error("/process/cwd", json!(""), "Cwd property must not be empty");
    error("/process/cwd", json!(null), "Cwd property must not be empty");
}

#[test]
fn environment_and_user() {
    expect(&with("/process/env", json!(["A=1", "B"])), "/process/env/1", "missing '='");
    expect(&with("/process/env", json!(["=x"])), "/process/env/0", "name cannot be empty");
    error("/process/user/uid", json!(u32::MAX), "invalid argument");
    let groups = with("/process/user/additionalGids", json!([1, u32::MAX]));
    expect(&groups, "/process/user/additionalGids/1", "means \"no id\" to Linux: invalid argument");
    warning("/process/user/umask", json!(4096), "/process/user/umask", "nine bits");
    error("/process/oomScoreAdj", json!(1001), "oom_score_adj");
    fine("/process/oomScoreAdj", json!(-1000));
}

#[test]
fn capabilities() {
    let at = "/process/capabilities";
    warning(&format!("{at}/bounding"), json!(["CAP_NOSUCH"]), &format!("{at}/bounding/0"), "[CAP_NOSUCH]");
    warning(&format!("{at}/bounding"), json!(["cap_kill"]), &format!("{at}/bounding/0"), "[cap_kill]");
    error(&format!("{at}/effective"), json!(["CAP_KILL"]), "CAP_KILL is not in the permitted set");
    warning(&format!("{at}/inheritable"), json!(["CAP_KILL"]), &format!("{at}/inheritable"), "bounding");
    let findings = check(&with(&format!("{at}/ambient"), json!(["CAP_KILL"])), None);
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Note));
}

#[test]
fn rlimits() {
    let of = |list: Value| with("/process/rlimits", list);
    let nofile = json!({ "type": "RLIMIT_NOFILE", "hard": 2, "soft": 1 });
    expect(
        &of(json!([{ "type": "RLIMIT_NOSUCH", "hard": 1, "soft": 1 }])),
        "/process/rlimits/0/type",
        "wrong rlimit value: RLIMIT_NOSUCH",
    );
    expect(&of(json!([{ "type": "RLIMIT_CPU", "hard": 1, "soft": 2 }])), "/process/rlimits/0/soft", "over hard");
    expect(&of(json!([nofile, nofile])), "/process/rlimits/1/type", "more than once");
}

#[test]
fn scheduling() {
    let io = json!({ "class": "IOPRIO_CLASS_RT", "priority": 8 });
    expect(&with("/process/ioPriority", io), "/process/ioPriority/priority", "invalid ioPriority.Priority: 8");
    let of = |scheduler: Value| with("/process/scheduler", scheduler);
    let at = "/process/scheduler";
    expect(&of(json!({ "policy": "SCHED_X" })), &format!("{at}/policy"), "invalid scheduler policy");
    expect(&of(json!({ "policy": "SCHED_OTHER", "nice": 20 })), &format!("{at}/nice"), "invalid scheduler.nice: 20");
    expect(&of(json!({ "policy": "SCHED_OTHER", "priority": 1 })), &format!("{at}/priority"), "SCHED_FIFO");
    expect(
        &of(json!({ "policy": "SCHED_RR", "priority": 1, "runtime": 1 })),
        &format!("{at}/runtime"),
        "SCHED_DEADLINE",
    );
    expect(&of(json!({ "policy": "SCHED_ISO" })), &format!("{at}/policy"), "no Linux kernel");
    expect(&of(json!({ "policy": "SCHED_FIFO" })), &format!("{at}/priority"), "needs a priority");
    let deadline = |runtime: u64, deadline: u64, period: u64| {
        of(json!({ "policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline, "period": period }))
    };
    expect(&deadline(1000, 2000, 3000), &format!("{at}/runtime"), "a runtime of 1000 ns");
    expect(&deadline(3000, 2000, 0), &format!("{at}/deadline"), "before the runtime");
    expect(&deadline(2000, 3000, 2500), &format!("{at}/period"), "before the deadline");
    expect(&deadline(2000, u64::MAX, 0), &format!("{at}/deadline"), "too long");
    error("/process/execCPUAffinity/initial", json!("0-3,,7"), "list of CPUs");
}

#[test]
fn hooks() {
    let of = |hook: Value| with("/hooks/createRuntime", json!([hook]));
    let at = "/hooks/createRuntime/0";
    assert_eq!(check(&of(json!({ "path": "/x", "timeout": 1, "env": ["A="] })), None), []);
    expect(&of(json!({ "path": "x" })), &format!("{at}/path"), "absolute");
    expect(&of(json!({ "path": "/x", "timeout": 0 })), &format!("{at}/timeout"), "greater than zero");
    expect(&of(json!({})), &format!("{at}/path"), "needs a path");
    expect(&of(json!({ "path": "/x", "env": ["A"] })), &format!("{at}/env/0"), "missing '='");
}

#[test]
fn other_platforms() {
    for (pointer, good, at, bad) in [
        ("/windows", json!({ "layerFolders": ["C:\\\\layer"] }), "/windows/layerFolders", json!({})),
        ("/solaris", json!({ "cappedCPU": { "ncpus": "8" } }), "/solaris/milestone", json!({ "milestone": 1 })),
        ("/vm", json!({ "kernel": { "path": "/vmlinuz" } }), "/vm/kernel/path", json!({ "kernel": {} })),
        (
            "/zos",
            json!({ "namespaces": [{ "type": "pid" }] }),
            "/zos/namespaces/0/type",
            json!({ "namespaces": [{ "type": "x" }] }),
        ),
        (
            "/freebsd",
            json!({ "jail": { "vnet": "new" } }),
            "/freebsd/jail/vnet",
            json!({ "jail": { "vnet": "disable" } }),
        ),
    ] {
        let findings = check(&with(pointer, good), None);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].severity, findings[0].pointer.as_str()), (Severity::Note, pointer));
        let findings = errors(&with(pointer, bad));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].pointer, at);
    }
    error("/process/commandLine", json!(1), "must be a string");
}

#[test]
fn what_the_schema_requires() {
    let line = |name: &str| {
        let mut line = json!({ "containerID": 0, "hostID": 0, "size": 1 });
        line.as_object_mut().unwrap().remove(name);
        line
    };
    for (within, object, missing) in [
        ("/process/consoleSize", json!({ "width": 1 }), "height"),
        ("/process/consoleSize", json!({ "height": 1 }), "width"),
        ("/process/rlimits/0", json!({ "type": "RLIMIT_CPU", "hard": 1 }), "soft"),
        ("/process/rlimits/0", json!({ "type": "RLIMIT_CPU", "soft": 0 }), "hard"),
        ("/linux/resources/devices/0", json!({ "access": "r" }), "allow"),
        ("/linux/resources/pids", json!({}), "limit"),
        ("/linux/resources/hugepageLimits/0", json!({ "pageSize": "2MB" }), "limit"),
        ("/linux/resources/network/priorities/0", json!({ "name": "eth0" }), "priority"),
    ] {
        expect(&with(within, object), &format!("{within}/{missing}"), "");
    }
    for missing in ["containerID", "hostID", "size"] {
        let mut document = with("/linux/namespaces", json!([{ "type": "user" }]));
        document["linux"]["uidMappings"] = json!([line(missing)]);
        document["linux"]["gidMappings"] = json!([line("")]);
        let errors = errors(&document);
        assert!(errors.iter().any(|e| e.pointer == format!("/linux/uidMappings/0/{missing}")), "{errors:?}");
    }
}

#[test]
fn sections_that_the_host_must_have() {
    error("/linux/personality/domain", json!("X"), "invalid personality domain X");
    if !std::path::Path::new("/sys/fs/selinux").exists() {
        error("/linux/mountLabel", json!("x"), "selinux is disabled or not supported");
        error("/process/selinuxLabel", json!("x"), "selinux is disabled or not supported");
    }
    fine("/linux/mountLabel", json!(""));
    if !std::path::Path::new("/sys/kernel/security/apparmor/profiles").exists() {
        error("/process/apparmorProfile", json!("x"), "apparmor failed to apply profile");
    }
    if !std::path::Path::new("/sys/fs/resctrl/info").exists() {
        error(
            "/linux/intelRdt",
            json!({ "closID": "x" }),
            "intelRdt is specified in config, but Intel RDT is not enabled",
        );
    }
}
