//! What libcontainer 0.7 would leave out or do otherwise without a word. This engine says so instead.

use super::PROVIDER;
use crate::engine::{FeatureNotSupported, LaunchOptions};
use anyhow::Result;
use oci_spec::runtime::{Mount, Process, Spec};

/// Options of a bind mount that it drops.
const DROPPED: &[&str] = &[
    "sync",
    "remount",
    "suid",
    "dev",
    "exec",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "unbindable",
    "runbindable",
];

/// Refuses a configuration that libcontainer would not do as it says.
///
/// # Errors
/// Everything that is refused, by its JSON pointer.
pub fn check(spec: &Spec, options: &LaunchOptions) -> Result<()> {
    let mut refused = Vec::new();
    if options.no_cgroup {
        refused.push("containers without cgroups".to_owned());
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        refused
            .extend(dropped_options(mount).map(|option| format!("/mounts/{index}/options {option:?} of a bind mount")));
    }
    if let Some(process) = spec.process() {
        in_process(process, options, &mut refused);
        let seccomp = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        if seccomp && process.no_new_privileges() == Some(false) {
            refused.push("/process/noNewPrivileges false with /linux/seccomp: leave it out".to_owned());
        }
    }
    refuse(&refused)
}

/// The same for a process that joins.
///
/// # Errors
/// As [`check`].
pub fn check_process(process: &Process, options: &LaunchOptions) -> Result<()> {
    let mut refused = Vec::new();
    in_process(process, options, &mut refused);
    refuse(&refused)
}

fn refuse(refused: &[String]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    Err(FeatureNotSupported { engine: PROVIDER.name, feature: refused.join(", ").into() }.into())
}

fn dropped_options(mount: &Mount) -> impl Iterator<Item = &String> {
    let options = mount.options().iter().flatten();
    let is_bind = options.clone().any(|option| option == "bind" || option == "rbind");
    options.filter(move |option| is_bind && DROPPED.contains(&option.as_str()))
}

fn in_process(process: &Process, options: &LaunchOptions, refused: &mut Vec<String>) {
    let terminal = process.terminal().unwrap_or(false);
    if terminal && options.foreground {
        refused.push("a terminal in the foreground: give --console-socket".to_owned());
    }
    if terminal && process.console_size().is_some_and(|size| size.height() != 0 || size.width() != 0) {
        refused.push("/process/consoleSize".to_owned());
    }
    // It would keep every capability.
    if process.capabilities().is_none() {
        refused.push("an absent /process/capabilities: name the sets, empty ones too".to_owned());
    }
    if process.selinux_label().as_ref().is_some_and(|label| !label.is_empty()) {
        refused.push("/process/selinuxLabel".to_owned());
    }
}
