//! `rtx check` tells every mistake of a configuration at once: where, what is wrong, and what would be right.

use serde_json::json;

use crate::support::{Bundle, Container, Runtime, needs_root, skip};

/// Pointer, a part of what is wrong, a part of what would be right.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("/ociVersion", "must be a string", "correct the type"),
    ("/root/readonly", "must be true or false", "correct the type"),
    ("/hostname", "longer than 64 bytes", "shorten it"),
    ("/process/args", "args must not be empty", "name the program"),
    ("/process/cwd", "must be an absolute path", "/work"),
    ("/process/env/1", "missing '='", "NOVALUE="),
    ("/process/user/uid", "out of range for uint32", "4294967295"),
    ("/process/oomScoreAdj", "no oom_score_adj", "-1000 to 1000"),
    ("/process/rlimits/0/type", "wrong rlimit value", "RLIMIT_NOFILE"),
    ("/process/rlimits/1/hard", "hard limit is missing", "add \"hard\""),
    ("/process/capabilities/effective", "not in the permitted set", "permitted"),
    ("/process/ioPriority/priority", "invalid ioPriority", "0 (highest) to 7"),
    ("/mounts/0/destination", "must not be empty", "absolute path"),
    ("/mounts/1/source", "needs a source", "of the host to bind"),
    ("/mounts/2/options/1", "filesystem-specific", "remove it"),
    ("/hooks/createRuntime/0/path", "must be absolute", "full path"),
    ("/hooks/poststop/0/timeout", "greater than zero", "give seconds"),
    ("/linux/namespaces/2", "duplicated ns", "each type once"),
    ("/linux/namespaces/3/type", "does not exist", "use one of"),
    ("/linux/uidMappings", "user namespace isn't enabled", "add {\"type\": \"user\"}"),
    ("/linux/devices/0/fileMode", "nine bits", "438"),
    ("/linux/devices/1/type", "invalid device type", "use one of"),
    ("/linux/maskedPaths/0", "must be a string", "correct the type"),
    ("/linux/rootfsPropagation", "is not supported", "use one of shared"),
    ("/linux/sysctl/kernel.panic", "not in a separate kernel namespace", "on the host"),
    ("/linux/timeOffsets", "time namespace isn't enabled", "add {\"type\": \"time\"}"),
    ("/linux/seccomp/defaultAction", "not a valid action", "use one of"),
    ("/linux/seccomp/syscalls/0/args/0/index", "out of range", "0 to 5"),
    ("/linux/personality/domain", "invalid personality domain", "LINUX32"),
    ("/linux/resources/memory/swap", "without memory limit", "add \"limit\""),
    ("/linux/resources/cpu/cpus", "no list", "0-3"),
    ("/linux/resources/pids/limit", "not a whole number", "without fraction"),
    ("/linux/resources/blockIO/weight", "out of range", "10 to 1000"),
    ("/linux/resources/hugepageLimits/0/pageSize", "no page size", "2MB"),
    ("/linux/resources/devices/0/access", "no device access", "w (write)"),
    ("/linux/resources/unified/memory", "CONTROLLER.PARAMETER", "memory.high"),
    ("/linux/resources/network/priorities/0/priority", "needs a priority", "add \"priority\""),
    ("/annotations/org.example", "must be a string", "correct the type"),
];

fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.spec = json!({
        "ociVersion": 1.3,
        "root": { "path": "rootfs", "readonly": "yes" },
        "hostname": "h".repeat(65),
        "process": {
            "args": [], "cwd": "work", "env": ["A=b", "NOVALUE"], "user": { "uid": -1, "gid": 0 }, "oomScoreAdj": 1001,
            "rlimits": [{ "type": "RLIMIT_FILES", "hard": 1, "soft": 1 }, { "type": "RLIMIT_CORE", "soft": 0 }],
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": [] },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 9 }
        },
        "mounts": [
            { "destination": "", "type": "proc" },
            { "destination": "/data", "options": ["bind"] },
            { "destination": "/data", "source": "/tmp", "options": ["bind", "size=1m"] }
        ],
        "hooks": { "createRuntime": [{ "path": "bin/true" }], "poststop": [{ "path": "/bin/true", "timeout": 0 }] },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "uts" }, { "type": "disk" }],
            "uidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }],
            "devices": [
                { "path": "/dev/a", "type": "c", "major": 1, "minor": 3, "fileMode": 666_666 },
                { "path": "/dev/b", "type": "x" }
            ],
            "maskedPaths": [1],
            "rootfsPropagation": "public",
            "sysctl": { "kernel.panic": "1" },
            "timeOffsets": { "monotonic": { "secs": 1 } },
            "seccomp": {
                "defaultAction": "ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 7, "value": 0, "op": "SCMP_CMP_EQ" }] }]
            },
            "personality": { "domain": "WINDOWS" },
            "resources": {
                "memory": { "swap": 67_108_864 },
                "cpu": { "cpus": "all" },
                "pids": { "limit": 1.5 },
                "blockIO": { "weight": 5 },
                "hugepageLimits": [{ "pageSize": "64kB", "limit": 1 }],
                "devices": [{ "allow": true, "access": "read" }],
                "unified": { "memory": "1" },
                "network": { "priorities": [{ "name": "eth0" }] }
            }
        },
        "annotations": { "org.example": 1 }
    });
    bundle
}

#[test]
fn as_many_findings_as_mistakes() {
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let bundle = bundle();
    bundle.write();
    let output = runtime.run(&["check", &bundle.path().display().to_string()]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    let findings: Vec<&str> = output.stdout.lines().filter(|line| line.starts_with("error: ")).collect();
    for (pointer, wrong, right) in MISTAKES {
        let found = findings.iter().find(|line| line.starts_with(&format!("error: {pointer}: ")));
        let found = found.unwrap_or_else(|| panic!("nothing about {pointer} in\n{}", output.stdout));
        assert!(found.contains(wrong) && found.contains(right), "{pointer}: {wrong:?} and {right:?} in {found:?}");
    }
    assert_eq!(findings.len(), MISTAKES.len(), "{}", output.stdout);
}

/// `create` tells all of them too, in one message, before there is anything to clean up.
#[test]
fn create_tells_them_all_at_once() {
    needs_root!();
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let bundle = bundle();
    let container = Container::new(&runtime, &bundle);
    let output = container.create().fails(1, "config.json has ");
    for (pointer, _, _) in MISTAKES {
        assert!(output.stderr.contains(&format!(") {pointer}: ")), "{pointer} is not in {}", output.stderr);
    }
    assert!(!runtime.root().join(&container.id).exists());
}
