//! Races that a quiet machine hides: strace holds one system call up, and the others must not mind.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::children::poll_until;
use crate::support::runtime::{find_program, next_number, read_lossy};
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, skip};

/// smaster sleeps in poll(2) until the program has begun, and writes so when that has returned.
const SLOW_TO_SEE_THE_BEGIN: [&str; 5] = ["strace", "-o", "/dev/null", "-e", "inject=poll:delay_exit=400000"];

/// While the device rules are half written everything is forbidden; the container's devices are made before or after.
#[test]
fn devices_are_made_while_their_rules_are_written() {
    needs_root!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    if !std::path::Path::new("/sys/fs/cgroup/devices").exists() {
        skip!("no cgroup v1 hierarchy for devices, whose rules are written one by one");
    }
    let path = format!("/rtxtest-slowed-{}-{}", std::process::id(), next_number());
    let file = format!("/sys/fs/cgroup/devices{path}/devices.deny");
    let delayed = ["strace", "-o", "/dev/null", "-P", &file, "-e", "inject=write:delay_exit=100000"];
    let runtime = Runtime::under_test().wrapped(&delayed);
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.set("/linux/cgroupsPath", path.into());
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let mounts = read_lossy(format!("/proc/{}/mountinfo", container.pid()).as_ref());
    assert!(!mounts.contains(" /dev/null "), "the host's device in the place of one made: {mounts}");
}

/// Between the look at a process and the descriptor of it the process ends: nothing else would wake the wait.
#[test]
fn a_process_ends_while_wait_begins_to_watch_it() {
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let slow = ["strace", "-f", "-o", "/dev/null", "-e", "inject=pidfd_open:delay_enter=2000000"];
    let waiting = runtime.invoke(&["wait", &container.id]).through(&slow).start();
    std::thread::sleep(std::time::Duration::from_millis(700));
    container.kill("KILL").ok();
    container.wait_exit();
    waiting.wait().fails(1, "has stopped, and only who started it knows how");
    container.delete(&[]).ok();
}

/// The program runs before smaster has written so, and who has heard of the program must not hear that it is being created.
#[test]
fn a_program_is_seen_that_has_just_begun() {
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let running = container.background("run", &[]).through(&SLOW_TO_SEE_THE_BEGIN).start();
    container.wait_stdout("up");
    container.exec(&[], &["true"]).ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    running.wait();
}

/// Who has begun to wait while the container was being made hears that it is complete.
#[test]
fn wait_sees_a_container_completed() {
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let slow = ["strace", "-D", "-f", "-o", "/dev/null", "-e", "inject=pivot_root:delay_enter=1500000"];
    let creating = container.background("create", &[]).through(&slow).start();
    let is_creating = || (container.status() == "creating").then_some(());
    poll_until(std::time::Duration::from_secs(20), is_creating).expect("it is being created");
    runtime.run(&["wait", "-c", "created", "--timeout", "20", &container.id]).ok();
    assert_eq!(container.status(), "created");
    creating.wait().ok();
}

/// The program runs, and nobody is left who could write so: the container is there all the same.
#[test]
fn a_program_whose_smaster_was_killed_before_it_said_so() {
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let running = container.background("run", &[]).through(&SLOW_TO_SEE_THE_BEGIN).start();
    container.wait_stdout("up");
    kill_process(traced(running.pid()), Signal::KILL).expect("kill smaster");
    running.wait();
    assert_eq!(container.status(), "running");
    assert!(!container.pid_file().exists(), "smaster was not killed in time");
    assert!(runtime.run(&["list"]).ok().stdout.contains("running"), "it is listed as something else");
    let gc = runtime.run(&["gc"]).ok();
    assert!(!gc.stdout.contains(&container.id), "{}", gc.stdout);
    container.exec(&[], &["true"]).ok();
    container.delete(&["--force"]).ok();
}

/// smaster is killed when the process has everything, and before anybody could find that by the record.
#[test]
fn a_create_that_is_killed_before_it_says_which_process_it_is() {
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    let slow = [
        "strace",
        "-o",
        "/dev/null",
        "-P",
        "/proc/sys/kernel/random/boot_id",
        "-e",
        "inject=openat:delay_enter=3000000",
    ];
    let creating = container.background("create", &[]).through(&slow).start();
    let cgroups = || leftover::cgroups(&container.id).iter().all(|directory| has_process(directory)).then_some(());
    std::thread::sleep(std::time::Duration::from_millis(700));
    poll_until(std::time::Duration::from_secs(2), cgroups).expect("the process is in the container's cgroups");
    kill_process(traced(creating.pid()), Signal::KILL).expect("kill smaster");
    creating.wait();
    container.delete(&["--force"]).ok();
    assert!(leftover::cgroups(&container.id).is_empty(), "a process has stayed");
}

fn has_process(cgroup: &std::path::Path) -> bool {
    !read_lossy(&cgroup.join("cgroup.procs")).is_empty()
}

/// What strace runs.
fn traced(strace: i32) -> Pid {
    let children = read_lossy(format!("/proc/{strace}/task/{strace}/children").as_ref());
    let child = children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    child.expect("a child of strace's")
}
