//! crun's options for symbolic links: `src-nofollow`, `dest-nofollow`, `copy-symlink`.

use std::fs;

use super::{only_own_engine, run};
use crate::support::Bundle;

/// A bundle that binds `source`, a link to `points-at`, with options, and then runs a script.
fn bundle(options: &[&str], script: &str) -> Bundle {
    let mut b = Bundle::shell(script);
    b.make_file("pointed/file", "of the host");
    b.make_link("link", "pointed/file");
    b.bind("link", "/target", options);
    b
}

#[test]
fn without_options_links_are_followed() {
    let runtime = only_own_engine!();
    let b = bundle(&["bind"], "test ! -L /target && cat /target");
    assert_eq!(run(&runtime, &b).ok().stdout, "of the host");
}

#[test]
fn the_link_itself_is_bound() {
    let runtime = only_own_engine!();
    let b = bundle(&["bind", "src-nofollow"], "readlink /target");
    assert_eq!(run(&runtime, &b).ok().stdout.trim(), "pointed/file");
    // On top of another link.
    let b =
        bundle(&["bind", "src-nofollow", "dest-nofollow"], "readlink /target; cat /etc/passwd | head -1 | cut -c1-4");
    b.make_link("rootfs/target", "/etc/passwd");
    assert_eq!(run(&runtime, &b).ok().stdout, "pointed/file\nroot\n");
    assert_eq!(fs::read_link(b.host("rootfs/target")).expect("the image's link").as_os_str(), "/etc/passwd");
}

#[test]
fn a_file_covers_a_link() {
    let runtime = only_own_engine!();
    let b = bundle(&["bind", "dest-nofollow"], "cat /target; echo; cut -c1-4 /etc/passwd | head -1");
    b.make_link("rootfs/target", "/etc/passwd");
    assert_eq!(run(&runtime, &b).ok().stdout, "of the host\nroot\n");
    // Without the option the link leads to what is covered.
    let b = bundle(&["bind"], "cat /etc/passwd");
    b.make_link("rootfs/target", "/etc/passwd");
    assert_eq!(run(&runtime, &b).ok().stdout, "of the host");
    // A directory cannot cover a link.
    let mut b = Bundle::shell("true");
    b.make_dir("dir");
    b.make_link("rootfs/target", "/tmp");
    b.bind("dir", "/target", &["bind", "dest-nofollow"]);
    run(&runtime, &b).fails(1, "not a directory");
}

#[test]
fn a_dangling_link_is_covered_where_it_is() {
    let runtime = only_own_engine!();
    let b = bundle(&["bind", "dest-nofollow"], "cat /target");
    b.make_link("rootfs/target", "/no/where");
    assert_eq!(run(&runtime, &b).ok().stdout, "of the host");
    assert!(!b.host("rootfs/no").exists());
}

#[test]
fn a_link_is_copied() {
    let runtime = only_own_engine!();
    let b = bundle(&["bind", "copy-symlink"], "readlink /target");
    assert_eq!(run(&runtime, &b).ok().stdout.trim(), "pointed/file");
    // The same link again is fine, another is not.
    assert_eq!(run(&runtime, &b).ok().stdout.trim(), "pointed/file");
    fs::remove_file(b.host("rootfs/target")).expect("remove");
    b.make_link("rootfs/target", "elsewhere");
    run(&runtime, &b).fails(1, "something else is there already");
    fs::remove_file(b.host("rootfs/target")).expect("remove");
    b.make_file("rootfs/target", "");
    run(&runtime, &b).fails(1, "something else is there already");
}

#[test]
fn no_link_is_bound_as_ever() {
    let runtime = only_own_engine!();
    for option in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
        let mut b = Bundle::shell("cat /target");
        b.make_file("file", "of the host");
        b.bind("file", "/target", &["bind", option]);
        assert_eq!(run(&runtime, &b).ok().stdout, "of the host", "{option}");
    }
}

#[test]
fn a_copied_link_does_not_lead_out_of_the_root() {
    let runtime = only_own_engine!();
    let b = Bundle::shell("true");
    b.make_dir("outside");
    b.make_link("rootfs/dir", &b.host("outside").display().to_string());
    b.make_link("link", "x");
    let mut b = b;
    b.bind("link", "/dir/new", &["bind", "copy-symlink"]);
    run(&runtime, &b).ok();
    assert_eq!(fs::read_dir(b.host("outside")).expect("outside").count(), 0);
}

#[test]
fn options_that_contradict() {
    let runtime = only_own_engine!();
    for other in ["src-nofollow", "dest-nofollow"] {
        let b = bundle(&["bind", "copy-symlink", other], "true");
        run(&runtime, &b).fails(1, "mutually exclusive");
    }
    let mut b = Bundle::shell("true");
    b.mount("/tmp", "tmpfs", "tmpfs", &["dest-nofollow"]);
    run(&runtime, &b).fails(1, "options of bind mounts");
}
