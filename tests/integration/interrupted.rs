//! Commands that are killed half-way, and what the next command makes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::children::poll_until;
use crate::support::runtime::{Invocation, Running, find_program};
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, skip};

const LONG: Duration = Duration::from_secs(20);

/// A `start` that is killed when stage2 goes on already leaves a container that runs, and does not look like one that
/// waits, which `delete` would remove without being forced to.
#[test]
fn a_killed_start_leaves_a_container_that_runs() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.make_dir("shared");
    bundle.bind("shared", "/shared", &["bind", "rw"]);
    bundle.make_script("rootfs/usr/bin/hook", "touch /shared/begun; while [ ! -e /shared/go ]; do sleep 0.05; done");
    let hook = json!([{ "path": "/usr/bin/hook", "env": ["PATH=/bin:/usr/bin"] }]);
    bundle.set("/hooks", json!({ "startContainer": hook }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let start = runtime.invoke(&["start", &container.id]).start();
    poll_until(LONG, || bundle.host("shared/begun").exists().then_some(())).expect("the hook begins");
    kill_process(Pid::from_raw(start.pid()).expect("a pid"), Signal::KILL).expect("kill start");
    start.wait();
    bundle.make_file("shared/go", "");
    poll_until(LONG, || (container.status() == "running").then_some(())).expect("the container runs");
    container.start().fails(1, "cannot start an already running container");
    container.delete(&[]).fails(1, "is not stopped");
    container.delete(&["--force"]).ok();
}

/// Another command removed the container of a `run`, and a third gave its id to a new one: that is not the run's to remove.
#[test]
fn a_run_leaves_the_next_container_of_its_id_alone() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &bundle);
    for _ in 0..5 {
        let run = container.background("run", &[]).start();
        poll_until(LONG, || (container.status() == "running").then_some(())).expect("the container runs");
        container.delete(&["--force"]).ok();
        container.run_detached(&[]).ok();
        run.wait();
        assert_eq!(container.status(), "running");
        container.delete(&["--force"]).ok();
    }
}

/// A bundle whose first create is held up by a hook.
fn hanging_bundle() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.make_script("hang", "[ -e begun ] && exit 0; touch begun; exec sleep 600");
    let path = bundle.host("hang");
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": path, "env": ["PATH=/bin:/usr/bin"] }] }));
    bundle
}

fn begin(bundle: &Bundle, container: &Container) -> Running {
    let create = container.background("create", &[]).start();
    poll_until(LONG, || bundle.host("begun").exists().then_some(())).expect("the hook begins");
    create
}

/// `delete --force` does not wait for a hook that never ends: it ends the command that waits for it, and the hook.
#[test]
fn delete_force_ends_a_create_whose_hook_hangs() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), hanging_bundle());
    let container = Container::new(&runtime, &bundle);
    let create = begin(&bundle, &container);
    container.delete(&["--force"]).ok();
    assert_ne!(create.wait().code, 0);
    let hang = bundle.host("hang").display().to_string();
    let ended = poll_until(LONG, || (!runs(&hang)).then_some(()));
    assert!(ended.is_some(), "the hook outlives its runtime");
}

/// Inodes are numbered by each file system: whoever has locked a file of the same number elsewhere is not the holder.
#[test]
fn delete_force_ends_nobody_else() {
    needs_root!();
    for program in ["unshare", "flock"] {
        if find_program(program).is_none() {
            skip!("needs {program}");
        }
    }
    let (runtime, bundle) = (Runtime::under_test(), hanging_bundle());
    bundle.write();
    let script = r#"
        mkdir "$2/states" "$2/others" && mount -t tmpfs none "$2/states" && mount -t tmpfs none "$2/others" || exit 90
        "$1" --root "$2/states" create --bundle "$2" "$3" </dev/null >/dev/null 2>&1 &
        create=$!
        while [ ! -d "$2/states/$3" ]; do sleep 0.05; done
        number=$(stat -c %i "$2/states/$3")
        while file=$(mktemp "$2/others/XXXXXX"); [ "$(stat -c %i "$file")" -lt "$number" ]; do :; done
        [ "$(stat -c %i "$file")" = "$number" ] || exit 91
        flock "$file" sleep 600 &
        other=$!
        while ! grep -q "FLOCK.* $other .*:$number " /proc/locks; do sleep 0.05; done
        "$1" --root "$2/states" delete --force "$3" || exit 92
        wait $create && exit 93
        kill -0 $other || exit 94
        kill $(cat /proc/$other/task/$other/children) $other"#;
    let (program, path) = (runtime.program.display().to_string(), bundle.path().display().to_string());
    let words = ["unshare", "--mount", "sh", "-c", script, "sh", &program, &path, &bundle.name()];
    let words = words.map(str::to_owned).to_vec();
    Invocation::new(words, runtime.scratch().to_owned()).run().ok();
}

