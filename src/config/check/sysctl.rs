//! config-linux.md "Sysctl": only what belongs to a namespace that the container has for itself may be set.

use std::path::Path;

use serde_json::Value;

use super::document::keyed;
use super::{Report, linux};
use crate::sys::process::is_own_namespace;

/// The System V IPC settings of an IPC namespace (ipc_namespaces(7)).
#[rustfmt::skip]
const IPC: &[&str] = &[
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn check(report: &mut Report, linux: &Value) {
    let Some(settings) = linux.get("sysctl").and_then(Value::as_object) else { return };
    for key in settings.keys() {
        let name = dotted(key);
        if !is_plain(&name) {
            // A name becomes a path below /proc/sys: `net/../kernel/core_pattern` would be the host's.
            report.error(
                keyed("/linux/sysctl", key),
                format!("sysctl {key:?} is not a name: it has an empty part, or one that names a directory"),
                "write it as in net.ipv4.ip_forward",
            );
        } else if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            needs(report, linux, key, "ipc");
        } else if name.starts_with("net.") {
            needs(report, linux, key, "network");
        } else if name == "kernel.domainname" {
            needs(report, linux, key, "uts");
        } else if name == "kernel.hostname" {
            report.error(
                keyed("/linux/sysctl", key),
                format!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"),
                "use \"hostname\" at the top of the document",
            );
        } else {
            report.error(
                keyed("/linux/sysctl", key),
                format!("sysctl {key:?} is not in a separate kernel namespace"),
                "set it on the host: it holds for all of the system",
            );
        }
    }
}

fn needs(report: &mut Report, linux: &Value, key: &str, namespace: &str) {
    let remedy = match linux::namespace(linux, namespace) {
        None => format!("add {{\"type\": \"{namespace}\"}} to linux.namespaces"),
        Some(path) if is_own(path, namespace) => {
            format!("leave the path {path:?} out of linux.namespaces, or name the namespace of a container")
        }
        Some(_) => return,
    };
    report.error(
        keyed("/linux/sysctl", key),
        format!("sysctl {key:?} is not allowed in the hosts {namespace} namespace"),
        remedy,
    );
}

/// Whether what is joined at the path is the namespace that rtx itself is in: its settings are the host's.
fn is_own(path: &str, namespace: &str) -> bool {
    let file = if namespace == "network" { "net" } else { namespace };
    !path.is_empty() && is_own_namespace(Path::new(path), file)
}

/// Whether every part of a dotted name is the name of something.
fn is_plain(name: &str) -> bool {
    // What is a `.` in a part is a `/` here.
    name.split('.').all(|part| !matches!(part, "" | "/" | "//"))
}

/// sysctl(8): whichever of `.` and `/` comes first separates, and the other one is part of a name, as in
/// `net.ipv4.conf.eth0/1.forwarding`, where the interface is called `eth0.1`.
pub fn dotted(key: &str) -> String {
    if key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'/') {
        let swap = |letter| match letter {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        return key.chars().map(swap).collect();
    }
    key.to_owned()
}
