//! The process of a configuration (runtime-spec config.md, Process), decided: names become numbers.

use crate::config::envelope::ProcessPlan;
use crate::engine::LaunchOptions;
use crate::sys::caps::{self, CapabilitySets};
use anyhow::{Result, bail};
use oci_spec::runtime::{
    Capability, IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain, PosixRlimitType, Process,
};
use std::collections::HashSet;

/// Resource limits by the names of setrlimit(2) and their numbers.
pub const RLIMITS: &[(&str, u32)] = &[
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

/// The plan for one process, but for what depends on descriptors.
///
/// # Errors
/// A value that no kernel takes.
pub fn plan(process: &Process, options: &LaunchOptions, keyring: String) -> Result<ProcessPlan> {
    let user = process.user();
    let Some(args) = process.args().clone().filter(|args| !args.is_empty()) else { bail!("args must not be empty") };
    Ok(ProcessPlan {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().to_string_lossy().into_owned(),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: Some(capabilities(process)),
        rlimits: rlimits(process)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp: None,
        apparmor_profile: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
        selinux_label: process.selinux_label().clone().filter(|label| !label.is_empty()),
        keyring: (!options.no_new_keyring).then_some(keyring),
        terminal: process.terminal().unwrap_or(false),
        personality: None,
        io_priority: process.io_priority().as_ref().map(io_priority),
    })
}

/// An absent set is the empty set, and so are all where there is no `capabilities` at all.
pub fn capabilities(process: &Process) -> CapabilitySets {
    let Some(sets) = process.capabilities() else { return CapabilitySets::default() };
    CapabilitySets {
        bounding: mask(sets.bounding().as_ref()),
        effective: mask(sets.effective().as_ref()),
        permitted: mask(sets.permitted().as_ref()),
        inheritable: mask(sets.inheritable().as_ref()),
        ambient: mask(sets.ambient().as_ref()),
    }
}

fn mask(set: Option<&HashSet<Capability>>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, capability| mask | number(*capability).map_or(0, |number| 1 << number))
}

/// The number of a capability (linux/capability.h).
pub fn number(capability: Capability) -> Option<u32> {
    let name = capability.to_string();
    caps::all_names().iter().position(|known| known.strip_prefix("CAP_") == Some(&name)).map(|index| index as u32)
}

fn rlimits(process: &Process) -> Result<Vec<(u32, u64, u64)>> {
    let mut limits = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        limits.push((rlimit_number(limit.typ())?, limit.soft(), limit.hard()));
    }
    Ok(limits)
}

fn rlimit_number(kind: PosixRlimitType) -> Result<u32> {
    let name = kind.to_string();
    match RLIMITS.iter().find(|(known, _)| *known == name) {
        Some((_, number)) => Ok(*number),
        None => bail!("wrong rlimit value: {name}"),
    }
}

/// Class and level in one number (ioprio_set(2)).
fn io_priority(priority: &LinuxIOPriority) -> i32 {
    const CLASS_SHIFT: i32 = 13;
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << CLASS_SHIFT | priority.priority() as i32
}

/// The number of personality(2).
pub fn personality(personality: &LinuxPersonality) -> u32 {
    match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_specification_has_its_number() {
        assert_eq!(number(Capability::Chown), Some(0));
        assert_eq!(number(Capability::SysAdmin), Some(21));
        assert_eq!(number(Capability::CheckpointRestore), Some(40));
        for name in caps::all_names() {
            let capability: Capability = name.trim_start_matches("CAP_").parse().unwrap();
            assert!(number(capability).is_some(), "{name}");
        }
    }

    #[test]
    fn every_limit_of_the_specification_has_its_number() {
        for (name, number) in RLIMITS {
            assert_eq!(rlimit_number(name.parse().unwrap()).unwrap(), *number);
        }
    }
}
