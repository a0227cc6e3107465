//! What a process of a container could get from the runtime that made it: its executable, its descriptors, its working
//! directory, privileges beyond the container's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::children::poll_until;
use crate::support::runtime::{find_program, read_lossy};
use crate::support::{Bundle, Container, Runtime, needs_root, own_engine, skip};

/// Looks for processes that run rtx and writes to what they run: at once, and when they have ended.
const ATTACK: &str = r#"
    end=$(($(cut -d. -f1 /proc/uptime) + 60))
    while [ ! -e /stop ] && [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do
        for p in /proc/[0-9]*; do
            case "$(readlink $p/exe)" in *rtx*|*memfd*|*"/exe"*) ;; *) continue;; esac
            echo seen >> /seen
            ( exec 9< $p/exe || exit
              for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
                  ( printf attacked > /proc/self/fd/9 ) 2>/dev/null && echo written >> /written
                  usleep 20000
              done ) 2>/dev/null &
        done
    done"#;

/// A container with every privilege, and a copy of the runtime for it to overwrite.
fn attacked(script: &str) -> (Runtime, PathBuf, Bundle) {
    let mut runtime = Runtime::under_test();
    let copy = runtime.scratch().join("rtx");
    fs::copy(&runtime.program, &copy).expect("copy the runtime");
    runtime.program = copy.clone();
    let mut bundle = Bundle::shell(script);
    bundle.set("/root/readonly", json!(false)).remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    // An attack that outlives a failed test must not be one on the machine.
    bundle.set("/linux/resources/pids", json!({ "limit": 100 }));
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO", "CAP_KILL"]);
    (runtime, copy, bundle)
}

