//! `rtx gc`: what killed commands left goes, and nothing else.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::children::{poll_until, wait_orphan};
use crate::support::runtime::Running;
use crate::support::{Bundle, Container, Runtime, edit_record, leftover, needs_root, own_engine};

const LONG: Duration = Duration::from_secs(20);

fn kill(running: &Running) {
    kill_process(Pid::from_raw(running.pid()).expect("a pid"), Signal::KILL).expect("kill a command");
}

/// Starts a create that a hook holds up when the cgroups are there, and kills it.
fn killed_create(container: &Container<'_>, bundle: &Bundle) {
    let begun = bundle.host("begun");
    let create = container.background("create", &[]).start();
    poll_until(LONG, || begun.exists().then_some(())).expect("the hook begins");
    kill(&create);
    create.wait();
    std::fs::remove_file(begun).expect("remove what the hook made");
}

fn hanging_bundle() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.make_script("hang", "touch begun; exec sleep 600");
    let path = bundle.host("hang");
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": path, "env": ["PATH=/bin:/usr/bin"] }] }));
    bundle
}

#[test]
fn what_a_killed_create_left_goes_and_a_container_stays() {
    let runtime = own_engine!();
    let (bundle, hanging) = (Bundle::shell("exec sleep 600"), hanging_bundle());
    let (kept, created, stopped) =
        (Container::new(&runtime, &bundle), Container::new(&runtime, &bundle), Container::new(&runtime, &bundle));
    kept.run_detached(&[]).ok();
    created.create().ok();
    stopped.run_detached(&[]).ok();
    stopped.kill("KILL").ok();
    stopped.wait_exit();
    let killed = Container::new(&runtime, &hanging);
    killed_create(&killed, &hanging);
    let state = runtime.root().join(&killed.id);
    assert!(state.exists(), "the create was killed too late");

    let planned = runtime.run(&["gc", "--dry-run"]).ok().stdout;
    assert!(planned.contains(&format!("would be removed: state directory {}", state.display())), "{planned}");
    assert!(planned.contains("would be removed: cgroup /sys/fs/cgroup"), "{planned}");
    let total = format!("total: {} would be removed", planned.lines().count() - 1);
    assert_eq!(planned.lines().last(), Some(total.as_str()));
    assert!(state.exists(), "--dry-run removes");
    for other in [&kept, &created, &stopped] {
        assert!(!planned.contains(&other.id), "{planned}");
    }

    let done = runtime.run(&["gc"]).ok().stdout;
    assert_eq!(done, planned.replace("would be removed", "removed"));
    let nothing = || Some(leftover::of(&killed.id, hanging.path(), &runtime.root())).filter(Vec::is_empty);
    assert!(
        poll_until(LONG, nothing).is_some(),
        "left: {:?}",
        leftover::of(&killed.id, hanging.path(), &runtime.root())
    );
    assert_eq!(runtime.run(&["gc"]).ok().stdout, "");
    assert_eq!([kept.status(), created.status(), stopped.status()], ["running", "created", "stopped"]);
    assert_eq!(kept.exec(&[], &["/bin/true"]).code, 0);
    created.start().ok();
    killed.runtime.run(&["state", &killed.id]).fails(1, "does not exist");
}

/// Whose `run` was killed nobody removes when it has ended; while it runs it is left alone, and so is the one of a `run`
/// that is there.
#[test]
fn the_container_of_a_killed_run_goes_when_it_has_ended() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let (orphan, attended) = (Container::new(&runtime, &bundle), Container::new(&runtime, &bundle));
    let kept = Container::new(&runtime, &bundle);
    let run = orphan.background("run", &[]).start();
    let other = attended.background("run", &[]).start();
    for container in [&orphan, &attended] {
        poll_until(LONG, || (container.status() == "running").then_some(())).expect("the container runs");
    }
    let keeping = kept.background("run", &["--keep"]).start();
    poll_until(LONG, || (kept.status() == "running").then_some(())).expect("the container runs");
    kill(&run);
    run.wait();
    let pid = orphan.pid();
    if orphan.status() == "running" {
        assert_eq!(runtime.run(&["gc"]).ok().stdout, "");
        orphan.kill("KILL").ok();
    }
    wait_orphan(pid, LONG);
    poll_until(LONG, || (orphan.status() == "stopped").then_some(())).expect("the container ends");
    kept.kill("KILL").ok();
    assert_eq!(keeping.wait().code, 137);
    let done = runtime.run(&["gc"]).ok().stdout;
    assert!(done.contains(&orphan.id) && !done.contains(&attended.id) && !done.contains(&kept.id), "{done}");
    assert!(!runtime.root().join(&orphan.id).exists());
    assert_eq!([attended.status(), kept.status()], ["running", "stopped"]);
    attended.kill("KILL").ok();
    assert_eq!(other.wait().code, 137);
}

