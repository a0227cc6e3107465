//! Who the payload is: user, groups, capabilities, limits, labels. Everything here is irrevocable.

use super::sysctl::write_proc;
use crate::config::envelope::{ProcessPlan, SchedulerPlan};
use crate::sys::caps::{self, CAP_SYS_ADMIN};
use crate::sys::sched::{self, SchedulerAttributes};
use crate::sys::{self, Errno, On, describe, fd, process};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor, umask};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat};
use std::collections::{BTreeMap, btree_map::Entry};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Takes the payload's identity. What is needed after it, to load a seccomp filter without no_new_privs, is kept in
/// the permitted and effective set alone, which execve(2) computes anew.
///
/// # Errors
/// With what could not be set.
pub fn adopt(
    plan: &ProcessPlan,
    proc: Option<&OwnedFd>,
    streams: Option<Streams>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    label(plan, proc)?;
    schedule(plan)?;
    for &(resource, soft, hard) in &plan.rlimits {
        process::set_rlimit(resource, soft, hard)
            .on("set rlimit", format_args!("{} to {soft}:{hard}", rlimit_name(resource)))
            .context("error setting rlimits for ready process")?;
    }
    if let Some(persona) = plan.personality {
        process::set_personality(persona).on("set", "the personality")?;
    }
    own_standard_streams(plan, streams.unwrap_or_else(look_at_streams))?;
    // The user may be the only one who may enter the directory, or root the only one: try as both.
    let entered = enter_directory(&plan.cwd);
    take_ids(plan, warnings)?;
    if entered.is_err() {
        enter_directory(&plan.cwd)?;
    }
    verify_directory(&plan.cwd)?;
    umask(Mode::from_bits_truncate(plan.umask.unwrap_or(0o022)));
    if plan.no_new_privileges {
        process::set_no_new_privileges().on("set", "no_new_privs")?;
    }
    Ok(())
}

/// Before the limits, of which RLIMIT_RTPRIO and RLIMIT_NICE bound what an unprivileged process may ask for.
fn schedule(plan: &ProcessPlan) -> Result<()> {
    if let Some(mask) = &plan.affinity {
        sched::set_affinity(mask)
            .on("set", "the CPU affinity (/process/execCPUAffinity/final)")
            .context("the container's cpuset has to have at least one of these processors")?;
    }
    if let Some(policy) = &plan.memory_policy {
        sched::set_memory_policy(policy.mode, &policy.nodes)
            .on("set", "the memory policy (/linux/memoryPolicy)")
            .context("the nodes have to be there and in the container's cpuset, and the kernel has to know the mode")?;
    }
    if let Some(scheduler) = &plan.scheduler {
        let &SchedulerPlan { policy, flags, nice, priority, runtime, deadline, period } = scheduler;
        let attributes =
            SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period, ..Default::default() };
        sched::set_scheduler(attributes)
            .on("set", "the scheduler (/process/scheduler)")
            .map_err(|error| scheduler_hint(error, policy))?;
    }
    if let Some(io_priority) = plan.io_priority {
        process::set_io_priority(io_priority).on("set", "the I/O priority (/process/ioPriority)")?;
    }
    Ok(())
}

/// The kernel says "operation not permitted" to three different mistakes.
fn scheduler_hint(error: sys::Error, policy: u32) -> anyhow::Error {
    const REALTIME: [u32; 2] = [1, 2];
    let errno = error.errno;
    let error = anyhow::Error::from(error);
    match errno {
        Errno::EPERM if REALTIME.contains(&policy) => error.context(
            "a realtime policy needs CAP_SYS_NICE on the host and, with cgroup v1's cpu controller, a share of realtime: /linux/resources/cpu/realtimeRuntime",
        ),
        Errno::EPERM => error.context("this needs CAP_SYS_NICE on the host, which no user namespace gives"),
        Errno::EBUSY => error.context("the processors have no time left for this runtime and period"),
        Errno::EOPNOTSUPP => error.context("the kernel was built without utilization clamping"),
        _ => error,
    }
}

/// A session keyring of the container's own. What SELinux allows the container with it follows from its label, which is
/// that of its maker unless another is asked for; the next execve(2) forgets that.
///
/// # Errors
/// The kernel's.
pub fn join_keyring(plan: &ProcessPlan, proc: Option<&OwnedFd>) -> Result<()> {
    let Some(name) = &plan.keyring else { return Ok(()) };
    if let (Some(label), Some(proc)) = (&plan.selinux_label, proc) {
        write_proc(proc, "thread-self/attr/keycreate", label)
            .with_context(|| format!("apply the SELinux label {label:?} to keys"))?;
    }
    match process::join_session_keyring(&super::root::c_string(name)?) {
        Ok(()) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).on("join", "a session keyring").context("--no-new-keyring leaves the caller's")?,
    }
}

