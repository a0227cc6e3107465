//! The document that travels from stage1 to smaster to stage2.
//!
//! Everything in it has been decided: names are numbers, strings have become flags. Descriptors travel beside it and
//! are named by their index.

use crate::rpc::operation::{FdIndex, HookOperation};
use crate::sys::caps::CapabilitySets;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The only version of this document that this binary writes and reads.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    pub version: u32,
    pub engine_name: String,
    pub common: Common,
    pub starter: Starter,
    pub oci_config: OciConfig,
    pub engine_config: Box<RawValue>,
}

/// What every engine knows about the container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Common {
    pub id: String,
    /// The state of the container for hooks that stage2 runs at start, as JSON text without its pid; empty without such hooks.
    pub state: String,
}

/// What stage2 needs before any engine's code runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Starter {
    /// How the executable is kept from being overwritten by the container.
    pub sealed: Sealed,
    /// A user without privileges maps the ids of its new user namespace before the first batch arrives.
    pub is_mapped_by_user: bool,
    /// The listening end of the start barrier; absent for a process that its creator starts.
    pub barrier: Option<FdIndex>,
    /// Whether its creator says when: otherwise a process without a barrier runs at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_start: bool,
    /// oom_score_adj(5), written first because it may need a privilege that is given up soon.
    pub oom_score_adj: Option<i32>,
    /// Descriptors from 3 upwards that the payload keeps.
    pub preserve_fds: u32,
    /// How many of these are sockets of LISTEN_FDS (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Whether stage2 tells when it did what.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timeline: bool,
}

/// What stands between the container and the runtime's executable (CVE-2019-5736).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sealed {
    /// stage2 runs from a mount that is read-only and in no mount namespace.
    #[default]
    ReadonlyMount,
    /// stage2 runs from a sealed copy in memory.
    Memory,
    /// The caller could not write the executable either, nor could any user that the container has.
    NotWritable,
}

/// The part of the bundle's configuration that stage2 acts on: the process (runtime-spec config.md, Process), and the
/// hooks that run in its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciConfig {
    pub process: ProcessPlan,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<HookOperation>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
    /// Absent: capabilities are left as they are (an engine without isolation).
    pub capabilities: Option<CapabilitySets>,
    /// Number of the resource, soft limit, hard limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<(u32, u64, u64)>,
    pub no_new_privileges: bool,
    pub seccomp: Option<SeccompPlan>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    /// Name of the session keyring to make.
    pub keyring: Option<String>,
    pub terminal: bool,
    pub personality: Option<u32>,
    /// ioprio_set(2): class and priority in one number.
    pub io_priority: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerPlan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// sched_setaffinity(2) after the process is in its cgroups: bit n of word n/64 is processor n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Vec<u64>>,
}

/// sched_setattr(2), in its numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerPlan {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryPolicyPlan {
    /// `MPOL_*` with its flags.
    pub mode: i32,
    /// Bit n of word n/64 is node n.
    pub nodes: Vec<u64>,
}

/// The program itself comes with an operation of its own, because it is compiled while stage2 mounts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompPlan {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Where somebody is to be notified of system calls: whom smaster hands the filter's listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerPlan>,
}

/// `linux.seccomp.listenerPath` and what goes there (config-linux.md, Seccomp).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerPlan {
    pub path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}
