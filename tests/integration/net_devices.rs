//! `linux.netDevices`: devices that move into the container. The devices are veth pairs, which every kernel can make; they
//! end with the network namespace that they are in, so none is left behind.

use std::process::Command;

use serde_json::json;

use crate::mounts::only_own_engine;
use crate::support::children::poll_until;
use crate::support::runtime::{find_program, next_number};
use crate::support::{Bundle, Container, Runtime, edit_record, skip};

/// A device of the host, removed at the end.
struct Device {
    name: String,
    peer: String,
}

fn ip(args: &[&str]) -> Option<String> {
    let output = Command::new("ip").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Device {
    fn new() -> Option<Device> {
        // Names are short: 15 bytes, a label's suffix included.
        let number = format!("{:x}x{:x}", std::process::id(), next_number());
        let device = Device { name: format!("ra{number}"), peer: format!("rb{number}") };
        ip(&["link", "add", &device.name, "type", "veth", "peer", "name", &device.peer])?;
        Some(device)
    }

    fn ip(&self, args: &[&str]) {
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "NAME" { &self.name } else { *arg }).collect();
        ip(&args).unwrap_or_else(|| panic!("ip {args:?} failed"));
    }

    /// What `ip address` says about it on the host; None where it is not there.
    fn on_host(&self) -> Option<String> {
        ip(&["address", "show", "dev", &self.name])
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The peer ends with it, wherever it is.
        let _ = ip(&["link", "del", &self.peer]);
    }
}

macro_rules! device {
    () => {
        match Device::new() {
            Some(device) => device,
            None => skip!("no veth devices can be made here"),
        }
    };
}

/// A bundle whose program prints what `name` is like in the container.
fn bundle(device: &Device, settings: serde_json::Value, name: &str) -> Bundle {
    let mut b = Bundle::shell(&format!("ip address show dev {name}"));
    b.set("/linux/netDevices", json!({ &device.name: settings }));
    b
}

fn run(runtime: &Runtime, b: &Bundle) -> crate::support::Output {
    Container::new(runtime, b).run(&[])
}

#[test]
fn moved_with_everything_and_up() {
    let runtime = only_own_engine!();
    let device = device!();
    device.ip(&["link", "set", "NAME", "mtu", "1400", "address", "02:00:00:00:00:77"]);
    device.ip(&["address", "add", "192.0.2.7/24", "broadcast", "192.0.2.255", "dev", "NAME"]);
    device.ip(&["address", "add", "192.0.2.8/24", "dev", "NAME"]);
    device.ip(&["address", "add", "198.51.100.1/32", "scope", "link", "dev", "NAME"]);
    device.ip(&["address", "add", "2001:db8::7/64", "dev", "NAME"]);
    device.ip(&["link", "set", "NAME", "up"]);
    let b = bundle(&device, json!({}), &device.name);
    let seen = run(&runtime, &b).ok().stdout;
    for wanted in
        ["mtu 1400", "02:00:00:00:00:77", "192.0.2.7/24 brd 192.0.2.255", "192.0.2.8/24", "2001:db8::7/64", ",UP"]
    {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    assert!(!seen.contains("198.51.100.1"), "{seen}");
    // As the specification has it, what is no hardware ends with the namespace.
    let gone = poll_until(std::time::Duration::from_secs(5), || device.on_host().is_none().then_some(()));
    assert!(gone.is_some());
}

#[test]
fn renamed() {
    let runtime = only_own_engine!();
    let device = device!();
    device.ip(&["address", "add", "192.0.2.9/24", "label", &format!("{}:1", device.name), "dev", "NAME"]);
    let b = bundle(&device, json!({ "name": "net0" }), "net0");
    let seen = run(&runtime, &b).ok().stdout;
    assert!(seen.contains("net0") && seen.contains("192.0.2.9/24") && seen.contains("net0:1"), "{seen}");
}

#[test]
fn numbered_by_a_template() {
    let runtime = only_own_engine!();
    let (one, two) = (device!(), device!());
    let mut b = Bundle::shell("ls /sys/class/net");
    b.set("/linux/netDevices", json!({ &one.name: { "name": "net%d" }, &two.name: { "name": "net%d" } }));
    let seen = run(&runtime, &b).ok().stdout;
    assert!(seen.contains("net0") && seen.contains("net1"), "{seen}");
}

/// A namespace that the container joins keeps the device when the container has gone.
#[test]
fn into_a_namespace_that_is_there() {
    let runtime = only_own_engine!();
    let device = device!();
    device.ip(&["address", "add", "192.0.2.7/24", "dev", "NAME"]);
    let mut b = bundle(&device, json!({ "name": "net0" }), "net0");
    let pid = b.helper(&["--net"], "");
    b.namespace("network", &format!("/proc/{pid}/ns/net"));
    assert!(run(&runtime, &b).ok().stdout.contains("192.0.2.7/24"));
    let inside = |args: &[&str]| {
        let output = Command::new("nsenter").args(["-t", &pid.to_string(), "-n", "ip"]).args(args).output();
        output.expect("run nsenter")
    };
    let seen = String::from_utf8_lossy(&inside(&["address", "show", "dev", "net0"]).stdout).into_owned();
    assert!(seen.contains("192.0.2.7/24"), "{seen}");
    // A second container finds the name taken, and leaves its own device where it was, as it was.
    let other = device!();
    other.ip(&["address", "add", "2001:db8::9/64", "nodad", "dev", "NAME"]);
    other.ip(&["link", "set", "NAME", "up"]);
    b.set("/linux/netDevices", json!({ &other.name: { "name": "net0" } }));
    run(&runtime, &b).fails(1, "the container has a network device of this name");
    let seen = other.on_host().expect("the device is on the host");
    assert!(seen.contains("2001:db8::9/64") && seen.contains(",UP"), "{seen}");
}

#[test]
fn with_a_user_namespace() {
    let runtime = only_own_engine!();
    let device = device!();
    device.ip(&["address", "add", "192.0.2.7/24", "dev", "NAME"]);
    let mut b = bundle(&device, json!({}), &device.name);
    b.namespace("user", "");
    for maps in ["/linux/uidMappings", "/linux/gidMappings"] {
        b.set(maps, json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]));
    }
    for dir in ["rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"] {
        std::os::unix::fs::chown(b.host(dir), Some(100_000), Some(100_000)).expect("chown");
    }
    assert!(run(&runtime, &b).ok().stdout.contains("192.0.2.7/24"));
}

