//! SCMP_ACT_NOTIFY: the listener and the ContainerProcessState that go to `listenerPath`, for create and for exec, and the
//! filters that are kept.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::support::terminal::FdSocket;
use crate::support::{Bundle, Container, Runtime, own_engine};

/// Answers every mkdir with ENOMEDIUM and lets every other call go on.
const MKDIR_FAILS_WITH: i32 = 123;

/// The other end of `listenerPath`: what it was sent, and how often it was asked about each call.
struct Agent {
    path: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    states: Vec<Value>,
    calls: HashMap<String, u32>,
}

impl Agent {
    fn new(bundle: &Bundle) -> Agent {
        let socket = FdSocket::listen(bundle.path(), "agent.sock");
        let agent = Agent { path: socket.path(), seen: Arc::default() };
        let seen = Arc::clone(&agent.seen);
        std::thread::spawn(move || {
            while let Some((listener, state)) = socket.receive() {
                let state = serde_json::from_str(&state).expect("a ContainerProcessState");
                seen.lock().expect("seen").states.push(state);
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer(&listener, &seen));
            }
        });
        agent
    }

    fn states(&self) -> Vec<Value> {
        self.seen.lock().expect("seen").states.clone()
    }

    fn calls(&self, name: &str) -> u32 {
        self.seen.lock().expect("seen").calls.get(name).copied().unwrap_or(0)
    }
}

fn answer(listener: &OwnedFd, seen: &Mutex<Seen>) {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, None).is_err() || !ready[0].revents().contains(PollFlags::IN) {
            return;
        }
        // The process may have been killed between the two calls.
        let Ok(request) = ScmpNotifReq::receive(listener.as_raw_fd()) else { continue };
        let name = request.data.syscall.get_name().unwrap_or_default();
        *seen.lock().expect("seen").calls.entry(name.clone()).or_default() += 1;
        let response = match name.as_str() {
            "mkdir" => ScmpNotifResp::new_error(request.id, -MKDIR_FAILS_WITH, ScmpNotifRespFlags::empty()),
            _ => ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty()),
        };
        let _ = response.respond(listener.as_raw_fd());
    }
}

/// A bundle whose profile notifies `agent` of `calls`.
fn notifying(bundle: &mut Bundle, path: &str, calls: &[&str]) {
    bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "some metadata",
            "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
        }),
    );
}

const MKDIR: &str = "mkdir /dev/shm/x 2>&1; echo $?";

#[test]
fn the_listener_and_the_state_arrive_at_create() {
    let runtime = own_engine!();
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::shell(MKDIR);
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges)).set("/annotations", json!({ "a": "b" }));
        let agent = Agent::new(&bundle);
        notifying(&mut bundle, &agent.path, &["mkdir"]);
        let container = Container::new(&runtime, &bundle);
        container.create().ok();
        let pid = container.pid();
        let state = json!({
            "ociVersion": "1.3.0", "id": container.id, "status": "creating", "pid": pid,
            "bundle": bundle.path(), "annotations": { "a": "b" },
        });
        let expected = json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "some metadata", "state": state,
        });
        crate::support::children::poll_until(std::time::Duration::from_secs(5), || {
            (!agent.states().is_empty()).then_some(())
        });
        assert_eq!(agent.states(), [expected]);
        assert_eq!(container.status(), "created");
        container.start().ok();
        assert_eq!(container.wait_exit(), Some(0));
        assert!(container.stdout().contains("No medium found\n1\n"), "{}", container.stdout());
        assert_eq!(agent.calls("mkdir"), 1);
    }
}

#[test]
fn exec_sends_its_own_listener() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("exec sleep 600");
    let agent = Agent::new(&bundle);
    notifying(&mut bundle, &agent.path, &["mkdir"]);
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let pid_file = bundle.host("exec.pid").display().to_string();
    let output = container.exec(&["--pid-file", &pid_file], &["sh", "-c", MKDIR]).ok();
    assert!(output.stdout.contains("No medium found\n1\n"), "{}", output.stdout);
    let states = agent.states();
    assert_eq!(states.len(), 2, "{states:#?}");
    assert_eq!(states[1]["pid"].to_string(), fs::read_to_string(&pid_file).expect("a pid file"));
    assert_eq!(
        (&states[1]["state"]["pid"], &states[1]["state"]["status"]),
        (&json!(container.pid()), &json!("running"))
    );
}

