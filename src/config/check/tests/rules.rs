//! One document a rule: the pointer and the text that has to be in the finding.

use super::*;

/// Expects exactly one error, besides those for what is not supported yet.
fn expect(document: &Value, at: &str, problem: &str) {
    let mut errors = errors(document);
    errors.retain(|finding| !finding.problem.starts_with("rtx does not support"));
    assert_eq!(errors.len(), 1, "{at}: {errors:#?}");
    assert_eq!(errors[0].pointer, at);
    assert!(errors[0].problem.contains(problem), "{}", errors[0]);
    assert!(!errors[0].remedy.is_empty());
}

/// `value` at `pointer` of a good document, and the error there.
fn error(pointer: &str, value: Value, problem: &str) {
    expect(&with(pointer, value), pointer, problem);
}

fn warning(pointer: &str, value: Value, at: &str, problem: &str) {
    let findings = check(&with(pointer, value.clone()), None);
    assert_eq!(findings.len(), 1, "{pointer} = {value}: {findings:#?}");
    assert_eq!((findings[0].severity, findings[0].pointer.as_str()), (Severity::Warning, at));
    assert!(findings[0].problem.contains(problem), "{}", findings[0]);
}

fn fine(pointer: &str, value: Value) {
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
fn namespaces_and_what_needs_them() {
    let of = |list: Value| with("/linux/namespaces", list);
    expect(&of(json!([{ "type": "foo" }])), "/linux/namespaces/0/type", "namespace {\"foo\" \"\"} does not exist");
    let twice = of(json!([{ "type": "pid" }, { "type": "pid" }]));
    expect(&twice, "/linux/namespaces/1", "malformed spec file: duplicated ns {\"pid\" \"\"}");
    expect(&of(json!([{ "type": "pid", "path": "x" }])), "/linux/namespaces/0/path", "absolute");
    for name in ["hostname", "domainname"] {
        let mut document = of(json!([]));
        document[name] = json!("h");
        expect(&document, &format!("/{name}"), &format!("unable to set {name} without a private UTS namespace"));
    }
    let mut document = of(json!([]));
    document["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    expect(&document, "/linux/maskedPaths", "private MNT namespace");
    warning("/linux/readonlyPaths", json!(["proc"]), "/linux/readonlyPaths/0", "not absolute");
    error("/linux/rootfsPropagation", json!("x"), "rootfsPropagation=x is not supported");
    error("/linux/rootfsPropagation", json!(""), "rootfsPropagation= is not supported");
    error("/linux/netDevices", json!({ "eth0": {} }), "private NET namespace");
    let devices = |devices: Value| {
        let mut document = of(json!([{ "type": "network" }]));
        document["linux"]["netDevices"] = devices;
        document
    };
    assert_eq!(check(&devices(json!({ "eth1": { "name": "net%d" }, "eth2": { "name": "net%d" } })), None), []);
    let at = "/linux/netDevices/eth2";
    let twice = devices(json!({ "eth1": { "name": "eth2" }, "eth2": {} }));
    expect(&twice, at, "\"eth1\" is to be named \"eth2\" in the container as well");
    for wrong in ["a/b", "a b", "..", "sixteen-letters-", "50%", "%d%d"] {
        expect(&devices(json!({ "eth2": { "name": wrong } })), at, "invalid network device name");
    }
    let mut joined = of(json!([{ "type": "time", "path": "/x" }, { "type": "user", "path": "/x" }]));
    joined["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } });
    joined["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let findings = check(&joined, None);
    let pointers: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.pointer.as_str())).collect();
    let warned = ["/linux/timeOffsets", "/linux/uidMappings"].map(|at| (Severity::Warning, at));
    assert_eq!(pointers, warned, "{findings:#?}");
    error("/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } }), "time namespace");
}

#[test]
fn mappings() {
    let of = |uids: Value| {
        let mut document = with("/linux/namespaces", json!([{ "type": "user" }]));
        document["linux"]["uidMappings"] = uids;
        document["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 10 }]);
        document
    };
    let line = |inside: u32, outside: u32, size: u32| json!({ "containerID": inside, "hostID": outside, "size": size });
    let at = "/linux/uidMappings";
    expect(&of(json!(null)), at, "user namespaces enabled, but no uid mappings found");
    assert_eq!(check(&of(json!([line(0, 1000, 1), line(1, 5000, 9)])), None), []);
    expect(&of(json!([line(0, 1000, 5), line(4, 5000, 9)])), &format!("{at}/1"), "overlaps with mapping 0 inside");
    expect(&of(json!([line(0, 1000, 5), line(5, 1004, 9)])), &format!("{at}/1"), "overlaps with mapping 0 on the host");
    expect(&of(json!([line(0, 1000, 5), line(5, 4, 0)])), &format!("{at}/1/size"), "no ids");
    expect(&of(json!([line(0, u32::MAX, 2)])), &format!("{at}/0"), "last id");
    let mut document = of(json!([line(0, 1000, 5)]));
    document["process"]["user"] = json!({ "uid": 7, "additionalGids": [3] });
    expect(&document, "/process/user/uid", "not mapped");
    document["process"]["user"] = json!({ "uid": 4, "additionalGids": [3, 11] });
    expect(&document, "/process/user/additionalGids/1", "not mapped");
    error(at, json!([line(0, 0, 1)]), "user namespace isn't enabled");
}

#[test]
fn mounts() {
    let of = |mount: Value| with("/mounts", json!([mount]));
    let bind = |options: Value| of(json!({ "destination": "/x", "source": "/y", "options": options }));
    expect(&of(json!({ "type": "tmpfs" })), "/mounts/0/destination", "destination must not be empty");
    expect(&of(json!({ "destination": "/x", "options": ["bind"] })), "/mounts/0/source", "source");
    expect(&of(json!({ "destination": "/x", "type": "bind" })), "/mounts/0/options", "no bind option");
    expect(&of(json!({ "destination": "/x" })), "/mounts/0/type", "neither");
    expect(&bind(json!(["ro", "rbind", "mode=1"])), "/mounts/0/options/2", "filesystem-specific");
    assert!(check(&bind(json!(["rbind", "copy", "nocopy", "volume-opt=o=size=1m"])), None).is_empty());
    let findings = check(&bind(json!(["ro", "rbind", "rw"])), None);
    assert_eq!((findings.len(), findings[0].pointer.as_str()), (1, "/mounts/0/options/2"));
    let findings = check(&of(json!({ "destination": "x", "type": "tmpfs" })), None);
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning));
    assert!(findings[0].problem.contains("mount destination x is not absolute"));
    let mapped = of(json!({ "destination": "/x", "source": "/y", "options": ["bind"],
        "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] }));
    expect(&mapped, "/mounts/0", "both uidMappings and gidMappings");
    expect(&bind(json!(["bind", "idmap"])), "/mounts/0/options", "it has none");
    expect(&bind(json!(["bind", "idmap=uids=0-1;gids=0-1-1"])), "/mounts/0/options", "no range of ids");
    assert_eq!(check(&bind(json!(["bind", "idmap=uids=@0-1-1;gids=0-1-1"])), None), []);
    expect(&bind(json!(["bind", "copy-symlink", "src-nofollow"])), "/mounts/0/options", "mutually exclusive");
    let tmpfs = |options: Value| of(json!({ "destination": "/x", "type": "tmpfs", "options": options }));
    expect(&tmpfs(json!(["idmap=uids=0-1-1;gids=0-1-1"])), "/mounts/0", "only supported for bind-mounts");
    expect(&tmpfs(json!(["copy-symlink"])), "/mounts/0/options", "options of bind mounts");
}

#[test]
fn devices() {
    let of = |device: Value| with("/linux/devices", json!([device]));
    let device = |kind: &str, path: &str| of(json!({ "type": kind, "path": path, "major": 1, "minor": 3 }));
    assert_eq!(check(&device("c", "/dev/x"), None), []);
    expect(&device("z", "/dev/x"), "/linux/devices/0/type", "invalid device type \"z\"");
    expect(&device("c", "dev/x"), "/linux/devices/0/path", "absolute");
    expect(&of(json!({ "type": "c", "path": "/x", "major": 5000, "minor": 0 })), "/linux/devices/0/major", "5000");
    assert_eq!(check(&of(json!({ "type": "p", "path": "/x" })), None), []);
    for (kind, mode, good) in [("p", 0o10644, true), ("p", 0o20644, false), ("p", 0o1000, false), ("p", 0o777, true)] {
        let document = of(json!({ "type": kind, "path": "/x", "fileMode": mode }));
        if good {
            assert_eq!(check(&document, None), []);
        } else {
            expect(&document, "/linux/devices/0/fileMode", "nine bits");
        }
    }
    let rule = |rule: Value| with("/linux/resources/devices", json!([rule]));
    assert_eq!(check(&rule(json!({ "allow": false, "access": "rwm", "type": "", "major": -1 })), None), []);
    expect(&rule(json!({ "allow": false })), "/linux/resources/devices/0/access", "empty");
    expect(&rule(json!({ "allow": false, "access": "rwx" })), "/linux/resources/devices/0/access", "rwx");
}

#[test]
fn sysctls() {
    let host = |key: &str| with("/linux/sysctl", json!({ key: "1" }));
    expect(
        &host("kernel.panic"),
        "/linux/sysctl/kernel.panic",
        "sysctl \"kernel.panic\" is not in a separate kernel namespace",
    );
    expect(&host("net.ipv4.ip_forward"), "/linux/sysctl/net.ipv4.ip_forward", "network namespace");
    expect(&host("kernel.shmmax"), "/linux/sysctl/kernel.shmmax", "ipc namespace");
    expect(&host("kernel/shmmax"), "/linux/sysctl/kernel~1shmmax", "ipc namespace");
    expect(&host("kernel.hostname"), "/linux/sysctl/kernel.hostname", "hostname");
    assert_eq!(check(&host("kernel.domainname"), None), []);
    for (key, kind, file) in
        [("net.core.somaxconn", "network", "net"), ("kernel.shmmax", "ipc", "ipc"), ("kernel.domainname", "uts", "uts")]
    {
        let joining = |path: &str| {
            let mut config = host(key);
            let namespaces = json!([{ "type": "mount" }, { "type": kind, "path": path }]);
            config["linux"]["namespaces"] = namespaces;
            config
        };
        let problem = format!("sysctl \"{key}\" is not allowed in the hosts {kind} namespace");
        expect(&joining(&format!("/proc/self/ns/{file}")), &format!("/linux/sysctl/{key}"), &problem);
        let others = check(&joining("/proc/self/ns/mnt"), None);
        assert!(others.iter().all(|finding| !finding.pointer.starts_with("/linux/sysctl")), "{others:?}");
    }
    // Both would be written to /proc/sys/net/../kernel/core_pattern.
    for escape in ["net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net..core"] {
        let pointer = format!("/linux/sysctl/{}", escape.replace('/', "~1"));
        expect(&host(escape), &pointer, "is not a name");
    }
    assert_eq!(sysctl::dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    assert_eq!(sysctl::dotted("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
}

#[test]
fn resources() {
    let at = "/linux/resources";
    error(&format!("{at}/memory/limit"), json!(1), "less than one page");
    error(&format!("{at}/memory/limit"), json!(-5), "invalid argument");
    error(&format!("{at}/memory/swap"), json!(5), "without memory limit");
    expect(
        &with(&format!("{at}/memory"), json!({ "limit": 9_000, "swap": 5_000 })),
        &format!("{at}/memory/swap"),
        ">= memory limit",
    );
    error(&format!("{at}/memory/swappiness"), json!(101), "valid range is 0-100");
    error(&format!("{at}/cpu/quota"), json!(10), "invalid argument");
    error(&format!("{at}/cpu/period"), json!(10), "invalid argument");
    error(&format!("{at}/cpu/cpus"), json!("zero"), "no list");
    error(&format!("{at}/cpu/idle"), json!(2), "neither");
    error(&format!("{at}/blockIO/weight"), json!(5), "out of range");
    expect(
        &with(&format!("{at}/hugepageLimits"), json!([{ "pageSize": "2", "limit": 1 }])),
        &format!("{at}/hugepageLimits/0/pageSize"),
        "page size",
    );
    expect(&with(&format!("{at}/unified"), json!({ "a/b.c": "1" })), &format!("{at}/unified/a~1b.c"), "no slashes");
    error(&format!("{at}/unified/memory"), json!("1"), "CONTROLLER.PARAMETER");
    fine(&format!("{at}/pids/limit"), json!(-1));
    fine(&format!("{at}/cpu/quota"), json!(-1));
}

#[test]
fn seccomp() {
    let of = |profile: Value| with("/linux/seccomp", profile);
    let at = "/linux/seccomp";
    expect(&of(json!({})), &format!("{at}/defaultAction"), "default action is missing");
    expect(
        &of(json!({ "defaultAction": "SCMP_ACT_NOSUCH" })),
        &format!("{at}/defaultAction"),
        "string SCMP_ACT_NOSUCH is not a valid action for seccomp",
    );
    let with_syscall = |call: Value| of(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call] }));
    let call = json!({ "names": ["nosuchcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] });
    assert_eq!(check(&with_syscall(call.clone()), None), []);
    let mut wrong = call.clone();
    wrong["args"][0]["op"] = json!("SCMP_CMP_X");
    expect(&with_syscall(wrong), &format!("{at}/syscalls/0/args/0/op"), "valid operator");
    let mut wrong = call;
    wrong["args"][0]["index"] = json!(6);
    expect(&with_syscall(wrong), &format!("{at}/syscalls/0/args/0/index"), "out of range");
    expect(
        &of(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"] })),
        &format!("{at}/architectures/0"),
        "valid arch",
    );
    expect(&of(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["x"] })), &format!("{at}/flags/0"), "flag");
    let none = with_syscall(json!({ "names": [], "action": "SCMP_ACT_LOG" }));
    expect(&none, &format!("{at}/syscalls/0/names"), "without system calls");
    let notify = with_syscall(json!({ "names": ["mount"], "action": "SCMP_ACT_NOTIFY" }));
    expect(&notify, &format!("{at}/syscalls/0/action"), "listenerPath is not set");
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