/// The next create of the id removes what a killed one left.
#[test]
fn a_killed_create_does_not_keep_its_id() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), hanging_bundle());
    let container = Container::new(&runtime, &bundle);
    let create = begin(&bundle, &container);
    kill_process(Pid::from_raw(create.pid()).expect("a pid"), Signal::KILL).expect("kill create");
    create.wait();
    container.create().ok();
    container.delete(&["--force"]).ok();
}

/// What a create that is killed at the cgroups leaves behind: nothing once it is deleted, and if the cgroups are those of
/// another container, that one goes on.
#[test]
fn a_create_killed_at_its_cgroups_does_no_harm_to_others() {
    needs_root!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let (mut bundle, mut second) = (Bundle::shell("exec sleep 600"), Bundle::shell("exec sleep 600"));
    let path = format!("/{}", bundle.name());
    bundle.set("/linux/cgroupsPath", path.clone().into());
    second.set("/linux/cgroupsPath", path.into());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let cgroups: Vec<String> =
        leftover::cgroups(&bundle.name()).iter().map(|path| path.display().to_string()).collect();
    let mut words = vec!["strace", "-o", "/dev/null", "-e", "inject=mkdir,mkdirat:signal=KILL"];
    words.extend(cgroups.iter().flat_map(|path| ["-P", path]));
    let other = Container::new(&runtime, &second);
    assert_ne!(other.background("create", &[]).through(&words).run().code, 0);
    assert!(runtime.root().join(&other.id).exists(), "it was killed too early");
    other.delete(&["--force"]).ok();
    assert_eq!(container.status(), "running");
    // Alone it leaves the cgroups that it has made, which have to go.
    container.delete(&["--force"]).ok();
    if cgroups.len() == 1 {
        return;
    }
    words[4] = "inject=mkdir,mkdirat:signal=KILL:when=2";
    assert_ne!(other.background("create", &[]).through(&words).run().code, 0);
    assert_ne!(leftover::cgroups(&bundle.name()), Vec::<std::path::PathBuf>::new());
    other.delete(&["--force"]).ok();
    assert_eq!(leftover::cgroups(&bundle.name()), Vec::<std::path::PathBuf>::new());
}

/// Of a create that was killed while it made the cgroups, a directory that cannot be removed is told of and not forgotten.
#[test]
fn what_a_killed_create_left_is_not_forgotten() {
    let runtime = own_engine!();
    if !Path::new("/sys/fs/cgroup/cpuset/tasks").exists() {
        skip!("no cpuset of cgroup v1");
    }
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let bundle = Bundle::shell("true");
    let container = Container::new(&runtime, &bundle);
    let cgroup = format!("/sys/fs/cgroup/cpuset/{}", container.id);
    let at = |inject| ["strace", "-f", "-o", "/dev/null", "-P", &cgroup, "-e", inject];
    container.background("create", &[]).through(&at("inject=openat:signal=KILL")).run();
    assert!(Path::new(&cgroup).exists(), "the create was killed too early");
    let delete = || runtime.invoke(&["delete", "--force", &container.id]);
    delete().through(&at("inject=unlinkat:error=ENOSPC")).run().fails(1, "rmdir");
    delete().run().ok();
    assert_eq!(leftover::cgroups(&container.id), Vec::<PathBuf>::new());
}

/// A record that cannot be read still has a container behind it.
#[test]
fn delete_force_of_a_damaged_record_ends_the_container() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let pid = container.pid();
    std::fs::write(runtime.root().join(&container.id).join("state.json"), "").expect("damage the record");
    container.delete(&["--force"]).ok();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/cwd")).exists(), "the container still runs");
}

fn runs(program: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(program))
}
