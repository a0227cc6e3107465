//! Each namespace: new, absent (the host's), and by path.

use serde_json::json;

use super::{cases, probe};

cases! {
    "namespaces";
    probe default_spec => |_| {};
    probe host_pid => |b| { b.without_namespace("pid"); };
    probe host_network => |b| { b.without_namespace("network"); };
    probe host_ipc => |b| { b.without_namespace("ipc"); };
    probe host_uts => |b| { b.without_namespace("uts"); b.spec["hostname"].take(); };
    probe cgroup => |b| { b.namespace("cgroup", ""); };
    probe network_by_path => |b| { b.namespace("network", "/proc/self/ns/net"); };
    probe ipc_by_path => |b| { b.namespace("ipc", "/proc/1/ns/ipc"); };
    probe uts_by_path => |b| { b.namespace("uts", "/proc/1/ns/uts"); b.spec["hostname"].take(); };
    probe pid_by_path => |b| { b.namespace("pid", "/proc/1/ns/pid"); };
    probe pid_only => |b| { b.spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]); b.spec["hostname"].take(); };
}
