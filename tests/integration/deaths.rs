//! A stage2 that dies where nobody expects it, and callers that die before it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::children::{poll_until, wait_orphan};
use crate::support::runtime::{find_program, read_lossy};
use crate::support::{Bundle, Container, Runtime, needs_root, skip};

const LONG: Duration = Duration::from_secs(20);

/// What dies between the start and its program has not been started.
#[test]
fn start_tells_of_a_death_before_the_program() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.without_namespace("pid");
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] }]);
    bundle.set("/hooks", json!({ "startContainer": hook }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().fails(1, "killed before it executed its program");
    assert_eq!(container.status(), "stopped");
}

/// The last moment: the call that executes the program is the one that the filter kills for.
#[test]
fn start_tells_of_a_death_at_the_program() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let rule = json!([{ "names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().fails(1, "killed before it executed its program");
}

/// Neither the program nor a word of why it is not executed gets through this filter, and not even an exit.
#[test]
fn a_profile_that_forbids_everything() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let words = ["execve", "execveat", "exit", "exit_group", "write", "writev", "sendmsg", "sendto"];
    let rule = json!([{ "names": words, "action": "SCMP_ACT_ERRNO" }]);
    for profile in
        [json!({ "defaultAction": "SCMP_ACT_ERRNO" }), json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule })]
    {
        bundle.set("/linux/seccomp", profile);
        let container = Container::new(&runtime, &bundle);
        container.run(&[]).fails(1, "killed before it executed its program");
        container.create().ok();
        container.start().fails(1, "killed before it executed its program");
        assert_eq!(container.status(), "stopped");
    }
}

/// containerd deletes what could not be started at once, and gives up where that has not ended.
#[test]
fn what_start_refuses_has_ended() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::new());
    let script = bundle.rootfs().join("script");
    fs::write(&script, "#!/nope\n").expect("write a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod the script");
    bundle.args(&["/script"]);
    for _ in 0..20 {
        let container = Container::new(&runtime, &bundle);
        container.create().ok();
        container.start().fails(1, "exec \"/script\": no such file or directory");
        assert_eq!(container.status(), "stopped");
        container.delete(&[]).ok();
    }
}

#[test]
fn exec_tells_of_a_death_before_the_program() {
    needs_root!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let killed =
        ["strace", "-f", "-o", "/dev/null", "-P", "/bin/nothing", "-e", "inject=execve:signal=KILL:error=EPERM"];
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/nothing")).expect("link a program");
    let output = container.exec_call(&[], &["/bin/nothing"]).through(&killed).run();
    output.fails(255, "killed before it executed its program");
}

/// A program that has ended before anybody looks was started all the same.
#[test]
fn a_short_program_was_started() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::new());
    bundle.args(&["/bin/true"]);
    for _ in 0..20 {
        let container = Container::new(&runtime, &bundle);
        container.create().ok();
        container.start().ok();
        container.delete(&["--force"]).ok();
    }
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let pid_file = runtime.scratch().join("pid");
    for _ in 0..10 {
        container.exec(&[], &["/bin/true"]).ok();
        container.exec(&["--detach", "--pid-file", &pid_file.display().to_string()], &["/bin/true"]).ok();
        // Init cannot end before somebody has waited for those that joined it.
        let pid = read_lossy(&pid_file).trim().parse().expect("a pid");
        assert!(wait_orphan(pid, LONG).is_some());
    }
}

