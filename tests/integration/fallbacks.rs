//! Old kernels: each newer system call is taken away, alone and with its like, and the container's life is the same.

use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Runtime, needs_root, payload, skip};

pub const ENOSYS: i32 = 38;
pub const EPERM: i32 = 1;

/// Numbers that are the same on every architecture.
const CALLS: &[(&str, u32)] = &[
    ("pidfd_send_signal", 424),
    ("open_tree", 428),
    ("move_mount", 429),
    ("fsopen", 430),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("pidfd_open", 434),
    ("clone3", 435),
    ("close_range", 436),
    ("openat2", 437),
    ("faccessat2", 439),
    ("epoll_pwait2", 441),
    ("mount_setattr", 442),
    ("statmount", 457),
    ("open_tree_attr", 467),
];
const MOUNT_API: &str = "open_tree move_mount fsopen fsconfig fsmount mount_setattr open_tree_attr";

fn all() -> String {
    CALLS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// A runtime for which there are no such calls.
pub fn runtime_without(names: &str, errno: i32) -> Runtime {
    let number = |name: &str| CALLS.iter().find(|(known, _)| *known == name).expect("a known call").1.to_string();
    let numbers: Vec<String> = names.split(' ').map(number).collect();
    let program = payload::without().display().to_string();
    Runtime::under_test().wrapped(&[&program, &errno.to_string(), &numbers.join(",")])
}

/// What the probe sees, but for the filter that is this test's own.
fn seen(runtime: &Runtime, bundle: &Bundle) -> Value {
    let container = Container::new(runtime, bundle);
    let output = container.run(&[]).ok();
    let mut seen: Value =
        serde_json::from_str(&output.stdout.replace(&container.id, "ID")).expect("the probe prints JSON");
    // The streams are files of the runtime's.
    seen["fds"] = json!(seen["fds"].as_object().map(|fds| fds.keys().cloned().collect::<Vec<_>>()));
    // Asked by a program that the probe starts, which needs more than execve.
    seen["ioprio"].take();
    seen["status"]["Seccomp"].take();
    seen["status"]["Seccomp_filters"].take();
    seen
}

/// Everything that a mount can be.
fn rich() -> Bundle {
    let mut b = Bundle::new();
    b.make_file("file", "x");
    b.make_file("directory/inner/file", "y");
    b.make_file("rootfs/full/of/files", "z");
    b.make_link("rootfs/link", "/full");
    b.bind("file", "/etc/file", &["bind", "ro", "nosuid"]);
    b.bind("directory", "/new/directory", &["rbind", "nodev", "noexec"]);
    b.bind("directory", "/link/bound", &["rbind", "rw", "rprivate"]);
    b.mount("/tmp", "tmpfs", "scratch", &["nosuid", "size=64k", "mode=1777", "noatime"]);
    b.mount("/full", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
    b.mount("/host-dev", "bind", "/dev", &["rbind", "ro"]);
    b.set("/root/readonly", json!(true));
    b.set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/scsi", "/etc/passwd"]));
    b.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/bus", "/sys/fs/cgroup"]));
    b.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    b.set("/linux/devices", json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438 }]));
    b.probe(&["--list", "/full", "--list", "/new/directory/inner", "--write", "/etc/passwd", "--write", "/tmp"]);
    b
}

fn mapped() -> Bundle {
    let mut b = Bundle::new();
    b.namespace("user", "");
    for maps in ["uidMappings", "gidMappings"] {
        b.spec["linux"][maps] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    }
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(b.host(dir), Some(100_000), Some(100_000)).expect("chown the root file system");
    }
    b
}

fn without_proc() -> Bundle {
    let mut b = Bundle::shell("echo $PPID; ls /; exec ls /dev");
    b.unmount("/proc").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    b
}

