//! The promise of [`normalise`]: a document without errors becomes an `oci_spec::runtime::Spec`.

use super::*;
use oci_spec::runtime::Spec;

/// What a property may hold without an error, beyond what is plain: spellings that other runtimes take.
fn tolerated() -> Vec<(&'static str, Value)> {
    let max = u64::MAX;
    vec![
        ("/ociVersion", json!("nonsense")),
        ("/uidMappings", json!("oci-spec has a type for this at the top, the runtime-spec has not")),
        ("/windows", json!({ "layerFolders": ["x"] })),
        ("/process/commandLine", json!("x")),
        ("/process/user", json!({ "uid": 1, "umask": 1000, "username": "x" })),
        ("/process/capabilities/bounding", json!(["cap_kill", "NET_RAW", "CAP_NOSUCH", "CAP_KILL"])),
        ("/process/rlimits", json!([{ "type": "RLIMIT_RTTIME" , "hard": max, "soft": max }])),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "flags": names::SCHEDULER_FLAGS })),
        ("/process/execCPUAffinity", json!({ "initial": "", "final": "0-3,7" })),
        ("/mounts", json!([{ "destination": "x", "type": "tmpfs", "source": null, "options": null }])),
        ("/linux/maskedPaths", json!(["proc/kcore"])),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": null })),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": names::SECCOMP_FLAGS,
            "architectures": names::SECCOMP_ARCHS }),
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_LOG",
            "args": [{ "index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": max, "valueTwo": max }] }] }),
        ),
        ("/linux/devices", json!([{ "path": "/x", "type": "u" }, { "path": "/y", "type": "p", "fileMode": 4516 }])),
        ("/linux/resources/devices", json!([{ "allow": false, "access": "m", "type": "", "major": -1, "minor": -1 }])),
        ("/linux/resources/hugepageLimits", json!([{ "pageSize": "2MB", "limit": max }])),
        ("/linux/resources/memory", json!({ "limit": -1, "kernel": 5, "swappiness": 0, "useHierarchy": null })),
        ("/linux/resources/blockIO/weightDevice", json!([{ "major": 8, "minor": 0, "leafWeight": null }])),
        ("/linux/resources/network", json!({ "classID": null, "priorities": [{ "name": "eth0", "priority": 0 }] })),
        ("/linux/resources/rdma/mlx", json!({ "hcaHandles": null })),
        ("/linux/timeOffsets/monotonic", json!({})),
        ("/linux/netDevices/eth0", json!({ "name": null })),
        ("/annotations/x", json!(null)),
        ("/hooks", json!({ "poststop": null, "prestart": [{ "path": "/x", "timeout": 5, "args": null }] })),
    ]
}

fn deserialises(mut document: Value, what: &str) {
    normalise(&mut document);
    if let Err(error) = serde_json::from_value::<Spec>(document.clone()) {
        panic!("{what}: {error}: {document:#}");
    }
}

/// Errors for what is not supported yet are left out: the promise must hold on the day that a row goes.
fn has_errors(document: &Value) -> bool {
    errors(document).iter().any(|finding| !finding.problem.starts_with("rtx does not support"))
}

#[test]
fn tolerated_spellings_deserialise() {
    for (pointer, value) in tolerated() {
        let document = with(pointer, value);
        let errors: Vec<_> = errors(&document)
            .into_iter()
            .filter(|f| !f.problem.contains("namespace") && !f.problem.contains("byte order"))
            .filter(|f| !f.problem.starts_with("rtx does not"))
            .collect();
        assert_eq!(errors, [], "{pointer}");
        deserialises(document, pointer);
    }
}

