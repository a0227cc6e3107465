//! What the flags of `podman run` change in a container.

use std::fs;

use super::{Named, podman};
use crate::support::keeper::installed;
use crate::support::skip;

/// The output of a script in a container that is run with `flags`.
#[track_caller]
fn output(host: &'static super::Host, flags: &[&str], script: &str) -> String {
    Named::new(host).run(&[&["--rm"], flags].concat(), &["sh", "-c", script]).ok().stdout
}

#[test]
fn read_only() {
    let host = podman!();
    let script = "touch /x 2>/dev/null && echo written; touch /tmp/x && echo temporary";
    assert_eq!(output(host, &["--read-only"], script), "temporary\n");
}

#[test]
fn users_and_groups() {
    let host = podman!();
    assert_eq!(
        output(host, &["--user", "1000:1001", "--group-add", "7"], "id -u; id -g; id -G"),
        "1000\n1001\n1001 7\n"
    );
    assert_eq!(output(host, &["--user", "plain"], "id -un; echo $HOME"), "plain\n/\n");
}

#[test]
fn capabilities() {
    let host = podman!();
    let script = "grep -E 'Cap(Eff|Bnd)' /proc/self/status | tr -d '\\t'";
    let flags = ["--cap-drop", "all", "--cap-add", "net_bind_service"];
    assert_eq!(output(host, &flags, script), "CapEff:0000000000000400\nCapBnd:0000000000000400\n");
    let as_user = ["--user", "1000", "--cap-drop", "all"];
    assert_eq!(output(host, &as_user, script), "CapEff:0000000000000000\nCapBnd:0000000000000000\n");
}

#[test]
fn seccomp_and_no_new_privileges() {
    let host = podman!();
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'";
    assert_eq!(output(host, &[], script), "NoNewPrivs:0\nSeccomp:2\n");
    let flags = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
    assert_eq!(output(host, &flags, script), "NoNewPrivs:1\nSeccomp:0\n");
}

#[test]
fn volumes() {
    let host = podman!();
    let dir = host.dir().join("volume");
    fs::create_dir(&dir).expect("make a directory");
    fs::write(dir.join("given"), "given\n").expect("write a file");
    let volume = |options: &str| format!("{}:/data:{options}", dir.display());
    let script = "cat /data/given; touch /data/made 2>/dev/null && echo written; true";
    assert_eq!(output(host, &["--volume", &volume("ro")], script), "given\n");
    assert!(!dir.join("made").exists());
    assert_eq!(output(host, &["--volume", &volume("rw")], script), "given\nwritten\n");
    assert!(dir.join("made").exists());
}

/// A mount of the container on a shared volume reaches podman's mount namespace.
#[test]
fn shared_volumes() {
    let host = podman!();
    let dir = host.dir().join("shared");
    fs::create_dir(&dir).expect("make a directory");
    let path = dir.display().to_string();
    host.enter(&["mount", "--bind", &path, &path]).ok();
    host.enter(&["mount", "--make-shared", &path]).ok();
    let container = Named::new(host);
    let flags = ["--volume", &format!("{path}:/data:rshared"), "--cap-add", "sys_admin"];
    let script =
        "mkdir /data/below && mount -t tmpfs none /data/below && touch /data/below/seen && echo up; exec sleep 600";
    container.start(&flags, script);
    host.enter(&["test", "-e", &format!("{path}/below/seen")]).ok();
    host.enter(&["umount", &format!("{path}/below")]).ok();
    host.enter(&["umount", &path]).ok();
}

#[test]
fn names_and_places() {
    let host = podman!();
    let flags = ["--hostname", "box", "--env", "A=b c", "--workdir", "/tmp", "--entrypoint", "sh"];
    let container = Named::new(host);
    let output = container.run(&[&["--rm"], &flags[..]].concat(), &["-c", "hostname; echo $A; pwd"]).ok();
    assert_eq!(output.stdout, "box\nb c\n/tmp\n");
}

#[test]
fn temporary_file_systems() {
    let host = podman!();
    let script = "grep ' /scratch ' /proc/mounts; touch /scratch/x && echo written";
    let text = output(host, &["--tmpfs", "/scratch:size=1m,mode=1777"], script);
    assert!(text.contains("size=1024k") && text.contains("nodev") && text.ends_with("written\n"), "{text}");
}

#[test]
fn devices() {
    let host = podman!();
    if !std::path::Path::new("/dev/fuse").exists() {
        skip!("no /dev/fuse");
    }
    let script =
        "stat -c %t:%T /dev/mine; (: < /dev/mine) && echo readable; (: > /dev/mine) 2>/dev/null || echo refused";
    let text = output(host, &["--device", "/dev/fuse:/dev/mine:r"], script);
    assert_eq!(text, "a:e5\nreadable\nrefused\n");
}

#[test]
fn sysctls() {
    let host = podman!();
    assert_eq!(output(host, &["--sysctl", "kernel.msgmax=4096"], "cat /proc/sys/kernel/msgmax"), "4096\n");
}

#[test]
fn init_process() {
    let host = podman!();
    if let Err(reason) = installed(&["catatonit"]) {
        skip!("{reason}");
    }
    assert_eq!(
        output(host, &["--init"], "tr '\\0' ' ' < /proc/1/cmdline; exit 0"),
        "/run/podman-init -- sh -c tr '\\0' ' ' < /proc/1/cmdline; exit 0 "
    );
}

/// podman leaves descriptor 3 open to conmon and rtx; the container has it, and nothing beyond.
#[test]
fn preserved_descriptors() {
    let host = podman!();
    let words = ["sh", "-c", "cat <&3; ls /proc/self/fd"];
    let call = Named::new(host);
    let given = host.dir().join("given");
    fs::write(&given, "given\n").expect("write a file");
    let script = format!("exec 3<{}; exec \"$@\"", given.display());
    let output = call.run_call(&["--rm", "--preserve-fds", "1"], &words).through_shell(&script).run().ok();
    assert_eq!(output.stdout, "given\n0\n1\n2\n3\n4\n", "4 is the directory that ls reads");
}

#[test]
fn user_namespaces() {
    let host = podman!();
    let flags = ["--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"];
    let text = output(host, &flags, "cat /proc/self/uid_map; id -u; touch /x && stat -c %u /x");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000", "0", "0"]);
}

#[test]
fn privileged() {
    let host = podman!();
    let text = output(
        host,
        &["--privileged"],
        "grep Seccomp: /proc/self/status; ls /dev | grep -c . ; mount -t tmpfs none /tmp && echo mounted",
    );
    assert!(text.contains("Seccomp:\t0") && text.ends_with("mounted\n"), "{text}");
}