/// Whether something is to be written to /proc for the program.
pub fn has_label(plan: &ProcessPlan) -> bool {
    plan.apparmor_profile.is_some() || plan.selinux_label.is_some()
}

/// Labels are given to the next execve(2).
fn label(plan: &ProcessPlan, proc: Option<&OwnedFd>) -> Result<()> {
    if !has_label(plan) {
        return Ok(());
    }
    let proc = proc.context("the labels need /proc")?;
    if let Some(profile) = &plan.apparmor_profile {
        let text = format!("exec {profile}");
        write_proc(proc, apparmor_file(proc), &text).map_err(|error| apparmor_hint(error, profile))?;
    }
    if let Some(selinux) = &plan.selinux_label {
        write_proc(proc, "thread-self/attr/exec", selinux)
            .with_context(|| format!("apply the SELinux label {selinux:?}"))?;
    }
    Ok(())
}

/// Before Linux 5.8 the file is shared, and may be another module's, which would take the text for its own.
fn apparmor_file(proc: impl AsFd) -> &'static str {
    let own = "thread-self/attr/apparmor/exec";
    match faccessat(proc, own, AccessFlags::F_OK, AtFlags::empty()) {
        Ok(()) => own,
        Err(_) => "thread-self/attr/exec",
    }
}

/// As runc says it; what "no such file" means here is not to be guessed.
fn apparmor_hint(error: anyhow::Error, profile: &str) -> anyhow::Error {
    let what = format!("apparmor failed to apply profile {profile:?}");
    match error.downcast_ref::<crate::sys::Error>().map(|error| error.errno) {
        Some(Errno::ENOENT) => error.context(format!("{what}: no profile of this name is loaded (apparmor_parser(8))")),
        _ => error.context(what),
    }
}

fn take_ids(plan: &ProcessPlan, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(sets) = &plan.capabilities {
        caps::limit_bounding(sets.bounding).on("limit", "the capability bounding set")?;
    }
    // Only a change from user 0 to another takes capabilities away.
    let keeps = plan.capabilities.is_some() && plan.uid != 0;
    if keeps {
        process::set_keep_capabilities(true).on("keep", "capabilities")?;
    }
    match process::set_groups(&plan.additional_gids) {
        // A user namespace without the privilege to change groups keeps those it has (user_namespaces(7)).
        Err(Errno::EPERM) if plan.additional_gids.is_empty() => {}
        other => other.on("setgroups", format_args!("{:?}", plan.additional_gids))?,
    }
    // setresuid(2) would leave who this is now.
    if plan.uid == u32::MAX || plan.gid == u32::MAX {
        bail!("the user or the group is {}, which means \"no id\" to Linux: use another", u32::MAX);
    }
    process::set_ids(plan.uid, plan.gid)
        .on("become", format_args!("user {} and group {}", plan.uid, plan.gid))
        .context("the user namespace may not map these ids")?;
    let Some(sets) = &plan.capabilities else { return Ok(()) };
    if keeps {
        process::set_keep_capabilities(false).on("keep", "capabilities")?;
    }
    let extra = if plan.seccomp.is_some() && !plan.no_new_privileges { 1 << CAP_SYS_ADMIN } else { 0 };
    let (effective, permitted) = (sets.effective | extra, sets.permitted | extra);
    // Where all of it is held, which is nearly always so, nothing has to be asked.
    if caps::set(effective, permitted, sets.inheritable).is_err() {
        let (_, held) = caps::get().on("read", "capabilities")?;
        caps::set(effective & held, permitted & held, sets.inheritable).on("set", "capabilities").context(
            "unable to apply caps: this host, or the user namespace, does not grant all that process.capabilities asks for",
        )?;
        let missing = sets.permitted & !held;
        if missing != 0 {
            bail!("unable to apply caps: operation not permitted: rtx itself does not have {}", names(missing));
        }
    }
    // What is not both permitted and inheritable has left the ambient set by itself (capabilities(7)).
    if sets.ambient == 0 && permitted & sets.inheritable == 0 {
        return Ok(());
    }
    let refused = caps::set_ambient(sets.ambient).on("set", "ambient capabilities")?;
    if refused != 0 {
        warnings
            .push(format!("can't raise ambient capability {}: it has to be permitted and inheritable", names(refused)));
    }
    Ok(())
}

fn names(set: u64) -> String {
    let names: Vec<String> = (0..64u8)
        .filter(|number| set & (1 << number) != 0)
        .map(|number| {
            caps::all_names()
                .get(usize::from(number))
                .map_or_else(|| format!("capability {number}"), |name| (*name).to_owned())
        })
        .collect();
    names.join(", ")
}