/// CVE-2019-5736: the container overwrites the runtime by way of the process that enters it.
#[test]
fn the_executable_is_not_overwritten() {
    let _ = own_engine!();
    let (runtime, copy, bundle) = attacked(ATTACK);
    let before = fs::read(&copy).expect("read the runtime");
    // What a container's program is, is the image's to say.
    let script = bundle.make_file("rootfs/bin/evil", "#!/proc/self/exe\n");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    for turn in 0..12 {
        let words: &[&str] = match turn % 3 {
            0 => &["/bin/evil"],
            1 => &["/proc/self/exe", "--version"],
            _ => &["/bin/true"],
        };
        let _ = container.exec(&[], words);
        assert!(fs::read(&copy).expect("read the runtime") == before, "the runtime was overwritten");
    }
    // As long as rtx itself runs in there there is all the time to open it.
    let exec = container.exec_call(&[], &["/proc/self/exe", "update", "--resources", "-", "none"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let running = exec.stdin(reader).start();
    let seen = bundle.host("rootfs/seen");
    crate::support::children::poll_until(std::time::Duration::from_secs(5), || seen.exists().then_some(()));
    drop(writer);
    running.wait();
    bundle.make_file("rootfs/stop", "");
    assert!(seen.exists(), "the attack has seen nothing to attack");
    assert!(!bundle.host("rootfs/written").exists(), "the executable was written to");
    assert!(fs::read(&copy).expect("read the runtime") == before, "the runtime was overwritten");
    drop(container);
    assert!(fs::read(&copy).expect("read the runtime") == before, "the runtime was overwritten");
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's.
#[test]
fn the_working_directory_is_no_descriptor_of_the_runtime() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    for number in 3..24 {
        let output =
            container.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["cat", "../../../../etc/hostname"]);
        assert!(output.code != 0, "exec in descriptor {number}: {}", output.stdout);
    }
    drop(container);
    bundle.shell_payload("pwd; ls");
    for number in 3..24 {
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let container = Container::new(&runtime, &bundle);
        assert!(container.run(&[]).code != 0, "run in descriptor {number}: {}", container.stdout());
    }
}

/// The capabilities of a process that prints /proc/self/status.
fn capabilities(status: &str) -> Vec<(&str, u64)> {
    let fields = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    fields.map(|(set, mask)| (set, u64::from_str_radix(mask, 16).expect("a mask"))).collect()
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2025-27612: what is inheritable outlives a change of user.
#[test]
fn nothing_is_inheritable_that_was_not_asked_for() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("cat /proc/self/status; exec sleep 600");
    bundle.capabilities(&["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    bundle.set("/process/capabilities/inheritable", json!([])).set("/process/capabilities/ambient", json!([]));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let of_container = (1u64 << 5) | (1 << 10);
    let raw = 1 << 13;
    let document = bundle.make_file("process.json", &{
        let mut process = bundle.spec["process"].clone();
        process["args"] = json!(["cat", "/proc/self/status"]);
        process.as_object_mut().expect("a process").remove("capabilities");
        process.to_string()
    });
    let document = document.display().to_string();
    for (flags, words, most) in [
        (&[][..], &["cat", "/proc/self/status"][..], of_container),
        (&["--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"], of_container | raw),
        (&["--user", "1000", "--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"], of_container | raw),
        (&["--process", &document], &[], of_container),
    ] {
        let output = container.exec(flags, words).ok();
        for (set, mask) in capabilities(&output.stdout) {
            assert_eq!(mask & !most, 0, "{set} of exec {flags:?}");
            assert!(!matches!(set, "Inh" | "Amb") || mask == 0, "{set} of exec {flags:?} is {mask:x}");
        }
    }
    let spec: serde_json::Value = {
        let directory = bundle.make_dir("made");
        runtime.run(&["spec", "--bundle", &directory.display().to_string()]).ok();
        serde_json::from_slice(&fs::read(directory.join("config.json")).expect("read")).expect("JSON")
    };
    let inheritable = spec["process"]["capabilities"]["inheritable"].as_array();
    assert!(inheritable.is_none_or(Vec::is_empty), "a new configuration has inheritable capabilities");
}

/// CVE-2026-30892: a user that is not taken for another one.
#[test]
fn exec_has_the_user_that_was_given() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    for (user, ids) in
        [("1", "1 0"), ("0", "0 0"), ("1:2", "1 2"), ("10", "10 0"), ("01", "1 0"), ("65534:65534", "65534 65534")]
    {
        let output = container.exec(&["--user", user], &["sh", "-c", "echo $(id -u) $(id -g)"]).ok();
        assert_eq!(output.stdout.trim(), ids, "--user {user}");
    }
    for user in
        [":", "1:", ":1", "1:2:3", "-1", " 1", "1 ", "0x1", "1e1", "root", "4294967296", "18446744073709551617", "1\n"]
    {
        let output = container.exec(&["--user", user], &["id", "-u"]);
        assert!(output.code != 0, "--user {user:?} is user {}", output.stdout.trim());
    }
}

/// CVE-2025-52881, CVE-2025-62596: writes that are meant for the kernel go to what was mounted over its files.
#[test]
fn kernel_parameters_are_not_written_elsewhere() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("cat /proc/sys/kernel/hostname");
    bundle.set("/hostname", json!("own-name"));
    // A file of /proc may be bound over another one, which the bundle's author may do and which must not matter.
    bundle.mount("/proc/sys/kernel/domainname", "bind", "/proc/sys/kernel/hostname", &["bind"]);
    bundle.set("/linux/sysctl", json!({ "kernel.domainname": "other-name" }));
    let container = Container::new(&runtime, &bundle);
    let output = container.run(&[]);
    assert!(output.code == 1 || output.stdout == "own-name\n", "{output:?}");
}

/// What root without any capability may look at of the process in $pid: its root directory, and its memory.
const LOOK: &str = r#"
    exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all sh -c \
        "ls /proc/$pid/root/ && echo root; ( exec 9<>/proc/$pid/mem ) && echo memory; true""#;

/// stage2 belongs to root as long as it makes a user namespace, where every process of root's, of another container too, has
/// the capability to trace, if what it traces has executed in there.
#[test]
fn stage2_of_a_user_namespace_is_closed_to_root_without_capabilities() {
    let runtime = own_engine!();
    for program in ["setpriv", "unshare"] {
        if find_program(program).is_none() {
            skip!("needs {program}");
        }
    }
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
    for joins in [false, true] {
        for point in ["prestart", "createRuntime"] {
            let mut bundle = Bundle::shell("true");
            let script = format!(
                "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')\nexec > {}/seen 2>&1\n{LOOK}",
                bundle.path().display()
            );
            let hook = bundle.make_script("hook", &script);
            bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
            if joins {
                let pid = bundle.helper(&["--uts"], "");
                bundle.namespace("uts", &format!("/proc/{pid}/ns/uts")).remove("/hostname");
            }
            bundle.set("/hooks", json!({ point: [{ "path": hook, "env": ["PATH=/usr/bin:/bin"] }] }));
            Container::new(&runtime, &bundle).run(&[]).ok();
            let seen = read_lossy(&bundle.host("seen"));
            assert_eq!(seen.to_lowercase().matches("permission denied").count(), 2, "{point}, joins {joins}: {seen}");
        }
    }
}

/// The process that holds the user namespace of an idmapped mount is a copy of the command, with root's files.
#[test]
fn the_holder_of_an_idmap_is_closed_to_root_without_capabilities() {
    let runtime = own_engine!();
    for program in ["setpriv", "strace"] {
        if find_program(program).is_none() {
            skip!("needs {program}");
        }
    }
    let mut bundle = Bundle::shell("true");
    bundle.make_dir("source");
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    bundle.bind("source", "/tmp", &["bind"]);
    let mount = bundle.spec["mounts"].as_array().map_or(0, Vec::len) - 1;
    bundle.set(&format!("/mounts/{mount}/uidMappings"), ids.clone());
    bundle.set(&format!("/mounts/{mount}/gidMappings"), ids);
    let container = Container::new(&runtime, &bundle);
    // It waits for the end of a pipe while the maps are about to be written. C libraries open by the one call or the other.
    let slow = ["strace", "-o", "/dev/null", "-e", "inject=?open,openat:delay_enter=50000"];
    let run = container.background("run", &[]).through(&slow).start();
    let is_holder = |pid: &i32| read_lossy(format!("/proc/{pid}/syscall").as_ref()).starts_with("0 ");
    let holder = poll_until(Duration::from_secs(30), || {
        let of = |pid: i32| read_lossy(format!("/proc/{pid}/task/{pid}/children").as_ref());
        let children = |pid: i32| of(pid).split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
        children(run.pid()).into_iter().flat_map(children).find(is_holder)
    });
    if let Some(pid) = holder {
        let look = format!("pid={pid}; {LOOK} 2>&1");
        let seen = Command::new("sh").args(["-c", &look]).output().expect("look at it");
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(!seen.contains("root\n") && !seen.contains("memory"), "{seen}");
    }
    run.wait().ok();
    assert!(holder.is_some(), "the holder was not seen");
}

/// Who was given CAP_SYS_PTRACE by an earlier exec, of which the configuration says nothing, may go in by /proc/PID/root.
#[test]
fn the_hosts_root_is_not_seen_through_an_exec() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    container.start().ok();
    let marker = bundle.path().join("config.json").display().to_string();
    // By the root, the working directory, and what is open: a /proc of the host leads on to the root of its processes.
    let own = std::process::id();
    let look = format!(
        "end=$(($(date +%s) + 4)); while [ $(date +%s) -lt $end ]; do \
         for at in /proc/[0-9]*/root /proc/[0-9]*/cwd /proc/[0-9]*/fd/*; do for to in '' /{own}/root /../..; do \
         [ ! -e $at$to{marker} ] || {{ echo seen at $at$to; exit; }}; done; done; done; echo not seen"
    );
    let looks = runtime.invoke(&["exec", "--cap", "CAP_SYS_PTRACE", &container.id, "sh", "-c", &look]).start();
    for (call, times) in [("setns", 2), ("setsid", 2)] {
        let inject = format!("inject={call}:delay_enter=300000");
        for _ in 0..times {
            let slow = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
            runtime.invoke(&["exec", &container.id, "true"]).through(&slow).run().ok();
        }
    }
    assert_eq!(looks.wait().ok().stdout, "not seen\n");
}

