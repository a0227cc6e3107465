//! The `r*` options, which hold for the mounts below as well, and their opposites (config-linux.md, Linux mount options).

use serde_json::Value;

use super::only_own_engine;
use crate::support::{Bundle, Container, Runtime};

/// The options that `/tmp` and a tmpfs below it have in the container, when the tmpfs was mounted on the host with
/// `below` and the bind has `options`.
#[track_caller]
fn options(runtime: &Runtime, below: &str, options: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut b = Bundle::new();
    let inner = b.make_dir("source/inner");
    b.bind("source", "/tmp", &[&["rbind"], options].concat());
    let script = format!("mount -t tmpfs -o {below} x '{}' && exec \"$@\"", inner.display());
    let container = Container::new(runtime, &b);
    container.background("run", &[]).through(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().ok();
    let seen: Value = serde_json::from_str(&container.stdout()).expect("the probe prints JSON");
    let of = |point: &str| {
        let text = seen["mounts"][point]["options"].as_str().expect("a mount");
        text.split(',').map(str::to_owned).collect()
    };
    (of("/tmp"), of("/tmp/inner"))
}

#[test]
fn set() {
    let runtime = only_own_engine!();
    for (option, shown) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rrelatime", "relatime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let (top, inner) = options(&runtime, "rw,strictatime", &[option]);
        assert!(top.iter().any(|have| have == shown), "{option}: {top:?}");
        assert!(inner.iter().any(|have| have == shown), "{option}: {inner:?}");
    }
}

#[test]
fn cleared() {
    let runtime = only_own_engine!();
    for (option, below, gone) in [
        ("rrw", "ro", "ro"),
        ("rsuid", "nosuid", "nosuid"),
        ("rdev", "nodev", "nodev"),
        ("rexec", "noexec", "noexec"),
        ("ratime", "noatime", "noatime"),
        ("rdiratime", "nodiratime", "nodiratime"),
        ("rstrictatime", "noatime", "noatime"),
        ("rstrictatime", "relatime", "relatime"),
        ("rsymfollow", "nosymfollow", "nosymfollow"),
    ] {
        let (_, inner) = options(&runtime, below, &[option]);
        assert!(!inner.iter().any(|have| have == gone), "{option} after {below}: {inner:?}");
    }
}

/// The plain option reaches the top only, and the two kinds may be combined.
#[test]
fn beside_plain_options() {
    let runtime = only_own_engine!();
    let (top, inner) = options(&runtime, "rw", &["ro", "rnosuid"]);
    assert!(top.contains(&"ro".to_owned()) && top.contains(&"nosuid".to_owned()), "{top:?}");
    assert!(inner.contains(&"rw".to_owned()) && inner.contains(&"nosuid".to_owned()), "{inner:?}");
    let (_, inner) = options(&runtime, "ro", &["rro", "rrw"]);
    assert!(inner.contains(&"rw".to_owned()), "{inner:?}");
}