/// The namespace is made by the container's process, however long that takes.
#[test]
fn into_a_namespace_that_is_made_late() {
    let runtime = only_own_engine!();
    let device = device!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let mut b = bundle(&device, json!({ "name": "net0" }), "net0");
    mapped(&mut b);
    let slow = ["strace", "-f", "-o", "/dev/null", "-e", "inject=unshare:delay_enter=200000"];
    let container = Container::new(&runtime, &b);
    container.background("run", &[]).through(&slow).run().ok();
    assert!(container.stdout().contains("net0"));
}

/// Where the creation fails later, the host gets its devices back with all that they had.
#[test]
fn back_after_a_failed_create() {
    let runtime = only_own_engine!();
    let (device, other) = (device!(), device!());
    device.ip(&["address", "add", "192.0.2.7/24", "dev", "NAME"]);
    device.ip(&["address", "add", "2001:db8::7/64", "nodad", "dev", "NAME"]);
    device.ip(&["link", "set", "NAME", "up"]);
    let mut b = bundle(&device, json!({ "name": "net0" }), "net0");
    b.set(&format!("/linux/netDevices/{}", other.name), json!({}));
    b.bind("nope", "/tmp", &["bind"]);
    run(&runtime, &b).fails(1, "no such file or directory");
    let seen = device.on_host().expect("the device is back");
    assert!(seen.contains("192.0.2.7/24") && seen.contains("2001:db8::7/64") && seen.contains(",UP"), "{seen}");
    let seen = other.on_host().expect("the other device is back");
    assert!(!seen.contains(",UP"), "{seen}");
}

/// sysctls of a device are set when it has arrived.
#[test]
fn sysctl_of_a_moved_device() {
    let runtime = only_own_engine!();
    let device = device!();
    let mut b = bundle(&device, json!({ "name": "net0" }), "net0");
    b.set("/linux/sysctl", json!({ "net.ipv4.conf.net0.forwarding": "1" }));
    b.shell_payload("cat /proc/sys/net/ipv4/conf/net0/forwarding");
    assert_eq!(run(&runtime, &b).ok().stdout.trim(), "1");
}

