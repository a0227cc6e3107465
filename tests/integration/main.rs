//! Every test that drives the real binary on the real kernel; one module a feature.

mod bundles;
mod cgroup_module;
mod cli;
mod contract;
mod differential;
mod errors;
mod escapes;
mod interrupted;
mod leaks;
mod newer;
mod podman;
mod process_fields;
mod seccomp_notify;
mod second_engine;
mod service;
mod slowed;
mod support;
mod verbs;
