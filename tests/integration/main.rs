//! Every test that drives the real binary on the real kernel; one module a feature.

mod bundles;
mod cgroup_module;
mod cli;
mod contract;
mod deaths;
mod differential;
mod errors;
mod escapes;
mod fallbacks;
mod interrupted;
mod joined;
mod leaks;
mod mounts;
mod net_devices;
mod newer;
mod podman;
mod process_fields;
mod rootless;
mod schema;
mod seccomp_notify;
mod second_engine;
mod service;
mod slowed;
mod support;
mod verbs;