/// A container that waits to be started has init wait as well, and who joins it then may be able to look into that.
#[test]
fn nothing_of_the_hosts_is_open_while_a_container_waits() {
    let runtime = own_engine!();
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
    for user in [false, true] {
        let mut bundle = Bundle::shell("true");
        bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
        if user {
            bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
        }
        let container = Container::new(&runtime, &bundle);
        container.create().ok();
        // Of the descriptors above the standard streams.
        let look = "for n in 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do readlink /proc/1/fd/$n; done; true";
        let seen = container.exec(&[], &["sh", "-c", look]).ok().stdout;
        assert!(seen.lines().all(|line| line.starts_with("socket:")), "user {user}: {seen}");
    }
}

/// On a host that hands its mounts on, as systemd has it: what root of a user namespace mounts on a device is the container's.
#[test]
fn devices_of_the_host_are_not_mounted_on() {
    let _ = own_engine!();
    needs_root!();
    let runtime = Runtime::under_test();
    let mut bundle = Bundle::shell(
        "grep -c shared: /proc/self/mountinfo; echo own > /tmp/own && mount --bind /tmp/own /dev/null && cat /dev/null",
    );
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).capabilities(&["CAP_SYS_ADMIN"]);
    let container = Container::new(&runtime, &bundle);
    let script = "mount --make-rshared / && \"$@\" && ! grep ' /dev/null ' /proc/self/mountinfo >&2";
    let call = container.background("run", &[]).through(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    call.run().ok();
    assert_eq!(container.stdout(), "0\nown\n");
}
