//! The `oci` engine: Linux namespaces and cgroups, one kernel idea a file.

pub mod cgroup;
mod create;
mod devices;
mod engine;
mod exec;
pub mod hooks;
mod mounts;
mod namespaces;
pub mod process;
mod seccomp;
mod stage2;

pub use engine::{OciEngine, PROVIDER, signal_init, start_through_barrier, wait_for};
