//! Several containers in one cgroup: a `cgroupsPath` that names none of them, as buildah's `--cgroup-parent` makes it.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::children::is_alive;
use crate::support::runtime::find_program;
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, skip};

/// A bundle that sleeps in the cgroup `path`.
fn sleeping(path: &str) -> Bundle {
    let mut bundle = Bundle::shell("echo up; exec sleep 600");
    bundle.set("/linux/cgroupsPath", json!(path));
    bundle
}

#[track_caller]
fn start(container: &Container) {
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
}

#[test]
fn who_goes_takes_nobody_along() {
    needs_root!();
    let (runtime, place) = (Runtime::under_test(), Bundle::new());
    let path = format!("/{}", place.name());
    let (one, other) = (sleeping(&path), sleeping(&path));
    let (one, other) = (Container::new(&runtime, &one), Container::new(&runtime, &other));
    start(&one);
    start(&other);
    assert_eq!(leftover::cgroups(&one.id), Vec::<std::path::PathBuf>::new());
    one.delete(&["--force"]).ok();
    assert!(is_alive(other.pid()));
    assert_eq!(other.status(), "running");
    start(&one);
    other.delete(&["--force"]).ok();
    assert!(is_alive(one.pid()));
    one.delete(&["--force"]).ok();
    assert_eq!(leftover::cgroups(&place.name()), Vec::<std::path::PathBuf>::new());
}

/// SIGKILL for all of one container, which other signals cannot be kept to.
#[test]
fn kill_all_means_one() {
    let (runtime, place) = (own_engine!(), Bundle::new());
    let path = format!("/{}", place.name());
    let (one, other) = (sleeping(&path), sleeping(&path));
    let (one, other) = (Container::new(&runtime, &one), Container::new(&runtime, &other));
    start(&one);
    start(&other);
    runtime.run(&["kill", "--all", &one.id, "KILL"]).ok();
    assert_eq!(one.wait_exit(), Some(137));
    runtime.run(&["kill", "--all", &one.id, "KILL"]).ok();
    assert!(is_alive(other.pid()));
}

/// A stranger in a cgroup below is none of the container's either.
#[test]
fn a_cgroup_below_stays() {
    needs_root!();
    let (runtime, place) = (Runtime::under_test(), Bundle::new());
    let bundle = sleeping(&format!("/{}", place.name()));
    let container = Container::new(&runtime, &bundle);
    start(&container);
    let stranger = place.helper(&["--uts"], "");
    for directory in leftover::cgroups(&place.name()) {
        let below = directory.join("below");
        std::fs::create_dir(&below).expect("make a cgroup");
        // A new cpuset takes nobody.
        let joined = std::fs::write(below.join("cgroup.procs"), stranger.to_string());
        assert!(joined.is_ok() || below.join("cpuset.cpus").exists(), "{joined:?}");
    }
    container.delete(&["--force"]).ok();
    assert!(is_alive(stranger), "it was killed");
}

/// What is found in a cgroup of the container's name was left by another of that name.
#[test]
fn its_own_cgroup_must_be_empty() {
    let (runtime, place) = (own_engine!(), Bundle::new());
    let mut bundle = Bundle::shell("true");
    let id = format!("own-{}", place.name());
    bundle.set("/linux/cgroupsPath", json!(format!("/{}/{id}", place.name())));
    let other = sleeping(&format!("/{}/{id}", place.name()));
    let other = Container::new(&runtime, &other);
    start(&other);
    bundle.write();
    let output = runtime.run(&["run", "--bundle", &bundle.path().display().to_string(), &id]);
    output.fails(1, "container's cgroup is not empty: 1 process(es) found");
    assert!(is_alive(other.pid()));
}

/// A create that is killed has not seen yet that its last cgroup is another's, and the record does not say so.
#[test]
fn what_a_killed_create_had_not_looked_at_stays() {
    let (runtime, place) = (own_engine!(), Bundle::new());
    let last = Path::new("/sys/fs/cgroup/cpu");
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    if !last.join("cpu.shares").exists() && !last.join("tasks").exists() {
        skip!("no cgroup v1 hierarchy for cpu");
    }
    let id = format!("own-{}", place.name());
    let mut bundle = sleeping(&format!("/{id}"));
    bundle.without_namespace("pid");
    bundle.write();
    let found = last.join(&id);
    std::fs::create_dir(&found).expect("make a cgroup");
    // Empty, but with another's cgroup below: in one of version 1, and in that which the process is born in.
    let mut parents = vec![Path::new("/sys/fs/cgroup/pids").join(&id)];
    let unified = Path::new("/sys/fs/cgroup/unified");
    parents.extend(unified.join("cgroup.procs").exists().then(|| unified.join(&id)));
    let below: Vec<PathBuf> = parents.iter().map(|parent| parent.join("below")).collect();
    below.iter().for_each(|directory| std::fs::create_dir_all(directory).expect("make a cgroup"));
    let stranger = place.helper(&["--uts"], "");
    std::fs::write(found.join("cgroup.procs"), stranger.to_string()).expect("move a process");
    let directory = found.display().to_string();
    let killing = ["strace", "-f", "-o", "/dev/null", "-P", &directory, "-e", "inject=mkdirat:signal=SIGKILL"];
    let create = ["create", "--bundle", &bundle.path().display().to_string(), &id];
    runtime.invoke(&create).through(&killing).run();
    assert!(leftover::cgroups(&id).len() > 1, "it was not killed late enough");
    let listed = runtime.run(&["gc", "--dry-run"]).ok().stdout;
    assert!(!listed.contains(&directory), "{listed}");
    runtime.run(&["kill", "--all", &id, "KILL"]).fails(1, "not running");
    runtime.run(&["delete", "--force", &id]).ok();
    let (alive, mut left) = (is_alive(stranger), leftover::cgroups(&id));
    std::fs::write(last.join("cgroup.procs"), stranger.to_string()).expect("move a process");
    let mut others: Vec<PathBuf> = below.into_iter().chain(parents).chain([found]).collect();
    let removed: Vec<bool> = others.iter().map(|directory| std::fs::remove_dir(directory).is_ok()).collect();
    assert!(alive, "the other's process was killed");
    assert!(removed.iter().all(|removed| *removed), "{removed:?}");
    others.sort();
    left.sort();
    assert_eq!(left, others);
}

/// Mounts are made while the cgroups are, but not what needs them.
#[test]
fn its_own_cgroup_as_the_source_of_a_mount() {
    let (runtime, place) = (own_engine!(), Bundle::new());
    let Some(hierarchy) = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().map(Path::new).find(|path| path.exists())
    else {
        skip!("no cgroups are mounted");
    };
    let mut bundle = Bundle::shell("cat /tmp/cgroup.procs");
    let id = place.name();
    let source = hierarchy.join(&id).display().to_string();
    bundle.set("/linux/cgroupsPath", json!(format!("/{id}")));
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.insert(0, json!({ "destination": "/tmp", "type": "bind", "source": source, "options": ["bind", "ro"] }));
    bundle.write();
    let output = runtime.run(&["run", "--bundle", &bundle.path().display().to_string(), &id]).ok();
    assert!(!output.stdout.trim().is_empty(), "{output:?}");
}
