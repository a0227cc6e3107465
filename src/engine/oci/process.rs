//! The process of a configuration (runtime-spec config.md, Process), decided: names become numbers.

use crate::config::check::apparmor_is_enabled;
use crate::config::envelope::{MemoryPolicyPlan, ProcessPlan, SchedulerPlan};
use crate::config::number_list;
use crate::engine::LaunchOptions;
use crate::rpc::operation::{ConsoleOperation, Operation};
use crate::sys::caps::{self, CapabilitySets};
use anyhow::{Result, bail};
use oci_spec::runtime::{
    Capability, IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process,
    Scheduler,
};
use std::collections::HashSet;

/// Resource limits by the names of setrlimit(2) and their numbers.
#[allow(clippy::unnecessary_cast, reason = "musl has signed numbers")]
pub const RLIMITS: &[(&str, u32)] = &[
    ("RLIMIT_CPU", libc::RLIMIT_CPU as u32),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE as u32),
    ("RLIMIT_DATA", libc::RLIMIT_DATA as u32),
    ("RLIMIT_STACK", libc::RLIMIT_STACK as u32),
    ("RLIMIT_CORE", libc::RLIMIT_CORE as u32),
    ("RLIMIT_RSS", libc::RLIMIT_RSS as u32),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC as u32),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE as u32),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as u32),
    ("RLIMIT_AS", libc::RLIMIT_AS as u32),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS as u32),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as u32),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as u32),
    ("RLIMIT_NICE", libc::RLIMIT_NICE as u32),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as u32),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME as u32),
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
        apparmor_profile: process.apparmor_profile().clone().filter(|profile| is_to_be_applied(profile)),
        selinux_label: process.selinux_label().clone().filter(|label| !label.is_empty()),
        keyring: (!options.no_new_keyring).then_some(keyring),
        terminal: process.terminal().unwrap_or(false),
        personality: None,
        io_priority: process.io_priority().as_ref().map(io_priority),
        scheduler: process.scheduler().as_ref().map(scheduler),
        memory_policy: None,
        affinity: None,
    })
}

/// Without AppArmor every process is unconfined, and the kernel would refuse to be told so.
fn is_to_be_applied(profile: &str) -> bool {
    !profile.is_empty() && (profile != "unconfined" || apparmor_is_enabled())
}

/// What `linux` says about every process of the container, those of `exec` too.
pub fn add_linux(plan: &mut ProcessPlan, linux: &Linux) {
    plan.personality = linux.personality().as_ref().map(personality);
    plan.memory_policy = linux.memory_policy().as_ref().map(memory_policy);
}

/// `process.execCPUAffinity`: the processors that the process is to have before it joins the container's cgroups, and
/// those that it is to have in them. Only for `exec` (config.md, Process).
pub fn exec_affinity(process: &Process) -> (Option<Vec<u64>>, Option<Vec<u64>>) {
    let Some(affinity) = process.exec_cpu_affinity() else { return (None, None) };
    let mask = |list: &Option<String>| list.as_deref().and_then(number_list::parse);
    (mask(affinity.initial()), mask(affinity.cpu_affinity_final()))
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

/// In the numbers of sched(7) and linux/sched.h.
fn scheduler(scheduler: &Scheduler) -> SchedulerPlan {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    SchedulerPlan {
        policy,
        flags: scheduler.flags().iter().flatten().fold(0, |flags, one| flags | flag(one)),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().map_or(0, |priority| priority as u32),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}

/// In the numbers of linux/mempolicy.h.
fn memory_policy(policy: &LinuxMemoryPolicy) -> MemoryPolicyPlan {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    MemoryPolicyPlan {
        mode: policy.flags().iter().flatten().fold(mode, |mode, one| mode | flag(one)),
        nodes: policy.nodes().as_deref().and_then(number_list::parse).unwrap_or_default(),
    }
}

/// The number of personality(2).
pub fn personality(personality: &LinuxPersonality) -> u32 {
    match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

/// A terminal of the size that `process.consoleSize` asks for.
pub fn open_console(size: Option<oci_spec::runtime::Box>, bind: bool, relayed: bool) -> Operation {
    let clamp = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    let (rows, columns) = size.map_or((0, 0), |size| (clamp(size.height()), clamp(size.width())));
    Operation::OpenConsole(ConsoleOperation { rows, columns, bind, relayed })
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