/// Calls that stage2 itself makes on its way to the program are answered by the agent as well.
#[test]
fn calls_that_the_start_needs_may_be_notified() {
    let runtime = own_engine!();
    let calls = ["execve", "openat", "open", "read", "close", "recvmsg", "sendmsg", "accept4", "close_range", "brk"];
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::shell("echo ran");
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let agent = Agent::new(&bundle);
        notifying(&mut bundle, &agent.path, &calls);
        let container = Container::new(&runtime, &bundle);
        assert_eq!(container.run(&[]).ok().stdout, "ran\n");
        assert!(agent.calls("execve") >= 1 && agent.calls("read") >= 1);
    }
}

#[test]
fn start_container_hooks_run_under_the_filter_without_further_descriptors() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("cat /dev/shm/*");
    let agent = Agent::new(&bundle);
    notifying(&mut bundle, &agent.path, &["mkdir"]);
    // The shell's listing has one descriptor more than the hook.
    let script =
        "ls /proc/self/fd | wc -l > /dev/shm/fds; mkdir /dev/shm/x 2>/dev/null || echo denied > /dev/shm/mkdir";
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
    bundle.set("/hooks", json!({ "startContainer": [hook] }));
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert_eq!(output.stdout, "4\ndenied\n");
}

#[test]
fn without_an_agent_nothing_is_created() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("true");
    notifying(&mut bundle, "/nope.sock", &["mkdir"]);
    let container = Container::new(&runtime, &bundle);
    let output = container.create().fails(1, "failed to connect with seccomp agent");
    assert!(output.stderr.contains("/linux/seccomp/listenerPath") && output.stderr.contains("/nope.sock"));
    assert_eq!(container.status(), "");
}

#[test]
fn an_agent_that_has_gone_lets_calls_fail() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell(MKDIR);
    let socket = FdSocket::listen(bundle.path(), "agent.sock");
    notifying(&mut bundle, &socket.path(), &["mkdir"]);
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    drop(socket.receive().expect("a listener"));
    container.start().ok();
    assert_eq!(container.wait_exit(), Some(0));
    assert!(container.stdout().contains("Function not implemented\n1\n"), "{}", container.stdout());
}

#[test]
fn profiles_that_could_not_work_are_refused() {
    let runtime = own_engine!();
    let refused = |path: &str, calls: &[&str], default: &str, text: &str| {
        let mut bundle = Bundle::shell("true");
        notifying(&mut bundle, path, calls);
        bundle.set("/linux/seccomp/defaultAction", json!(default));
        Container::new(&runtime, &bundle).create().fails(1, text);
    };
    refused("", &["mkdir"], "SCMP_ACT_ALLOW", "seccomp listenerPath is not set");
    refused("/x", &["write"], "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    refused("/x", &["mkdir"], "SCMP_ACT_NOTIFY", "SCMP_ACT_NOTIFY cannot be used as default action");
}

/// A listener that nobody needs is not looked for.
#[test]
fn a_listener_path_without_notifications_means_nothing() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("echo ran");
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nope.sock" }));
    assert_eq!(Container::new(&runtime, &bundle).run(&[]).ok().stdout, "ran\n");
}

#[test]
fn every_flag_with_and_without_a_listener() {
    let runtime = own_engine!();
    let flags = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    for flag in flags {
        for action in ["SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"] {
            let mut bundle = Bundle::shell("grep -E '^Seccomp:' /proc/self/status");
            let agent = Agent::new(&bundle);
            notifying(&mut bundle, &agent.path, &["mkdir"]);
            bundle.set("/linux/seccomp/syscalls/0/action", json!(action)).set("/linux/seccomp/flags", json!([flag]));
            assert_eq!(Container::new(&runtime, &bundle).run(&[]).ok().stdout, "Seccomp:\t2\n", "{flag} {action}");
        }
    }
}