/// As rtx makes the directory of a container.
fn damage(runtime: &Runtime, name: &str) -> PathBuf {
    let path = runtime.root().join(name);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).expect("make a directory in the state root");
    path
}

fn write(path: &Path, mode: u32, text: &str) {
    std::fs::write(path, text).and_then(|()| chmod(path, mode)).expect("make a file");
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// As a create leaves it that is killed after one of its first calls, and as a killed update does.
#[test]
fn what_has_no_record_yet_goes_where_rtx_alone_keeps_things() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let (empty, saved, begun) = (damage(&runtime, "empty"), damage(&runtime, "saved"), damage(&runtime, "begun"));
    write(&saved.join("config.json"), 0o600, "{}");
    write(&begun.join("config.json"), 0o600, "{");
    write(&begun.join(".state.json.new"), 0o600, "{");
    let staged = runtime.root().join(&container.id).join(".config.json.new");
    write(&staged, 0o600, "{");
    let cache = damage(&runtime, "seccomp@cache");
    let (program, other) = (cache.join("ab".repeat(32)), cache.join("other"));
    write(&program, 0o600, "half of a program");
    write(&other, 0o600, "");
    let damaged = damage(&runtime, "damaged");
    write(&damaged.join("state.json"), 0o600, "{");

    let done = runtime.run(&["gc"]).ok().stdout;
    for gone in [&empty, &saved, &begun, &staged, &program] {
        assert!(!gone.exists(), "{}: {done}", gone.display());
    }
    assert!(other.exists() && damaged.exists());
    let advice = format!("`rtx --root {} delete --force damaged`", runtime.root().display());
    assert_eq!(done.matches(&advice).count(), 1, "{done}");
    assert!(done.contains("which cannot be read") && !done.contains("left: directory"), "{done}");
    assert_eq!(container.status(), "running");
    runtime.run(&["delete", "--force", "damaged"]).ok();
    assert!(!damaged.exists());
}

/// A directory that is named by mistake is full of empty directories and of such with a config.json, too.
#[test]
fn in_a_directory_of_others_nothing_goes_but_what_has_a_record() {
    let runtime = own_engine!();
    let hanging = hanging_bundle();
    let killed = Container::new(&runtime, &hanging);
    killed_create(&killed, &hanging);
    let (empty, open) = (damage(&runtime, "empty"), damage(&runtime, "open"));
    let bundle = damage(&runtime, "bundle");
    write(&bundle.join("config.json"), 0o644, "{}");
    chmod(&open, 0o755).expect("change the mode");
    let planned = runtime.run(&["gc", "--dry-run"]).ok().stdout;
    let done = runtime.run(&["gc"]).ok().stdout;
    assert_eq!(done, planned.replace("would be removed", "removed"));
    for there in [&empty, &open, &bundle] {
        assert!(there.exists(), "{}: {done}", there.display());
    }
    assert!(!runtime.root().join(&killed.id).exists(), "{done}");
    assert!(done.contains(&format!("left: directory {} (", runtime.root().display())), "{done}");
    assert!(
        done.contains(r#""bundle" has a "config.json" in it that rtx has not written, "open" has mode 0755"#),
        "{done}"
    );
    assert!(done.contains("empty (of container \"empty\", which has no state): nothing in it says"), "{done}");
    assert!(!done.contains("delete --force"), "{done}");

    // A file alone says so as well, and where none of that is the empty one goes.
    std::fs::remove_dir_all(&bundle).and_then(|()| std::fs::remove_dir(&open)).expect("clear the directory");
    let file = runtime.root().join("passwd");
    write(&file, 0o644, "");
    let done = runtime.run(&["gc"]).ok().stdout;
    assert!(done.contains("\"passwd\" is not a container's") && empty.exists(), "{done}");
    std::fs::remove_file(file).expect("remove the file");
    runtime.run(&["gc"]).ok();
    assert!(!empty.exists());
}

/// A create with a root or an id that was mistaken does not take another's directory for what a killed one left.
#[test]
fn a_create_removes_nothing_of_others() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("true");
    for (name, mode) in [("precious", 0o600), ("config.json", 0o644)] {
        let container = Container::new(&runtime, &bundle);
        let directory = damage(&runtime, &container.id);
        write(&directory.join(name), mode, "{}");
        container.create().fails(1, "already exists");
        assert!(directory.join(name).exists());
        std::fs::remove_dir_all(directory).expect("clear the directory");
    }
}

