//! The cgroup module against the real kernel: as root, on whatever hierarchies this host has.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use oci_spec::runtime::LinuxResources;
use rtx::engine::oci::cgroup::{Created, Placement, Request, plan};

/// False, and a line that says so, where this user may not make cgroups.
fn may_make_cgroups(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let id = format!("rtx-test-probe-{test}-{}", std::process::id());
    let writable = root && plan(&request(&id, None)).and_then(|placement| placement.create()).is_ok();
    if !writable {
        eprintln!("{test}: skipped: needs root and a writable cgroup file system");
    }
    writable
}

fn request<'a>(id: &'a str, resources: Option<&'a LinuxResources>) -> Request<'a> {
    let state = std::path::Path::new("/run/rtx");
    let cgroups_path = None;
    Request { id, cgroups_path, own_pids: true, resources, systemd: false, state, annotations: None, rootless: false }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).expect("resources of the test")
}

/// A process that joins by the descriptors, as a container's first process does, and sleeps.
fn joined(created: &Created) -> Child {
    let tasks = created.task_files().expect("task_files");
    let path = |fd: i32, rest: &str| format!("/proc/{}/fd/{fd}{rest}", std::process::id());
    let mut files: Vec<String> = tasks.iter().map(|fd| path(fd.as_raw_fd(), "")).collect();
    let unified = created.unified_directory().expect("unified_directory");
    files.extend(unified.iter().map(|fd| path(fd.as_raw_fd(), "/cgroup.procs")));
    let script = "for file; do echo 0 > $file || exit 1; done; echo joined; exec sleep 100";
    let mut child =
        Command::new("sh").args(["-c", script, "sh"]).args(files).stdout(Stdio::piped()).spawn().expect("sh");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("stdout")), &mut line)
        .expect("a line");
    assert_eq!(line, "joined\n");
    child
}

fn directories_left(placement: &Placement) -> usize {
    placement.places.iter().filter(|place| place.directory().exists()).count()
}

#[test]
fn cgroup_life() {
    if !may_make_cgroups("cgroup_life") {
        return;
    }
    let id = format!("rtx-test-life-{}", std::process::id());
    let limits = resources(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    let placement = plan(&request(&id, Some(&limits))).expect("plan");
    let created = placement.create().expect("create");
    let mut child = joined(&created);
    created.apply_device_rules(&limits).expect("device rules");
    created.apply_limits(&limits).expect("limits");
    created.commit();

    let cgroup = placement.open();
    assert_eq!(cgroup.pids().expect("pids"), [nix::unistd::Pid::from_raw(child.id() as i32)]);
    cgroup.freeze().expect("freeze");
    assert!(cgroup.is_frozen().expect("is_frozen"));
    cgroup.thaw().expect("thaw");
    assert!(!cgroup.is_frozen().expect("is_frozen"));
    let error = placement.create().err().expect("a cgroup in use is refused").to_string();
    assert!(error.starts_with("container's cgroup is not empty: 1 process(es) found"), "{error}");
    assert!(cgroup.exists(), "the refused create has removed nothing");

    cgroup.kill_all(Signal::SIGKILL as i32).expect("kill_all");
    child.wait().expect("wait");
    cgroup.remove(|_| true).expect("remove");
    cgroup.remove(|_| true).expect("remove again");
    assert_eq!(directories_left(&placement), 0);
}

#[test]
fn cgroup_remove_ends_what_is_left() {
    if !may_make_cgroups("cgroup_remove_ends_what_is_left") {
        return;
    }
    let id = format!("rtx-test-busy-{}", std::process::id());
    let placement = plan(&request(&id, None)).expect("plan");
    let created = placement.create().expect("create");
    let mut child = joined(&created);
    created.commit();
    let nested = placement.places[0].directory().join("made/by/payload");
    std::fs::create_dir_all(&nested).expect("nested cgroup");
    placement.open().remove(|_| true).expect("remove");
    assert_eq!(directories_left(&placement), 0);
    child.wait().expect("wait");
}

#[test]
fn cgroup_create_is_undone_unless_committed() {
    if !may_make_cgroups("cgroup_create_is_undone_unless_committed") {
        return;
    }
    let parent = format!("/rtx-test-undo-{}", std::process::id());
    let path = format!("{parent}/in/ner");
    let request = Request { cgroups_path: Some(path.as_ref()), ..request("c", None) };
    let placement = plan(&request).expect("plan");
    drop(placement.create().expect("create"));
    let parents = placement.places.iter().filter(|place| place.mount.join(&parent[1..]).exists()).count();
    assert_eq!((directories_left(&placement), parents), (0, 0));
}

#[test]
fn cgroup_limits_are_written_and_refusals_name_the_property() {
    if !may_make_cgroups("cgroup_limits_are_written_and_refusals_name_the_property") {
        return;
    }
    let id = format!("rtx-test-limits-{}", std::process::id());
    let limits = resources(r#"{"pids":{"limit":33}}"#);
    let Ok(placement) = plan(&request(&id, Some(&limits))) else {
        eprintln!("cgroup_limits_are_written: skipped: this host has no pids controller");
        return;
    };
    let created = placement.create().expect("create");
    created.apply_device_rules(&limits).expect("device rules");
    created.apply_limits(&limits).expect("limits");
    let place = placement.v1("pids").or(placement.unified()).expect("a pids hierarchy");
    assert_eq!(std::fs::read_to_string(place.directory().join("pids.max")).expect("pids.max"), "33\n");
    let too_many = resources(r#"{"cpu":{"cpus":"70000"}}"#);
    if plan(&request(&id, Some(&too_many))).is_ok() {
        let error = format!("{:#}", created.apply_limits(&too_many).expect_err("there is no CPU 70000"));
        assert!(error.starts_with("/linux/resources/cpu/cpus: write \"70000\" to "), "{error}");
    }
}
