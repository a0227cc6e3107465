//! The `oci` engine: Linux namespaces and cgroups, one kernel idea a file.

pub mod cgroup;
