//! `-v` with its options, named volumes and `--mount`, as root and as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use super::host::{Host, IMAGE, Who};
use super::options::output_as;
use super::{Named, everyone, podman};
use crate::support::keeper::USER_ID;
use crate::support::runtime::next_number;

/// A directory with a file `given`, which everybody may write to.
fn directory(host: &Host, who: Who) -> PathBuf {
    let parent = if who == Who::Root { host.dir().to_path_buf() } else { host.dir().join("user/home") };
    let dir = parent.join(format!("volume-{}", next_number()));
    fs::create_dir(&dir).expect("make a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod a directory");
    fs::write(dir.join("given"), "given\n").expect("write a file");
    if who == Who::User {
        let id = USER_ID.parse().ok();
        chown(&dir, id, id).and_then(|()| chown(dir.join("given"), id, id)).expect("chown a directory");
    }
    dir
}

/// The line of the container's mountinfo for `-v DIR:/data:OPTION`.
#[track_caller]
fn mounted(anyone: (&'static Host, Who), option: &str) -> String {
    let volume = format!("{}:/data:{option}", directory(anyone.0, anyone.1).display());
    output_as(anyone, &["--volume", &volume], "cat /data/given >&2; grep ' /data ' /proc/self/mountinfo")
}

fn has_flag(line: &str, flag: &str) -> bool {
    line.split(' ').nth(5).is_some_and(|flags| flags.split(',').any(|given| given == flag))
}

#[test]
fn access() {
    for anyone in everyone!() {
        let dir = directory(anyone.0, anyone.1);
        let volume = |options: &str| format!("{}:/data:{options}", dir.display());
        let script = "cat /data/given; touch /data/made 2>/dev/null && echo written; true";
        assert_eq!(output_as(anyone, &["--volume", &volume("ro")], script), "given\n");
        assert!(!dir.join("made").exists());
        assert_eq!(output_as(anyone, &["--volume", &volume("rw")], script), "given\nwritten\n");
        assert!(dir.join("made").exists());
    }
}

#[test]
fn flags() {
    for anyone in everyone!() {
        for flag in ["ro", "rw", "noexec", "nosuid", "nodev"] {
            let line = mounted(anyone, flag);
            assert!(has_flag(&line, flag), "{flag}: {line}");
        }
        for (option, without) in [("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev")] {
            let line = mounted(anyone, option);
            assert!(!has_flag(&line, without), "{option}: {line}");
        }
        let line = mounted(anyone, "ro,noexec,nosuid,nodev,rbind,rslave");
        assert!(["ro", "noexec", "nosuid", "nodev"].iter().all(|flag| has_flag(&line, flag)), "{line}");
        // Labels need SELinux, and are accepted without.
        mounted(anyone, "z");
        mounted(anyone, "Z");
    }
}

/// What is mounted below the source comes along, except with `bind`.
#[test]
fn below_the_source() {
    let host = podman!();
    let dir = directory(host, Who::Root).display().to_string();
    fs::create_dir(format!("{dir}/below")).expect("make a directory");
    host.enter(&["mount", "-t", "tmpfs", "none", &format!("{dir}/below")]).ok();
    host.enter(&["touch", &format!("{dir}/below/seen")]).ok();
    for (option, seen) in [("rbind", "seen\n"), ("rw", "seen\n"), ("bind", "")] {
        let volume = format!("{dir}:/data:{option}");
        assert_eq!(output_as((host, Who::Root), &["--volume", &volume], "ls /data/below"), seen, "{option}");
    }
    host.enter(&["umount", &format!("{dir}/below")]).ok();
}

#[test]
fn propagation() {
    let host = podman!();
    let dir = directory(host, Who::Root).display().to_string();
    host.enter(&["mount", "--bind", &dir, &dir]).ok();
    host.enter(&["mount", "--make-shared", &dir]).ok();
    for (option, shared, slave) in [
        ("private", false, false),
        ("rprivate", false, false),
        ("slave", false, true),
        ("rslave", false, true),
        ("shared", true, false),
        ("rshared", true, false),
    ] {
        let volume = format!("{dir}:/data:{option}");
        let line = output_as((host, Who::Root), &["--volume", &volume], "grep ' /data ' /proc/self/mountinfo");
        let is = (line.contains(" shared:"), line.contains(" master:"));
        assert_eq!(is, (shared, slave), "{option}: {line}");
    }
    host.enter(&["umount", &dir]).ok();
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

/// `U` gives the volume to the container's user, `O` puts an overlay above it that is gone with the container.
#[test]
fn owner_and_overlay() {
    for anyone in everyone!() {
        let dir = directory(anyone.0, anyone.1);
        let volume = format!("{}:/data:U", dir.display());
        let flags = ["--user", "1000:1001", "--volume", &volume];
        assert_eq!(output_as(anyone, &flags, "stat -c %u:%g /data /data/given"), "1000:1001\n1000:1001\n");

        let dir = directory(anyone.0, anyone.1);
        let volume = format!("{}:/data:O", dir.display());
        let script = "echo changed > /data/given; touch /data/made && cat /data/given";
        assert_eq!(output_as(anyone, &["--volume", &volume], script), "changed\n");
        assert!(!dir.join("made").exists());
        assert_eq!(fs::read_to_string(dir.join("given")).expect("read a file"), "given\n");
    }
}

/// A new volume gets what the image has at its place, except with `nocopy`, and keeps what is written.
#[test]
fn named_volumes() {
    for (host, who) in everyone!() {
        let [name, bare, tmpfs] = [(); 3].map(|()| format!("volume-{}", next_number()));
        let at = |options: &str| format!("{name}:/etc:{options}");
        let script = "cut -d: -f1 /etc/passwd; echo more > /etc/more";
        assert_eq!(output_as((host, who), &["--volume", &at("copy")], script), "root\nplain\n");
        assert_eq!(output_as((host, who), &["--volume", &at("ro")], "cat /etc/more"), "more\n");
        let given = format!(
            "type=volume,source={tmpfs},target=/data,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m"
        );
        if who == Who::Root {
            assert_eq!(
                output_as((host, who), &["--mount", &given], "grep -c 'tmpfs /data.*size=1024k' /proc/mounts"),
                "1\n"
            );
            host.call_as(who, &["volume", "rm", &tmpfs]).run().ok();
        }
        let volume = format!("{bare}:/etc:nocopy");
        assert_eq!(output_as((host, who), &["--volume", &volume], "test -e /etc/passwd || echo bare"), "bare\n");
        host.call_as(who, &["volume", "rm", &name, &bare]).run().ok();
    }
}

#[test]
fn other_forms() {
    for (host, who) in everyone!() {
        let dir = directory(host, who);
        let bind = format!("type=bind,source={},target=/data,ro=true", dir.display());
        let flags = ["--mount", &bind, "--mount", "type=tmpfs,target=/fresh,tmpfs-size=1m", "--volume", "/unnamed"];
        let script = "cat /data/given; touch /data/x 2>/dev/null || echo read-only; df /fresh | tail -1 | tr -s ' ' | cut -d' ' -f2; \
                      touch /unnamed/x && echo written";
        assert_eq!(output_as((host, who), &flags, script), "given\nread-only\n1024\nwritten\n");

        let first = Named::of(host, who);
        first.start(&["--volume", &format!("{}:/data", dir.display())], "echo up; exec sleep 600");
        assert_eq!(output_as((host, who), &["--volumes-from", &first.name], "cat /data/given"), "given\n");
    }
}

/// The image of another is a mount too.
#[test]
fn images() {
    let host = podman!();
    let mount = format!("type=image,source={IMAGE},destination=/image");
    assert_eq!(output_as((host, Who::Root), &["--mount", &mount], "head -c 4 /image/etc/passwd"), "root");
}