/// The whole life: create, state, start, exec, events, ps, pause, kill, delete.
fn live(runtime: &Runtime) {
    let bundle = Bundle::shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done");
    let container = Container::new(runtime, &bundle);
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.wait_stdout("up");
    let output = container.exec(&[], &["sh", "-c", "cat /proc/1/comm; exit 3"]);
    assert_eq!((output.code, output.stdout.trim()), (3, "sh"), "{}", output.stderr);
    runtime.run(&["pause", &container.id]).ok();
    runtime.run(&["resume", &container.id]).ok();
    runtime.run(&["ps", &container.id]).ok();
    container.delete(&[]).fails(1, "not stopped");
    container.kill("TERM").ok();
    assert_eq!(container.wait_exit(), Some(9));
    container.delete(&[]).ok();
    container.run_detached(&[]).ok();
    container.delete(&["--force"]).ok();
    let mut bundle = Bundle::shell("exit 4");
    let hook = json!([{ "path": "/bin/true", "timeout": 5 }]);
    bundle.set("/hooks", json!({ "createRuntime": hook, "createContainer": hook, "poststop": hook }));
    assert_eq!(Container::new(runtime, &bundle).run(&[]).code, 4);
}

fn check(names: &str, errors: &[i32]) {
    if !Runtime::under_test().is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let whole = Runtime::under_test();
    let bundles = [Bundle::new(), rich(), mapped()];
    let expected: Vec<Value> = bundles.iter().map(|bundle| seen(&whole, bundle)).collect();
    for &errno in errors {
        let runtime = runtime_without(names, errno);
        for (bundle, expected) in bundles.iter().zip(&expected) {
            let seen = seen(&runtime, bundle);
            for (key, value) in expected.as_object().expect("an object") {
                let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
                assert_eq!(pretty(&seen[key]), pretty(value), "{key} without {names} (error {errno})");
            }
        }
        let bundle = without_proc();
        let output = Container::new(&runtime, &bundle).run(&[]).ok();
        assert_eq!(output.stdout, Container::new(&whole, &bundle).run(&[]).ok().stdout);
        live(&runtime);
    }
}

/// Nothing can stand in for it, and files of the wrong owner would be no help.
#[test]
fn idmapped_mounts_are_refused() {
    needs_root!();
    if !Runtime::under_test().is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut bundle = Bundle::new();
    bundle.make_dir("data");
    bundle.bind("data", "/tmp", &["bind"]);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    bundle.set("/mounts/7/uidMappings", map.clone()).set("/mounts/7/gidMappings", map);
    for names in ["mount_setattr open_tree_attr", "open_tree open_tree_attr", MOUNT_API] {
        let runtime = runtime_without(names, ENOSYS);
        Container::new(&runtime, &bundle).run(&[]).fails(1, "/mounts/7: ").fails(1, "idmapped mounts need");
    }
}

macro_rules! without {
    ($($test:ident: $names:expr, $($errno:expr)*;)*) => {$(
        #[test]
        fn $test() {
            needs_root!();
            check($names, &[$($errno),*]);
        }
    )*};
}

without! {
    no_clone3: "clone3", ENOSYS;
    no_openat2: "openat2", ENOSYS;
    no_close_range: "close_range", ENOSYS;
    no_faccessat2: "faccessat2 epoll_pwait2", ENOSYS;
    no_pidfd_open: "pidfd_open", ENOSYS;
    no_pidfd_send_signal: "pidfd_send_signal", ENOSYS;
    no_open_tree_attr: "open_tree_attr", ENOSYS EPERM;
    no_open_tree: "open_tree open_tree_attr", ENOSYS;
    no_move_mount: "move_mount", ENOSYS;
    no_fsopen: "fsopen", ENOSYS;
    no_mount_setattr: "mount_setattr open_tree_attr", ENOSYS;
    no_mount_api: MOUNT_API, ENOSYS EPERM;
    no_pidfds: "pidfd_open pidfd_send_signal clone3", EPERM;
    nothing_new: &all(), ENOSYS EPERM;
}