#[test]
fn what_is_refused() {
    let runtime = only_own_engine!();
    let device = device!();
    let refused = |build: &dyn Fn(&mut Bundle), text: &str| {
        let mut b = bundle(&device, json!({}), "x");
        build(&mut b);
        run(&runtime, &b).fails(1, text);
        assert!(device.on_host().is_some());
    };
    refused(
        &|b| {
            b.without_namespace("network");
        },
        "unable to move network devices without a private NET namespace",
    );
    refused(
        &|b| {
            b.namespace("network", "/proc/self/ns/net");
        },
        "unable to move network devices without a private NET namespace",
    );
    refused(
        &|b| {
            b.set("/linux/netDevices", json!({ "nosuchdev": {} }));
        },
        "/linux/netDevices/nosuchdev: the host has no network device of this name",
    );
    refused(
        &|b| {
            b.set("/linux/netDevices", json!({ "lo": {} }));
        },
        "cannot be moved",
    );
    refused(
        &|b| {
            b.set("/linux/netDevices", json!({ &device.name: { "name": "a/b" } }));
        },
        "invalid network device name \"a/b\"",
    );
    refused(
        &|b| {
            b.set("/linux/netDevices", json!({ &device.name: { "name": "lo" } }));
        },
        "the container has a network device of this name",
    );
}

/// The kernel returns a physical device under the name that it had in the container; `delete` gives it the old one. There is
/// no such device to experiment with, so the record is made to say that a veth is one, and the test does the kernel's part.
#[test]
fn a_returned_device_gets_its_name_back() {
    let runtime = only_own_engine!();
    let device = device!();
    let inside = format!("i{}", device.name);
    let b = bundle(&device, json!({ "name": &inside }), "x");
    device.ip(&["link", "set", "NAME", "address", "02:00:00:00:00:78"]);
    let container = Container::new(&runtime, &b);
    container.create().ok();
    edit_record(&runtime.root().join(&container.id), |record| {
        assert!(record["engineState"].get("netDevices").is_none(), "{record}");
        record["engineState"]["netDevices"] =
            json!([{ "name": &device.name, "inside": &inside, "index": 1, "address": [2, 0, 0, 0, 0, 0x78] }]);
    });
    let (pid, own) = (container.pid().to_string(), std::process::id().to_string());
    let moved = Command::new("nsenter").args(["-t", &pid, "-n", "ip", "link", "set", &inside, "netns", &own]).status();
    assert!(moved.expect("run nsenter").success());
    assert!(device.on_host().is_none());
    container.delete(&["--force"]).ok();
    assert!(device.on_host().is_some());
}

/// Devices of the host are not an ordinary user's, nor those of a root of a user namespace.
#[test]
fn rootless() {
    let runtime = only_own_engine!();
    let device = device!();
    let b = bundle(&device, json!({}), "x");
    b.write();
    let bundle = b.path().display().to_string();
    let call =
        runtime.invoke(&["run", "--bundle", &bundle, "refused"]).through(&["unshare", "--user", "--map-root-user"]);
    call.run().fails(1, "network devices of the host are its root's to move");
    assert!(device.on_host().is_some());
}

/// stage2 mounts before the device is moved to it: what it failed with is what is told, and not what follows from its end.
#[test]
fn after_a_mount_that_fails() {
    let runtime = only_own_engine!();
    let device = device!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let mut b = bundle(&device, json!({}), &device.name);
    b.spec["mounts"][0] = json!({ "destination": "/proc", "type": "nosuchfs", "source": "none" });
    b.write();
    let slow = ["strace", "-o", "/dev/null", "-e", "inject=mkdirat:delay_exit=50000"];
    let call = ["run", "--bundle", &b.path().display().to_string(), &b.name()];
    runtime.invoke(&call).through(&slow).run().fails(1, "error mounting /mounts/0");
    assert!(device.on_host().is_some());
}

/// In a user namespace.
fn mapped(b: &mut Bundle) {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    b.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
}

/// The kernel decides whose these files are when it makes the namespace.
#[test]
fn root_of_a_user_namespace_owns_its_network() {
    let runtime = only_own_engine!();
    let mut b = Bundle::shell("stat -c %u:%g /proc/net/dev /sys/class/net/lo/mtu");
    mapped(&mut b);
    assert_eq!(run(&runtime, &b).ok().stdout, "0:0\n0:0\n");
}
