//! Every test that drives the real binary on the real kernel; one module a feature.

mod bundles;
mod cgroup_module;
mod cli;
mod contract;
mod differential;
mod errors;
mod escapes;
mod guest;
mod interrupted;
mod joined;
mod leaks;
mod mounts;
mod net_devices;
mod newer;
mod podman;
mod rootless;
mod second_engine;
mod slowed;
mod support;
mod systemd;
mod verbs;
