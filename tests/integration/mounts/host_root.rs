//! Containers that have mounts but no mount namespace of their own: what they mount is on the host, as long as they last.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{only_own_engine, run};
use crate::support::children::poll_until;
use crate::support::{Bundle, Container, leftover};

fn without_namespace(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.without_namespace("mount").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    bundle
}

fn on_host(bundle: &Bundle) -> Vec<String> {
    leftover::mounts_below(&bundle.rootfs().display().to_string())
}

#[test]
fn the_mounts_go_with_the_container() {
    let runtime = only_own_engine!();
    let mut bundle = without_namespace("exec sleep 600");
    bundle.namespace("pid", "").set("/root/readonly", json!(true));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let own = std::fs::read_link("/proc/self/ns/mnt").expect("the test's namespace");
    assert_eq!(std::fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).expect("init's namespace"), own);
    let mounted = on_host(&bundle);
    assert_eq!(mounted.first(), Some(&bundle.rootfs().display().to_string()));
    assert!(mounted.iter().any(|path| path.ends_with("/proc")), "{mounted:?}");
    // /dev and the read-only root, for what joins as for init.
    let seen = container.exec(&[], &["sh", "-c", "ls /dev/null; touch /x"]);
    assert!(seen.stdout.contains("/dev/null") && seen.stderr.contains("Read-only file system"), "{}", seen.stderr);
    container.delete(&["--force"]).ok();
    assert_eq!(on_host(&bundle), Vec::<String>::new());
}

#[test]
fn a_foreground_run_leaves_no_mount() {
    let runtime = only_own_engine!();
    let bundle = without_namespace("exit 7");
    assert_eq!(run(&runtime, &bundle).code, 7);
    assert_eq!(on_host(&bundle), Vec::<String>::new());
}

#[test]
fn a_failed_create_leaves_no_mount() {
    let runtime = only_own_engine!();
    let mut bundle = without_namespace("true");
    bundle.args(&["/nope"]);
    run(&runtime, &bundle).fails(1, "no such file or directory");
    assert_eq!(on_host(&bundle), Vec::<String>::new());
}

#[test]
fn a_killed_create_is_unmounted_by_delete() {
    let runtime = only_own_engine!();
    let mut bundle = without_namespace("exec sleep 600");
    bundle.make_script("hang", "touch begun; exec sleep 600");
    let hook = json!([{ "path": bundle.host("hang"), "env": ["PATH=/bin:/usr/bin"] }]);
    bundle.set("/hooks", json!({ "createRuntime": hook }));
    let container = Container::new(&runtime, &bundle);
    let create = container.background("create", &[]).start();
    poll_until(std::time::Duration::from_secs(20), || bundle.host("begun").exists().then_some(())).expect("the hook");
    assert!(!on_host(&bundle).is_empty());
    kill_process(Pid::from_raw(create.pid()).expect("a pid"), Signal::KILL).expect("kill create");
    create.wait();
    container.delete(&["--force"]).ok();
    assert_eq!(on_host(&bundle), Vec::<String>::new());
}

#[test]
fn a_user_namespace_cannot_mount_on_the_host() {
    let runtime = only_own_engine!();
    let mut bundle = without_namespace("true");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    run(&runtime, &bundle).fails(1, "/mounts needs a mount namespace, as only the host's root mounts anything");
}