/// In a user namespace, and as one of its users.
#[test]
fn notifications_from_a_user_namespace() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell(MKDIR);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).bind_sys();
    chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown the root");
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let agent = Agent::new(&bundle);
    notifying(&mut bundle, &agent.path, &["mkdir"]);
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    assert!(output.stdout.contains("No medium found\n1\n"), "{}", output.stdout);
}

/// The kept programs, by path.
fn kept(runtime: &Runtime) -> Vec<PathBuf> {
    let entries = fs::read_dir(runtime.root().join("seccomp@cache")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn denied(runtime: &Runtime) -> String {
    let mut bundle = Bundle::shell(MKDIR);
    let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": MKDIR_FAILS_WITH }]);
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    Container::new(runtime, &bundle).run(&[]).ok().stdout
}

const DENIED: &str = "mkdir: can't create directory '/dev/shm/x': No medium found\n1\n";

/// Whatever lies in the cache, the profile is what is loaded: what is damaged, another's, or under another name is made
/// anew or not used at all.
#[test]
fn the_cache_cannot_be_poisoned() {
    let runtime = own_engine!();
    assert_eq!(denied(&runtime), DENIED);
    let [file] = &kept(&runtime)[..] else { panic!("{:?}", kept(&runtime)) };
    let good = fs::read(file).expect("a kept program");
    assert_eq!(file.metadata().expect("its owner").mode() & 0o777, 0o600);
    // A program of one instruction that allows everything.
    let allow = [[6, 0, 0, 0, 0, 0, 0xff, 0x7f].as_slice(), &good[good.len() - 32..]].concat();
    for bad in [allow, vec![0; good.len()], good[..good.len() / 2].to_vec(), Vec::new(), good[32..].to_vec()] {
        fs::write(file, &bad).expect("write a bad program");
        assert_eq!(denied(&runtime), DENIED);
        assert_eq!(fs::read(file).expect("the program"), good, "it is replaced");
    }
    let elsewhere = runtime.scratch().join("elsewhere");
    fs::rename(file, &elsewhere).expect("rename");
    symlink(&elsewhere, file).expect("link");
    assert_eq!(denied(&runtime), DENIED);
    assert!(file.symlink_metadata().expect("the program").is_file(), "a link is replaced");
    for (uid, mode) in [(1000, 0o600), (0, 0o666)] {
        chown(file, Some(uid), None).expect("chown");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(denied(&runtime), DENIED);
        let owner = file.metadata().expect("its owner");
        assert_eq!((owner.uid(), owner.mode() & 0o777), (0, 0o600), "another's file is replaced");
    }
    assert_eq!(kept(&runtime).len(), 1, "nothing beside it stays");
}

/// What the kernel does with a filter takes as long as the filter is: neighbouring calls with the same outcome are one range
/// in it. `exec` loads the program that was made for the container.
#[test]
fn the_kept_program_of_a_long_profile_is_short() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("while :; do sleep 1; done");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bundles/seccomp/config.json");
    let config: Value = serde_json::from_slice(&fs::read(path).expect("read a profile")).expect("JSON");
    bundle.set("/linux/seccomp", config["linux"]["seccomp"].clone());
    let container = Container::new(&runtime, &bundle);
    container.run(&["--detach"]).ok();
    let script =
        "grep Seccomp: /proc/self/status; linux32 true && linux64 true && unshare -U true 2>/dev/null; echo $?";
    assert_eq!(container.exec(&[], &["/bin/sh", "-c", script]).ok().stdout, "Seccomp:\t2\n1\n");
    let [file] = &kept(&runtime)[..] else { panic!("{:?}", kept(&runtime)) };
    let instructions = file.metadata().expect("a kept program").len() / 8;
    assert!(instructions < 400, "{instructions}");
}

/// A directory that somebody else can write in is not written in, and what lies in it is not read.
#[test]
fn a_cache_of_another_user_is_not_used() {
    let runtime = own_engine!();
    let cache = runtime.root().join("seccomp@cache");
    fs::create_dir_all(&cache).expect("make the cache");
    for (uid, mode) in [(1000, 0o700), (0, 0o777)] {
        chown(&cache, Some(uid), None).expect("chown");
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(denied(&runtime), DENIED);
        assert!(kept(&runtime).is_empty());
    }
}
