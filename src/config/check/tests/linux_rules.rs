//! As rules.rs, for what `linux` and `mounts` say.

use super::rules::{error, expect, fine, warning};
use super::*;

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
        let message = format!("unable to set {name} without a private UTS namespace");
        expect(&document, &format!("/{name}"), &message);
        // Without the section there is no namespace at all.
        document["linux"] = Value::Null;
        expect(&document, &format!("/{name}"), &message);
        document.as_object_mut().expect("an object").remove("linux");
        expect(&document, &format!("/{name}"), &message);
    }
    expect(&with("/linux/maskedPaths", json!(["/./"])), "/linux/maskedPaths/0", "cannot be masked");
    let mut document = of(json!([]));
    document["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    expect(&document, "/linux/maskedPaths", "private MNT namespace");
    warning("/linux/readonlyPaths", json!(["proc"]), "/linux/readonlyPaths/0", "not absolute");
    error("/linux/rootfsPropagation", json!("x"), "rootfsPropagation=x is not supported");
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
    let single = |count: u32| of((0..count).map(|number| line(number, 4_000_000_000 - 2 * number, 1)).collect());
    assert_eq!(check(&single(200), None), []);
    expect(&single(341), at, "at most 340");
    if nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) == Ok(Some(4096)) {
        expect(&single(340), at, "less than a page of 4096");
    }
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
    let other = if cfg!(target_endian = "big") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_S390X" };
    expect(
        &of(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [other] })),
        &format!("{at}/architectures/0"),
        "another byte order",
    );
    for (action, number, problem) in
        [("SCMP_ACT_ERRNO", 4095, "4095 is no error"), ("SCMP_ACT_TRACE", 65536, "more than a tracer can be told")]
    {
        let default = of(json!({ "defaultAction": action, "defaultErrnoRet": number }));
        expect(&default, &format!("{at}/defaultErrnoRet"), problem);
        let call = |number| with_syscall(json!({ "names": ["chmod"], "action": action, "errnoRet": number }));
        expect(&call(number), &format!("{at}/syscalls/0/errnoRet"), problem);
        assert_eq!(check(&call(number - 1), None), []);
    }
    let none = with_syscall(json!({ "names": [], "action": "SCMP_ACT_LOG" }));
    expect(&none, &format!("{at}/syscalls/0/names"), "without system calls");
    let notify = with_syscall(json!({ "names": ["mount"], "action": "SCMP_ACT_NOTIFY" }));
    expect(&notify, &format!("{at}/syscalls/0/action"), "listenerPath is not set");
}
