//! The floor of the bench (contrib/bench/floor.c) is one only while it makes the container that rtx makes.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::runtime::{find_program, read_lossy};
use crate::support::{Bundle, Container, own_engine, skip};

/// The standard streams, which each of the two gets from this test in its own way.
const OF_THE_CALLER: &str = "fds";

/// Where the container's cgroups were, as it saw them: the mounts on the host, the paths in them.
fn cgroups(seen: &Value, id: &str) -> Vec<String> {
    let lines = seen["cgroup"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    let place = |line: &str| {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let is_it = |mount: &&str| match controllers {
            "" => mount.contains(" - cgroup2 "),
            _ => mount.contains(" - cgroup ") && mount.rsplit([' ', ',']).any(|option| option == controllers),
        };
        let mount = table.lines().find(is_it).and_then(|mount| mount.split(' ').nth(4)).expect("a hierarchy's mount");
        format!("{mount}{path}")
    };
    let mut places: Vec<String> = lines.map(place).collect();
    places.sort_by_key(|place| place.contains("/unified/"));
    assert!(places.iter().all(|place| place.ends_with(id)), "{places:?}");
    places
}

#[test]
fn the_floor_makes_the_same_container() {
    let runtime = own_engine!();
    if std::env::consts::ARCH != "x86_64" || find_program("gcc").is_none() {
        skip!("the floor is written for gcc on x86_64");
    }
    if !Path::new("/sys/fs/cgroup/devices").exists() {
        skip!("the floor mounts cgroups of version 1");
    }
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/bundles/hello/config.json");
    let hello: Value = serde_json::from_str(&read_lossy(&hello)).expect("config.json is JSON");
    let mut bundle = Bundle::new();
    for name in ["mounts", "linux", "hostname"] {
        bundle.set(&format!("/{name}"), hello[name].clone());
    }
    for name in ["env", "capabilities", "rlimits", "noNewPrivileges"] {
        bundle.set(&format!("/process/{name}"), hello["process"][name].clone());
    }
    let program = bundle.spec["process"]["args"][0].as_str().expect("the probe's path").to_owned();
    bundle.args(&[&program]);
    let container = Container::new(&runtime, &bundle);
    let report = |text: &str| -> Value { serde_json::from_str(text).expect("the probe prints JSON") };
    let ours = report(&container.run(&[]).ok().stdout);

    let floor = bundle.host("floor");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/bench/floor.c");
    let flags = ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o"];
    let built = Command::new("gcc").args(flags).arg(&floor).arg(source).status().expect("run gcc");
    assert!(built.success());
    let names = |seen: &Value| -> Vec<String> { seen.as_object().expect("an object").keys().cloned().collect() };
    let state = bundle.host("state-of-the-floor");
    let config = bundle.host("config.json");
    let keeps_state = [OsStr::new("--state"), state.as_os_str(), config.as_os_str()];
    for flags in [&[][..], &keeps_state] {
        let output = Command::new(&floor)
            .args(flags)
            .arg(bundle.rootfs())
            .arg(&program)
            .args(cgroups(&ours, &container.id))
            .stdin(Stdio::null())
            .output()
            .expect("run the floor");
        let floors = report(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(names(&ours), names(&floors));
        for name in names(&ours).iter().filter(|name| *name != OF_THE_CALLER) {
            assert_eq!(ours[name], floors[name], "{name}");
        }
        assert!(!state.exists());
    }
}