/// Nor does a forced deletion: the root that was meant may be another.
#[test]
fn a_forced_deletion_removes_nothing_of_others() {
    let runtime = own_engine!();
    for (name, mode) in [("precious", 0o600), ("config.json", 0o644)] {
        let directory = damage(&runtime, "others");
        write(&directory.join(name), mode, "{}");
        let done = runtime.run(&["delete", "--force", "others"]).fails(1, r#""others" is no container"#);
        assert!(done.stderr.contains(name) && done.stderr.contains("--root"), "{}", done.stderr);
        assert!(directory.join(name).exists());
        std::fs::remove_dir_all(directory).expect("clear the directory");
    }
}

/// What rtx did not make, or cannot read, is somebody else's to judge.
#[test]
fn what_is_not_ours_stays() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let foreign = damage(&runtime, "foreign");
    std::fs::write(foreign.join("exec.fifo"), "").expect("make a file");
    let runcs = damage(&runtime, "runcs");
    std::fs::write(runcs.join("state.json"), r#"{"id":"runcs","init_process_pid":1}"#).expect("make a file");
    let no_id = damage(&runtime, "no id");
    write(&runtime.root().join("file"), 0o600, "");

    let done = runtime.run(&["gc"]).ok().stdout;
    assert!(
        done.contains("left: directory") && done.contains(r#""foreign" has "exec.fifo" in it, which is not rtx's"#)
    );
    assert!(done.contains("and 1 more; what has no record"), "{done}");
    let there = |path: &Path| path.exists();
    assert!(there(&foreign.join("exec.fifo")) && there(&runcs.join("state.json")) && there(&no_id));
    assert!(there(&runtime.root().join("file")));
    assert_eq!(container.status(), "running");
    for args in [["state", "runcs"], ["list", "--quiet"]] {
        let told = runtime.run(&args).stderr;
        assert!(told.contains("it is another runtime's container") && !told.contains("--force"), "{told}");
    }
    for name in ["foreign", "runcs"] {
        runtime.run(&["delete", "--force", name]).ok();
    }
}

/// Of many gc's at a time, with creates of the same ids beside them, none removes what another command has just made.
#[test]
fn beside_creates_it_removes_nothing_of_theirs() {
    needs_root!();
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    for _ in 0..5 {
        let containers: Vec<Container<'_>> = (0..4).map(|_| Container::new(&runtime, &bundle)).collect();
        let creates: Vec<Running> =
            containers.iter().map(|container| container.background("create", &[]).start()).collect();
        let collectors: Vec<Running> = (0..4).map(|_| runtime.invoke(&["gc"]).start()).collect();
        for collector in collectors {
            // A directory that a create has made and not locked yet is empty, and that create makes it anew.
            let done = collector.wait().ok().stdout;
            assert!(done.lines().all(|line| line.starts_with("removed: state directory ")), "{done}");
        }
        for (create, container) in creates.into_iter().zip(&containers) {
            create.wait().ok();
            assert_eq!(container.status(), "created");
            container.start().ok();
        }
    }
}

/// A name, and what is done to the state directory.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

/// Whatever is in its place, `delete --force` removes a container's state, and the id can be used again.
#[test]
fn delete_force_of_what_is_damaged() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let damages: [Damage<'_>; 14] = [
        ("truncated", &|d| std::fs::write(d.join("state.json"), "{\"version\":1").expect("write")),
        ("empty", &|d| std::fs::write(d.join("state.json"), "").expect("write")),
        ("binary", &|d| std::fs::write(d.join("state.json"), [0xff; 4096]).expect("write")),
        ("of another runtime", &|d| std::fs::write(d.join("state.json"), r#"{"init_process_pid":1}"#).expect("write")),
        ("of another version", &|d| edit_record(d, |v| v["version"] = json!(99))),
        ("of an unknown engine", &|d| edit_record(d, |v| v["engine"] = json!("none"))),
        ("of another container", &|d| edit_record(d, |v| v["id"] = json!("another"))),
        ("with a damaged part", &|d| edit_record(d, |v| v["engineState"] = json!({"cgroup": 1}))),
        ("gone", &|d| std::fs::remove_file(d.join("state.json")).expect("remove")),
        ("without configuration", &|d| std::fs::remove_file(d.join("config.json")).expect("remove")),
        ("with a damaged configuration", &|d| std::fs::write(d.join("config.json"), "[").expect("write")),
        ("a directory", &|d| {
            std::fs::remove_file(d.join("state.json")).expect("remove");
            std::fs::create_dir_all(d.join("state.json/a/b")).expect("mkdir");
        }),
        ("a link", &|d| {
            std::fs::remove_file(d.join("state.json")).expect("remove");
            std::os::unix::fs::symlink("/etc/passwd", d.join("state.json")).expect("link");
        }),
        ("a fifo", &|d| {
            std::fs::remove_file(d.join("state.json")).expect("remove");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                d.join("state.json"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .expect("mkfifo");
        }),
    ];
    for (what, damage) in damages {
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        let pid = container.pid();
        damage(&runtime.root().join(&container.id));
        let listed = runtime.run(&["list", "--quiet"]).ok();
        let is_whole = what.contains("configuration");
        assert_eq!(listed.stdout.contains(&container.id), is_whole, "{what}: {listed:?}");
        // Without any record only the cgroup could be known, and one with a process may be another's.
        if what == "gone" {
            rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill init");
            wait_orphan(pid, LONG);
        }
        let delete = container.delete(&["--force"]);
        assert_eq!(delete.code, 0, "{what}: {}", delete.stderr);
        wait_orphan(pid, LONG);
        assert!(!runtime.root().join(&container.id).exists(), "{what}: the state is there");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{what}: the container still runs");
        container.create().ok();
        container.delete(&["--force"]).ok();
    }
}

/// Nothing else of the container has to be there.
#[test]
fn delete_force_where_everything_else_is_gone() {
    let runtime = own_engine!();
    let (bundle, lost) = (Bundle::shell("exec sleep 600"), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &lost);
    container.run_detached(&[]).ok();
    container.kill("KILL").ok();
    container.wait_exit();
    for cgroup in leftover::cgroups(&container.id).iter().rev() {
        std::fs::remove_dir(cgroup).expect("remove a cgroup");
    }
    std::fs::remove_dir_all(lost.path()).expect("remove the bundle");
    assert!(runtime.run(&["list", "--quiet"]).ok().stdout.contains(&container.id));
    container.delete(&["--force"]).ok();
    // Never made, and made by halves.
    let other = Container::new(&runtime, &bundle);
    other.delete(&["--force"]).ok();
    std::fs::create_dir(runtime.root().join(&other.id)).expect("make a state directory");
    assert_eq!(runtime.run(&["list", "--quiet"]).ok().stdout, "");
    other.delete(&["--force"]).ok();
    assert!(!runtime.root().join(&other.id).exists());
}

/// A record that somebody removed takes nothing along: what still runs is removed, or it is said why not.
#[test]
fn a_lost_record_loses_nothing() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let lose = |container: &Container<'_>| {
        let pid = container.pid();
        std::fs::remove_file(runtime.root().join(&container.id).join("state.json")).expect("remove the record");
        pid
    };
    let gone = |pid: i32, id: &str| {
        wait_orphan(pid, LONG);
        assert!(leftover::cgroups(id).is_empty() && !runtime.root().join(id).exists());
    };
    // Who waits for start, and who is watched, have left more than the configuration.
    for supervised in [false, true] {
        let container = Container::new(&runtime, &bundle);
        if supervised { container.run_detached(&["--supervise"]) } else { container.create() }.ok();
        let pid = lose(&container);
        let told = runtime.run(&["gc"]).ok().stdout;
        assert!(told.contains("left: state directory") && told.contains("whose record is lost"), "{told}");
        container.create().fails(1, "is lost, and it may still run");
        container.delete(&["--force"]).ok();
        gone(pid, &container.id);
    }
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let pid = lose(&container);
    assert!(runtime.run(&["gc"]).ok().stdout.contains("whose record is lost"));
    container.delete(&["--force"]).fails(1, &format!("whether process {pid} in a cgroup of that name is its program"));
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("end it");
    wait_orphan(pid, LONG);
    poll_until(LONG, || (container.delete(&["--force"]).code == 0).then_some(())).expect("it can be deleted");
    gone(pid, &container.id);
}
