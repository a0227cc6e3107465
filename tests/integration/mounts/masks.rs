//! Paths that are masked or made read-only and not written in the usual way: what cannot be protected is an error.

use serde_json::json;

use super::{only_own_engine, run};
use crate::support::Bundle;

fn bundle(section: &str, path: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.make_file("rootfs/etc/secret", "known\n");
    bundle.make_link("rootfs/everything", "/");
    bundle.set("/root/readonly", json!(false)).set(section, json!([path]));
    bundle
}

#[test]
fn a_file_that_is_named_like_a_directory() {
    let runtime = only_own_engine!();
    for path in ["/etc/secret/", "/etc/secret/.", "//etc/./secret//"] {
        let masked = bundle("/linux/maskedPaths", path, "cat /etc/secret");
        assert_eq!(run(&runtime, &masked).ok().stdout, "", "{path}");
        let readonly = bundle("/linux/readonlyPaths", path, "echo more >>/etc/secret || cat /etc/secret");
        assert_eq!(run(&runtime, &readonly).ok().stdout, "known\n", "{path}");
    }
}

#[test]
fn what_leads_to_the_root() {
    let runtime = only_own_engine!();
    for path in ["/", "/.", "//", "/everything", "/etc/..", "/proc/../"] {
        let readonly = bundle("/linux/readonlyPaths", path, "touch /new || touch /dev/shm/new && echo only there");
        assert_eq!(run(&runtime, &readonly).ok().stdout, "only there\n", "{path}");
        let masked = bundle("/linux/maskedPaths", path, "true");
        run(&runtime, &masked).fails(1, "the root");
    }
}
