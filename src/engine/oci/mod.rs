//! The `oci` engine: Linux namespaces and cgroups, one kernel idea a file.

pub mod cgroup;
pub mod cgroups;
pub mod checkpoint;
mod create;
mod devices;
mod engine;
mod exec;
mod file_system;
pub mod hooks;
pub(in crate::engine) mod host_root;
pub mod idmap;
mod mounts;
mod namespaces;
pub(in crate::engine) mod network;
mod plan;
pub mod process;
pub mod resctrl;
pub mod resctrl_stats;
pub mod seccomp;
mod seccomp_bpf;
pub mod seccomp_listener;
mod seccomp_ranges;
mod seccomp_unknown;
mod sources;
pub(in crate::engine) mod stage2;

pub use super::live::wait_for;
pub use engine::{OciEngine, PROVIDER};
pub(in crate::engine) use plan::no_linux;
