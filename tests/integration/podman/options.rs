//! What the flags of `podman run` change in a container.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Host, Named, Who, everyone, podman, podman_with_rtx};
use crate::support::keeper::installed;
use crate::support::skip;

/// The output of a script in a container of root's that is run with `flags`.
#[track_caller]
fn output(host: &'static Host, flags: &[&str], script: &str) -> String {
    output_as((host, Who::Root), flags, script)
}

/// The output of a script in anybody's container.
#[track_caller]
pub(super) fn output_as((host, who): (&'static Host, Who), flags: &[&str], script: &str) -> String {
    println!("{who:?} {flags:?}");
    Named::of(host, who).run(&[&["--rm"], flags].concat(), &["sh", "-c", script]).ok().stdout
}

#[test]
fn read_only() {
    for anyone in everyone!() {
        let script = "touch /x 2>/dev/null && echo written; touch /tmp/x && echo temporary";
        assert_eq!(output_as(anyone, &["--read-only"], script), "temporary\n");
    }
}

#[test]
fn users_and_groups() {
    for anyone in everyone!() {
        assert_eq!(
            output_as(anyone, &["--user", "1000:1001", "--group-add", "7"], "id -u; id -g; id -G"),
            "1000\n1001\n1001 7\n"
        );
        assert_eq!(output_as(anyone, &["--user", "plain"], "id -un; echo $HOME"), "plain\n/\n");
    }
}

#[test]
fn capabilities() {
    for anyone in everyone!() {
        let script = "grep -E 'Cap(Eff|Bnd)' /proc/self/status | tr -d '\\t'";
        let flags = ["--cap-drop", "all", "--cap-add", "net_bind_service"];
        assert_eq!(output_as(anyone, &flags, script), "CapEff:0000000000000400\nCapBnd:0000000000000400\n");
        let as_user = ["--user", "1000", "--cap-drop", "all"];
        assert_eq!(output_as(anyone, &as_user, script), "CapEff:0000000000000000\nCapBnd:0000000000000000\n");
    }
}

#[test]
fn seccomp_and_no_new_privileges() {
    for anyone in everyone!() {
        let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'";
        assert_eq!(output_as(anyone, &[], script), "NoNewPrivs:0\nSeccomp:2\n");
        let flags = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
        assert_eq!(output_as(anyone, &flags, script), "NoNewPrivs:1\nSeccomp:0\n");
    }
}

#[test]
fn names_and_places() {
    for anyone in everyone!() {
        let flags = ["--hostname", "box", "--env", "A=b c", "--workdir", "/tmp", "--entrypoint", "sh"];
        let container = Named::of(anyone.0, anyone.1);
        let output = container.run(&[&["--rm"], &flags[..]].concat(), &["-c", "hostname; echo $A; pwd"]).ok();
        assert_eq!(output.stdout, "box\nb c\n/tmp\n");
    }
}

#[test]
fn temporary_file_systems() {
    for anyone in everyone!() {
        let script = "grep ' /scratch ' /proc/mounts; touch /scratch/x && echo written";
        let text = output_as(anyone, &["--tmpfs", "/scratch:size=1m,mode=1777"], script);
        assert!(text.contains("size=1024k") && text.contains("nodev") && text.ends_with("written\n"), "{text}");
    }
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
    for anyone in everyone!() {
        if let Err(reason) = installed(&["catatonit"]) {
            skip!("{reason}");
        }
        assert_eq!(
            output_as(anyone, &["--init"], "tr '\\0' ' ' < /proc/1/cmdline; exit 0"),
            "/run/podman-init -- sh -c tr '\\0' ' ' < /proc/1/cmdline; exit 0 "
        );
    }
}

/// podman leaves descriptor 3 open to conmon and rtx; the container has it, and nothing beyond.
#[test]
fn preserved_descriptors() {
    let words = ["sh", "-c", "cat <&3; ls /proc/self/fd"];
    for (host, who) in everyone!() {
        let call = Named::of(host, who);
        let given = host.dir().join("given");
        fs::write(&given, "given\n").expect("write a file");
        let script = format!("exec 3<{}; exec \"$@\"", given.display());
        let output = call.run_call(&["--rm", "--preserve-fds", "1"], &words).through_shell(&script).run().ok();
        assert_eq!(output.stdout, "given\n0\n1\n2\n3\n4\n", "4 is the directory that ls reads");
    }
}

#[test]
fn user_namespaces() {
    let host = podman!();
    if !host.is_rtx() {
        // The control's init looks for its root file system as the mapped user; rtx is given it.
        for dir in ["vfs", "vfs/dir"] {
            let dir = host.dir().join("of-root/root").join(dir);
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).expect("let others search the storage");
        }
    }
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

#[test]
fn personality() {
    let host = podman_with_rtx!("runc 1.1 passes a personality over");
    let machine = output(host, &["--personality", "LINUX32"], "uname -m");
    assert_eq!(machine, "i686\n");
}