/// Every property of the schema with every kind of value: either the check has an error, or oci-spec takes it.
#[test]
fn without_errors_every_property_deserialises() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(100),
        json!(70000),
        json!(u32::MAX),
        json!(1u64 << 32),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.0),
        json!(1e30),
        json!(""),
        json!("x"),
        json!("/x"),
        json!("0-1"),
        json!("a=b"),
        json!([]),
        json!([""]),
        json!(["/x"]),
        json!([null]),
        json!([0]),
        json!([{}]),
        json!({}),
        json!({ "x": "y" }),
        json!({ "x": null }),
        json!({ "x": {} }),
    ];
    let mut taken = 0;
    for property in properties() {
        for key in ["0", "x"] {
            for value in &values {
                let document = with(&property.replace('*', key), value.clone());
                if !has_errors(&document) {
                    deserialises(document, &property);
                    taken += 1;
                }
            }
        }
    }
    assert!(taken > 500, "{taken} documents were without errors");
}

#[test]
fn every_name_of_every_enumeration_deserialises() {
    let all = [
        ("/linux/namespaces/0/type", names::NAMESPACES),
        ("/process/capabilities/bounding/0", names::CAPABILITIES),
        ("/process/rlimits/0/type", names::RLIMITS),
        ("/process/scheduler/policy", names::SCHEDULER_POLICIES),
        ("/process/scheduler/flags/0", names::SCHEDULER_FLAGS),
        ("/process/ioPriority/class", names::IO_PRIORITY_CLASSES),
        ("/linux/seccomp/defaultAction", names::SECCOMP_ACTIONS),
        ("/linux/seccomp/architectures/0", names::SECCOMP_ARCHS),
        ("/linux/seccomp/flags/0", names::SECCOMP_FLAGS),
        ("/linux/personality/domain", names::PERSONALITY_DOMAINS),
        ("/linux/memoryPolicy/mode", names::MEMORY_POLICY_MODES),
        ("/linux/memoryPolicy/flags/0", names::MEMORY_POLICY_FLAGS),
        ("/linux/rootfsPropagation", names::PROPAGATIONS),
        ("/linux/resources/devices/0/type", names::DEVICE_RULE_TYPES),
    ];
    for (pointer, names) in all {
        for name in names {
            let mut document = with(pointer, json!(name));
            // What the neighbours of the name require.
            for (at, needed) in [
                ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" })),
                ("/process/scheduler", json!({ "policy": "SCHED_OTHER" })),
                ("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND" })),
            ] {
                if let Some(Value::Object(object)) = document.pointer_mut(at) {
                    for (key, value) in needed.as_object().unwrap() {
                        object.entry(key).or_insert(value.clone());
                    }
                }
            }
            deserialises(document, name);
        }
    }
    for operator in names::SECCOMP_OPERATORS {
        let call = json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 0, "op": operator }] });
        deserialises(
            with("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call] })),
            operator,
        );
    }
}

#[test]
fn twenty_mistakes_get_twenty_findings() {
    let document = json!({
        "process": {
            "args": [], "cwd": "tmp", "env": ["NOVALUE"], "oomScoreAdj": 5000, "terminal": 1,
            "user": { "uid": -1 }, "rlimits": [{ "type": "RLIMIT_X", "hard": 1, "soft": 1 }],
            "capabilities": { "bounding": ["CAP_X"] }
        },
        "hostname": "h",
        "mounts": [{ "destination": "x", "type": "tmpfs" }, { "destination": "/y", "options": ["bind"] }],
        "hooks": { "poststop": [{ "path": "x", "timeout": 0 }] },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "mount" }, { "type": "foo" }],
            "sysctl": { "kernel.panic": "1" },
            "seccomp": { "defaultAction": "SCMP_ACT_X" },
            "rootfsPropagation": "x",
            "resources": { "cpu": { "quota": 1 } }
        }
    });
    let findings = check(&document, None);
    let mut pointers: Vec<_> = findings.iter().map(|finding| &finding.pointer).collect();
    pointers.sort();
    pointers.dedup();
    assert_eq!(pointers.len(), findings.len(), "{findings:#?}");
    assert_eq!(findings.len(), 21, "{findings:#?}");
}