/// The change of its user in a user namespace does not make stage2 outlive a killed runtime.
#[test]
fn stage2_in_a_user_namespace_dies_with_a_killed_create() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.namespace("user", "");
    for maps in ["uidMappings", "gidMappings"] {
        bundle.spec["linux"][maps] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    }
    for dir in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        std::os::unix::fs::chown(bundle.host(dir), Some(100_000), Some(100_000)).expect("chown");
    }
    let begun = bundle.make_dir("begun");
    std::os::unix::fs::chown(&begun, Some(100_000), Some(100_000)).expect("chown");
    let script = format!("echo > {}/yes; exec sleep 600", begun.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    bundle.set("/hooks", json!({ "createContainer": hook }));
    let container = Container::new(&runtime, &bundle);
    let create = container.background("create", &[]).start();
    poll_until(LONG, || begun.join("yes").exists().then_some(())).expect("the hook begins");
    let children = read_lossy(Path::new(&format!("/proc/{0}/task/{0}/children", create.pid())));
    let stage2: i32 = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child");
    kill_process(Pid::from_raw(create.pid()).expect("a pid"), Signal::KILL).expect("kill create");
    create.wait();
    let is_gone = || {
        let stat = read_lossy(Path::new(&format!("/proc/{stage2}/stat")));
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    };
    assert!(poll_until(Duration::from_secs(5), is_gone).is_some(), "stage2 ({stage2}) outlives its runtime");
    container.delete(&["--force"]).ok();
}

/// A caller with hardly any stack (`ulimit -s 64`).
#[test]
fn a_small_stack_is_enough() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("ulimit -s; exit 7"));
    runtime.invoke(&["--version"]).through_shell("ulimit -s 64; exec \"$@\"").run().ok();
    let container = Container::new(&runtime, &bundle);
    let output = container.background("run", &[]).through_shell("ulimit -s 64; exec \"$@\"").run();
    output.fails(7, "");
    assert_eq!(container.stdout().trim(), "64");
}

/// Of children whose ends are ignored nobody would learn how they ended, and the program would inherit that.
#[test]
fn a_caller_that_ignores_the_ends_of_children() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("grep SigIgn /proc/self/status; exit 3"));
    let container = Container::new(&runtime, &bundle);
    let output = container.background("run", &[]).through(&["env", "--ignore-signal=CHLD"]).run();
    output.fails(3, "");
    let stdout = container.stdout();
    let ignored = stdout.trim().strip_prefix("SigIgn:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let child = 1 << (Signal::CHILD.as_raw() - 1);
    assert!(ignored.is_some_and(|mask| mask & child == 0), "{stdout}");
}

/// Whatever signals the caller ignores, real-time ones too, the program does not, and neither does what joins it, nor a hook:
/// as with runc.
#[test]
fn a_caller_that_ignores_signals() {
    needs_root!();
    let look = ["grep", "SigIgn", "/proc/self/status"];
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::new());
    let ignoring = ["env", "--ignore-signal=HUP,INT,QUIT,TERM,USR1,ALRM,TSTP,TTIN,XFSZ,CHLD,RTMIN+3,RTMAX-2"];
    let is_none = |text: &str| {
        let mask = text.trim().strip_prefix("SigIgn:").map(|mask| u64::from_str_radix(mask.trim(), 16));
        // Signals 32 and 33 are the C library's own.
        assert!(mask.is_some_and(|mask| mask.is_ok_and(|mask| mask & !(3 << 31) == 0)), "{text}");
    };
    let once = Container::new(&runtime, bundle.args(&look));
    once.background("run", &[]).through(&ignoring).run().ok();
    is_none(&once.stdout());
    let mut bundle = Bundle::shell("grep SigIgn /proc/self/status; exec sleep 600");
    bundle.make_script("hook", "grep SigIgn /proc/self/status > seen");
    let path = bundle.host("hook");
    bundle.set("/hooks", json!({ "createRuntime": [{ "path": path, "env": ["PATH=/bin:/usr/bin"] }] }));
    let container = Container::new(&runtime, &bundle);
    container.background("create", &[]).through(&ignoring).run().ok();
    is_none(&read_lossy(&bundle.host("seen")));
    container.start().ok();
    container.wait_stdout("SigIgn:");
    is_none(&container.stdout());
    is_none(&container.exec_call(&[], &look).through(&ignoring).run().ok().stdout);
}