fn enter_directory(cwd: &str) -> Result<()> {
    nix::unistd::chdir(cwd)
        .map_err(|errno| anyhow::anyhow!("chdir to cwd ({cwd:?}) set in config.json failed: {}", describe(errno)))
}

/// A working directory outside the container's root would be a way out (CVE-2024-21626): the kernel names such a one
/// with "(unreachable)", or does not name it at all.
fn verify_directory(cwd: &str) -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => {
            bail!("the working directory {cwd:?} is outside of the container's root: possible container breakout")
        }
        Err(Errno::EACCES) => Ok(()),
        Err(errno) => Err(errno).on("getcwd", cwd)?,
    }
}

/// Gives the standard streams to the user, so that it can open /dev/stdout again.
fn own_standard_streams(plan: &ProcessPlan, found: Streams) -> Result<()> {
    for (stream, stat) in fd::standard_streams().into_iter().zip(found) {
        let Some(stat) = stat.filter(|stat| stat.st_uid != plan.uid && !is_null(stat)) else { continue };
        match nix::unistd::fchown(stream, Some(Uid::from_raw(plan.uid)), Some(Gid::from_raw(stat.st_gid))) {
            // Streams that belong to somebody else, or to a file system that has no owners, stay theirs.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => Err(errno).on("chown", "a standard stream")?,
        }
    }
    Ok(())
}

/// What the standard streams are; `None` for one that cannot be looked at.
pub type Streams = [Option<FileStat>; 3];

fn look_at_streams() -> Streams {
    fd::standard_streams().map(|stream| fstat(stream).ok())
}

fn is_null(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
}

/// Standard streams that are the host's /dev/null become the container's. Returns what they were found to be.
///
/// # Errors
/// The kernel's.
pub fn reopen_null() -> Result<Streams> {
    use nix::fcntl::OFlag;
    let found = look_at_streams();
    let streams = found.map(|stat| stat.is_some_and(|stat| is_null(&stat)));
    if !streams.contains(&true) {
        return Ok(found);
    }
    let Ok(null) = fd::open("/dev/null", OFlag::O_RDWR) else { return Ok(found) };
    if !fstat(&null).is_ok_and(|stat| is_null(&stat)) {
        return Ok(found);
    }
    let replace: [fn(&OwnedFd) -> nix::Result<()>; 3] =
        [|fd| nix::unistd::dup2_stdin(fd), |fd| nix::unistd::dup2_stdout(fd), |fd| nix::unistd::dup2_stderr(fd)];
    for (replace, _) in replace.iter().zip(streams).filter(|(_, is_null)| *is_null) {
        replace(&null).on("dup", "/dev/null")?;
    }
    Ok(found)
}

/// Of several values for one variable the last counts: some programs would find the first, others the last.
pub fn keep_last_of_each(env: &mut Vec<String>) {
    let mut places = BTreeMap::new();
    let mut kept: Vec<String> = Vec::with_capacity(env.len());
    for entry in env.drain(..) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match places.entry(name) {
            Entry::Occupied(place) => kept[*place.get()] = entry,
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry);
            }
        }
    }
    *env = kept;
}

/// `HOME` from the container's passwd file, where the configuration does not set it.
///
/// # Errors
/// Where there is such a file and this process lacks what it needs to read it.
pub fn set_home(env: &mut Vec<String>, uid: u32) -> Result<()> {
    if env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
        return Ok(());
    }
    env.retain(|entry| entry != "HOME=");
    let home = home_of(Path::new("/etc/passwd"), uid)?.unwrap_or_else(|| "/".to_owned());
    env.push(format!("HOME={home}"));
    Ok(())
}

/// As much of it as is read: an image could have made it as long as it likes.
const PASSWD_MAX: usize = 16 << 20;

fn home_of(passwd: &Path, uid: u32) -> Result<Option<String>> {
    let bytes = match read_passwd(passwd) {
        // What the image is like: without a passwd file that can be read everybody is at home in the root.
        Err(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EACCES
            | Errno::EAGAIN
            | Errno::ELOOP
            | Errno::ENXIO,
        ) => {
            return Ok(None);
        }
        other => other.on("read", passwd.display())?,
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) => Some((*home).to_owned()),
            _ => None,
        }
    }))
}

fn read_passwd(passwd: &Path) -> nix::Result<Vec<u8>> {
    // The image may have a pipe there, which would be waited for, or a device that has no end.
    let file = fd::open(passwd, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let stat = fstat(&file)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Ok(Vec::new());
    }
    fd::read_sized(&file, stat.st_size as usize, PASSWD_MAX)
}

fn rlimit_name(resource: u32) -> String {
    crate::engine::oci::process::RLIMITS
        .iter()
        .find(|(_, number)| *number == resource)
        .map_or_else(|| resource.to_string(), |(name, _)| (*name).to_owned())
}
