//! Names that change while a container is made: each is tried many times, and wherever the change fell the container is
//! either refused or has what was asked for, and the host is as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::swap::Swap;
use crate::support::{Bundle, Container, Runtime, own_engine};

/// How often each race is run.
const TRIES: usize = 25;

/// A directory of the host with a file that no container may see, and nothing else.
fn secret(bundle: &Bundle) -> PathBuf {
    bundle.make_file("host/secret", "of the host");
    bundle.host("host")
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("read a directory of the host")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Runs the bundle often while `one` and `other` change places. `check` gets what a container that was made has printed.
fn race(runtime: &Runtime, bundle: &Bundle, one: &Path, other: &Path, check: impl Fn(&str)) {
    let (mut made, mut refused) = (0, 0);
    let swap = Swap::new(one, other);
    for _ in 0..TRIES {
        let container = Container::new(runtime, bundle);
        let output = container.run(&[]);
        match output.code {
            0 => {
                made += 1;
                check(&output.stdout);
            }
            1 => refused += 1,
            code => panic!("code {code}: {}", output.stderr),
        }
    }
    drop(swap);
    eprintln!("{made} made, {refused} refused");
}

/// CVE-2021-30465: the destination of a volume turns into a link that leads out of the container's root.
#[test]
fn a_destination_that_turns_into_a_link() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("cat /proc/self/mountinfo; ls -R /volume /elsewhere 2>/dev/null; true");
    let host = secret(&bundle);
    bundle.make_dir("rootfs/volume/place/inner");
    bundle.make_dir("volume");
    // Many steps up end at the container's root, or at the host's.
    symlink(format!("{}{}", "../".repeat(20), host.display()), bundle.host("rootfs/volume/link")).expect("make a link");
    bundle.set("/root/readonly", json!(false));
    bundle.bind("volume", "/volume/place/inner", &["bind"]);
    let name = bundle.name();
    race(&runtime, &bundle, &bundle.host("rootfs/volume/place"), &bundle.host("rootfs/volume/link"), |seen| {
        // mountinfo names what is mounted by its path on the host's file system, which is the bundle's; mount points are
        // all of the container.
        let points = seen.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with('/'));
        assert!(points.into_iter().all(|point| !point.contains("secret")), "{seen}");
        assert!(!seen.lines().any(|line| line == "secret"), "the container of {name} sees the host: {seen}");
    });
    assert_eq!(names_in(&host), ["secret"]);
}

/// CVE-2024-45310: what is made for a mount is made on the host, by way of a link that was a directory.
#[test]
fn nothing_is_made_on_the_host() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("true");
    let host = secret(&bundle);
    bundle.make_dir("rootfs/grow/real");
    symlink(&host, bundle.host("rootfs/grow/link")).expect("make a link");
    bundle.set("/root/readonly", json!(false)).make_file("file", "");
    bundle.mount("/grow/real/a/b/c", "tmpfs", "tmpfs", &[]);
    bundle.bind("file", "/grow/real/d/file", &["bind"]);
    let (real, link) = (bundle.host("rootfs/grow/real"), bundle.host("rootfs/grow/link"));
    for _ in 0..2 {
        race(&runtime, &bundle, &real, &link, |_| ());
        assert_eq!(names_in(&host), ["secret"]);
        for grown in [&real, &link].iter().filter(|path| !path.is_symlink()) {
            let _ = fs::remove_dir_all(grown.join("a"));
            let _ = fs::remove_dir_all(grown.join("d"));
        }
    }
}

/// CVE-2023-27561 and CVE-2019-19921: /proc turns into a link to a directory of the image, so that what is masked and what
/// is written to is something else.
#[test]
fn proc_that_turns_into_a_link() {
    let runtime = own_engine!();
    // The two go on changing places, so that /proc may be the link by now.
    let script = "cat /proc/self/mountinfo; ls /image/fake; true";
    let mut bundle = Bundle::shell(script);
    bundle.make_dir("rootfs/image/fake");
    symlink("image/fake", bundle.host("rootfs/link")).expect("make a link");
    bundle.set("/linux/sysctl", json!({ "kernel.domainname": "example.org" }));
    race(&runtime, &bundle, &bundle.host("rootfs/proc"), &bundle.host("rootfs/link"), |seen| {
        assert!(!seen.contains(" /image/fake "), "something was mounted where the link leads: {seen}");
    });
    assert!(names_in(&bundle.host("rootfs/image/fake")).is_empty());
}

/// CVE-2025-31133: /dev/null turns into a link, and what is to be masked is shown instead, and writable.
#[test]
fn dev_null_that_turns_into_a_link() {
    let runtime = own_engine!();
    let script = "cat /proc/self/mountinfo; echo --; cat /masked/file";
    let mut bundle = Bundle::shell(script);
    bundle.unmount("/dev").unmount("/dev/pts").unmount("/dev/shm").unmount("/dev/mqueue");
    bundle.set("/root/readonly", json!(false));
    bundle.make_file("rootfs/masked/file", "what is masked");
    symlink("/proc/sys/kernel/core_pattern", bundle.host("rootfs/dev/link")).expect("make a link");
    let null = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from(0o666);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundle.host("rootfs/dev/null"),
        rustix::fs::FileType::CharacterDevice,
        mode,
        null,
    )
    .expect("make a device");
    bundle.set("/linux/maskedPaths", json!(["/masked/file"]));
    race(&runtime, &bundle, &bundle.host("rootfs/dev/null"), &bundle.host("rootfs/dev/link"), |seen| {
        let (mounts, content) = seen.split_once("--\n").expect("both parts");
        assert_eq!(content, "", "what is masked is shown");
        let mask = mounts.lines().find(|line| line.contains(" /masked/file ")).expect("a mask");
        assert!(!mask.contains(" - proc "), "{mask}");
    });
}
