//! Ways out of a container, and into what is not this user's: each is tried. Those that were found in other runtimes
//! have their number; SECURITY.md says which test is for which.

mod image;
mod process;
mod races;
mod swap;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use serde_json::json;

use crate::support::payload::busybox;
use crate::support::{Bundle, Container, Runtime, needs_root};

/// A bundle whose image has a link for each descriptor number that leads through it, if it is a directory of the host, to
/// a program of the host.
fn with_links_to_host() -> Bundle {
    let bundle = Bundle::shell("exec sleep 600");
    let programs = bundle.make_dir("host-programs");
    fs::copy(busybox(), programs.join("busybox")).expect("copy busybox");
    for number in 3..24 {
        let target = format!("/proc/self/fd/{number}/..{}", programs.display());
        symlink(target, bundle.rootfs().join(format!("through-{number}"))).expect("make a link");
    }
    bundle
}

/// CVE-2024-21626: a program that is named through a descriptor that rtx still has open.
#[test]
fn no_descriptor_leads_to_a_program_of_the_host() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), with_links_to_host());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    for number in 3..24 {
        let output = container.exec(&[], &[&format!("/through-{number}/busybox"), "echo", "escaped"]);
        assert!(output.code != 0 && !output.stdout.contains("escaped"), "exec through descriptor {number}");
    }
    container.delete(&["--force"]).ok();
    drop(container);
    for number in 3..24 {
        bundle.args(&[&format!("/through-{number}/busybox"), "echo", "escaped"]);
        let container = Container::new(&runtime, &bundle);
        let output = container.run(&[]);
        assert!(output.code != 0 && !container.stdout().contains("escaped"), "run through descriptor {number}");
    }
}

/// Without a mount namespace the container's root is init's by chroot(2) alone: a process that joins gets it as well.
#[test]
fn exec_stays_in_the_root_without_a_mount_namespace() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.without_namespace("mount").remove("/mounts").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    bundle.set("/root/readonly", json!(false));
    bundle.make_file("rootfs/only-here", "");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    assert!(container.exec(&[], &["/bin/busybox", "ls", "/"]).ok().stdout.contains("only-here"));
}

/// `net.` names may be set, what they lead to may not.
#[test]
fn a_sysctl_cannot_climb_out_of_its_namespace() {
    needs_root!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("true"));
    for name in ["net/../kernel/printk_ratelimit", "net.//.kernel.printk_ratelimit"] {
        let before = fs::read_to_string("/proc/sys/kernel/printk_ratelimit").expect("read a sysctl");
        bundle.set("/linux/sysctl", json!({ name: before.trim() }));
        Container::new(&runtime, &bundle).run(&[]).fails(1, "is not a name");
    }
}

/// A descriptor that rtx opened itself must never be taken for one that was to be preserved.
#[test]
fn the_log_is_not_preserved_in_place_of_a_missing_descriptor() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("ls -l /proc/self/fd"));
    let log = runtime.scratch().join("preserved.log").display().to_string();
    let runtime = runtime.with_flags(&["--log", &log]);
    for (flags, script) in [
        (&["--preserve-fds", "1"][..], "exec 3<&-; exec \"$@\""),
        (&[][..], "exec 3<&-; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\""),
    ] {
        let container = Container::new(&runtime, &bundle);
        container.background("run", flags).through_shell(script).run().fails(1, "is not open");
    }
}

/// State decides what is removed and whom a signal reaches: nobody else may have written it.
#[test]
fn state_of_another_user_is_refused() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("true"));
    for (mode, owner, why) in [(0o755, 4242, "belongs to user 4242"), (0o777, 0, "can be written by every user")] {
        let root = bundle.make_dir(&format!("root-{owner}"));
        fs::set_permissions(&root, fs::Permissions::from_mode(mode)).expect("chmod");
        chown(&root, Some(owner), None).expect("chown");
        fs::create_dir(root.join("c1")).expect("mkdir");
        let runtime = runtime.copy().with_flags(&["--root", &root.display().to_string()]);
        for words in [&["state", "c1"][..], &["delete", "--force", "c1"], &["kill", "c1"]] {
            runtime.run(words).fails(1, why);
        }
        let container = Container::new(&runtime, &bundle);
        container.create().fails(1, why);
        assert!(root.join("c1").exists());
    }
}
