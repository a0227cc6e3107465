//! Propagation: of the root, of single mounts, and what a mount below a bound directory becomes.
//!
//! The runtimes run in a mount namespace of their own in which everything is shared, with a tmpfs below the bundle: the
//! host's own tree may be private, where propagation cannot be told from none, and nothing can leak from there.

use serde_json::{Value, json};

use super::{cases, foreground};
use crate::support::{Bundle, Runtime};

/// Runs the bundle that `build` makes where the directory "source" holds a file and a tmpfs with a file, all shared.
fn shared(runtime: &Runtime, build: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = Bundle::new();
    bundle.make_dir("source/below");
    build(&mut bundle);
    let script = format!(
        "cd {} && mount --bind source source && mount -t tmpfs below source/below && : > source/below/file && cd / && exec \"$@\"",
        bundle.path().display()
    );
    let words = ["unshare", "--mount", "--propagation", "shared", "sh", "-e", "-c", &script, "sh"];
    let runtime = runtime.copy().wrapped(&words);
    foreground(&runtime, &bundle, &[])
}

/// A recursive bind of "source" with `options`.
fn rbind(runtime: &Runtime, options: &[&str]) -> Value {
    shared(runtime, |b| {
        b.bind("source", "/tmp", &[&["rbind"], options].concat());
        b.probe(&["--list", "/tmp", "--list", "/tmp/below", "--write", "/tmp", "--write", "/tmp/below"]);
    })
}

/// `linux.rootfsPropagation`, with a bind.
fn root(runtime: &Runtime, value: &str) -> Value {
    shared(runtime, |b| {
        b.bind("source", "/tmp", &["rbind"]).set("/linux/rootfsPropagation", json!(value));
    })
}

cases! {
    "propagation";
    flow rbind_plain => |r| rbind(r, &[]);
    flow rbind_private => |r| rbind(r, &["private"]);
    flow rbind_rprivate => |r| rbind(r, &["rprivate"]);
    flow rbind_slave => |r| rbind(r, &["slave"]);
    flow rbind_rslave => |r| rbind(r, &["rslave"]);
    flow rbind_shared => |r| rbind(r, &["shared"]);
    flow rbind_rshared => |r| rbind(r, &["rshared"]);
    flow rbind_unbindable => |r| rbind(r, &["unbindable"]);
    flow rbind_runbindable => |r| rbind(r, &["runbindable"]);
    flow rbind_ro => |r| rbind(r, &["ro"]);
    flow rbind_ro_rprivate_nosuid => |r| rbind(r, &["ro", "rprivate", "nosuid", "nodev"]);
    flow rbind_rro => |r| rbind(r, &["rro"]);
    flow rbind_rnosuid_rnodev_rnoexec => |r| rbind(r, &["rnosuid", "rnodev", "rnoexec"]);
    flow rbind_rnoatime => |r| rbind(r, &["rnoatime"]);
    flow rbind_rrw => |r| rbind(r, &["ro", "rrw"]);
    flow rbind_two_propagations => |r| rbind(r, &["rshared", "rslave"]);
    flow bind_is_not_recursive => |r| shared(r, |b| { b.bind("source", "/tmp", &["bind"]).probe(&["--list", "/tmp/below"]); });
    flow bind_rslave => |r| shared(r, |b| { b.bind("source", "/tmp", &["bind", "rslave"]); });
    flow tmpfs_shared => |r| shared(r, |b| { b.mount("/tmp", "tmpfs", "tmpfs", &["shared"]); });
    flow tmpfs_unbindable => |r| shared(r, |b| { b.mount("/tmp", "tmpfs", "tmpfs", &["unbindable"]); });
    flow proc_slave => |r| shared(r, |b| { b.mount_options("/proc", &["slave"]); });
    flow root_default => |r| shared(r, |_| {});
    flow root_private => |r| root(r, "private");
    flow root_slave => |r| root(r, "slave");
    flow root_shared => |r| root(r, "shared");
    flow root_unbindable => |r| root(r, "unbindable");
    flow root_rprivate => |r| root(r, "rprivate");
    flow root_rslave => |r| root(r, "rslave");
    flow root_rshared => |r| root(r, "rshared");
    flow root_unknown => |r| root(r, "nosuch");
    flow no_pivot => |r| {
        let mut bundle = Bundle::new();
        bundle.make_dir("source");
        bundle.bind("source", "/tmp", &["bind"]);
        foreground(&r.copy().wrapped(&["unshare", "--mount", "--propagation", "shared"]), &bundle, &["--no-pivot"])
    };
}
