//! Writing limits and device rules into a container's cgroups.

use std::borrow::Cow;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::create::{OpenPlace, enable};
use super::limits::{self, Setting};
use super::placement::Placement;
use super::{devices, file};
use crate::sys::bpf;

/// Writes every limit but the device rules.
pub fn limits(placement: &Placement, open: &[OpenPlace], resources: &LinuxResources) -> Result<()> {
    if !limits::any_limit(resources) {
        return Ok(());
    }
    write_all(open, &limits::settings(resources, &placement.controllers()?)?)
}

/// Writes them in order, and those once more that the kernel refuses at first.
pub fn write_all(open: &[OpenPlace], settings: &[Setting]) -> Result<()> {
    let mut refused = Vec::new();
    for setting in settings {
        match write(open, setting)? {
            Ok(()) => {}
            // Two values of one controller can bound each other (limit and swap, period and quota): the kernel refuses
            // the new one as long as it does not fit the other's old value, so it has its second chance at the end.
            Err(Errno::EINVAL | Errno::EBUSY | Errno::ERANGE) if settings.len() > 1 => refused.push(setting),
            Err(errno) => return Err(explain(open, setting, errno)),
        }
    }
    for setting in refused {
        write(open, setting)?.map_err(|errno| explain(open, setting, errno))?;
    }
    Ok(())
}

/// What is in the files of settings, as what has to be written for it to be there again, the last first.
pub fn before(open: &[OpenPlace], settings: &[Setting]) -> Vec<Setting> {
    settings.iter().rev().flat_map(|setting| before_one(open, setting)).collect()
}

fn before_one(open: &[OpenPlace], setting: &Setting) -> Vec<Setting> {
    let Ok(home) = home(open, setting) else { return Vec::new() };
    let again = |name: &str, value: &str| {
        let text = file::read(home.dir().ok()?, name).ok()?;
        limits::value_again(name, &text, value)
    };
    let plain =
        |file: &str, value: String| Setting::new(setting.controller, setting.pointer.clone(), file.to_owned(), value);
    let other = setting.otherwise.as_ref().and_then(|(name, value)| Some((*name, again(name, value)?)));
    let first = again(&setting.file, &setting.value).map(|value| plain(&setting.file, value));
    let first = match (first, other) {
        // systemd knows the second by a property, whatever is in the first.
        (Some(first), Some((name, value))) => Some(first.or(name, value)),
        (None, Some((name, value))) => Some(plain(name, value)),
        (first, None) => first,
    };
    // A group that is no longer idle has lost its weight.
    let weight = match &*setting.file {
        "cpu.idle" => ["cpu.weight", "cpu.shares"].into_iter().find_map(|file| Some(plain(file, again(file, "")?))),
        _ => None,
    };
    first.into_iter().chain(weight).collect()
}

/// Writes what [`before`] has found, each whatever becomes of the others.
pub fn write_again(open: &[OpenPlace], mut settings: Vec<Setting>) {
    for _ in 0..2 {
        settings.retain(|setting| !matches!(write(open, setting), Ok(Ok(()))));
    }
}

/// A new container's init is already in its cgroup, and v2 ends it when the limit is below what it uses, now or at its
/// next page: refused here, because later nobody could say why it was killed. No process lives in less than a megabyte.
pub fn check_room(open: &[OpenPlace], resources: &LinuxResources) -> Result<()> {
    const SMALLEST: i64 = 1 << 20;
    let limit = resources.memory().and_then(|memory| memory.limit());
    let Some(limit) = limit.filter(|limit| (1..SMALLEST).contains(limit)) else { return Ok(()) };
    let usage = open.iter().find(|open| open.place.is_unified()).and_then(|home| number(home, "memory.current"));
    if let Some(usage) = usage.filter(|usage| *usage > limit as u64) {
        bail!(
            "/linux/resources/memory/limit: unable to set memory limit to {limit} (current usage: {usage}): container init would be OOM-killed (memory limit too low?)"
        );
    }
    Ok(())
}

/// The open directory that a setting's file is in.
fn home<'a>(open: &'a [OpenPlace], setting: &Setting) -> Result<&'a OpenPlace> {
    open.iter()
        .find(|open| open.place.has(setting.controller))
        .or_else(|| open.iter().find(|open| open.place.is_unified()))
        .ok_or_else(|| {
            anyhow!("{}: the container has no cgroup of its own for {}", setting.pointer, setting.controller)
        })
}

/// One write; the kernel's refusal is the inner result.
fn write(open: &[OpenPlace], setting: &Setting) -> Result<Result<(), Errno>> {
    let home = home(open, setting)?;
    if setting.check_usage {
        check_usage(home, setting)?;
    }
    let mut result = file::write(home.dir()?, &setting.file, &setting.value);
    if let (Err(Errno::ENOENT), Some((name, value))) = (result, &setting.otherwise) {
        result = file::write(home.dir()?, name, value);
    }
    if result == Err(Errno::ENOENT) && home.place.is_unified() {
        // Beside v1 hierarchies nobody else hands v2 controllers down; a pure v2 host may have lost one since create.
        let controller = setting.file.split('.').next().unwrap_or_default();
        enable(&home.place, &[controller])?;
        result = file::write(home.dir()?, &setting.file, &setting.value);
        if let (Err(Errno::ENOENT), Some((name, value))) = (result, &setting.otherwise) {
            result = file::write(home.dir()?, name, value);
        }
    }
    Ok(if setting.optional && result == Err(Errno::ENOENT) { Ok(()) } else { result })
}

/// `checkBeforeUpdate`: cgroup v2 would otherwise take the limit and end processes until it is met.
fn check_usage(home: &OpenPlace, setting: &Setting) -> Result<()> {
    let usage = number(home, "memory.current");
    if let (Some(usage), Ok(limit)) = (usage, setting.value.parse::<u64>())
        && limit < usage
    {
        bail!("{}: {limit} is below the current usage of {usage}, and checkBeforeUpdate is set", setting.pointer);
    }
    Ok(())
}

fn number(home: &OpenPlace, name: &str) -> Option<u64> {
    file::read_line(home.dir().ok()?, name).ok()?.trim().parse().ok()
}

/// Says which property, file and value the kernel refused; for memory below its usage in the words that callers of runc
/// know.
fn explain(open: &[OpenPlace], setting: &Setting, errno: Errno) -> anyhow::Error {
    let home = match home(open, setting) {
        Ok(home) => home,
        Err(error) => return error,
    };
    let mut what: Cow<str> = Cow::Borrowed("");
    if errno == Errno::EBUSY
        && let (Some(usage), Some(peak)) =
            (number(home, "memory.usage_in_bytes"), number(home, "memory.max_usage_in_bytes"))
    {
        let value = &setting.value;
        what = format!("unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak}): ").into();
    } else if errno == Errno::ENOENT {
        what = match not_handed_down(home, setting) {
            Some(controller) => {
                format!("the controller {controller} is not handed down to this cgroup by those above it: ").into()
            }
            None => "this host's kernel does not have this setting: ".into(),
        };
    }
    let directory = home.place.directory();
    let (file, value) = match &setting.otherwise {
        Some((file, value)) if !directory.join(&*setting.file).exists() && directory.join(file).exists() => {
            (*file, value)
        }
        _ => (&*setting.file, &setting.value),
    };
    let path = directory.join(file);
    anyhow::Error::new(errno).context(format!("{}: {what}write {value:?} to {}", setting.pointer, path.display()))
}

/// The controller of a v2 setting that the cgroup does not have: who runs rtx may not have been given it.
fn not_handed_down<'a>(home: &OpenPlace, setting: &'a Setting) -> Option<&'a str> {
    let controller = setting.v2_controller().filter(|_| home.place.is_unified())?;
    let present = file::read_line(home.dir().ok()?, "cgroup.controllers").ok()?;
    (!present.split_whitespace().any(|name| name == controller)).then_some(controller)
}

/// Writes the device rules: on v1 into the devices controller, on v2 as a program.
pub fn devices(placement: &Placement, open: &[OpenPlace], resources: &LinuxResources) -> Result<()> {
    let rules = devices::rules(resources)?;
    if let Some(home) = open.iter().find(|open| open.place.has("devices")) {
        return ignore_if(placement.rootless, write_v1(home, &devices::v1_writes(&rules)?));
    }
    if let Some(home) = open.iter().find(|open| open.place.is_unified() && placement.is_pure_v2()) {
        let attached = bpf::attach_device_program(home.dir()?.as_fd(), &devices::program(&rules));
        let attached =
            attached.with_context(|| format!("attach the device rules to {}", home.place.directory().display()));
        return ignore_if(placement.rootless, attached);
    }
    if placement.rootless {
        return Ok(());
    }
    bail!("/linux/resources/devices: this host has no devices controller; mount the cgroup v1 hierarchy `devices`")
}

/// Writes the rules of a container that runs. Where it has made cgroups of its own below, the kernel lets nobody start from
/// everything or nothing any more; nor has anybody, then.
pub fn devices_again(placement: &Placement, open: &[OpenPlace], resources: &LinuxResources) -> Result<()> {
    match devices(placement, open, resources) {
        Err(error) if error.downcast_ref() == Some(&Errno::EINVAL) => Ok(()),
        other => other,
    }
}

/// Device rules cannot be set in a user namespace, which could make no device node anyway.
fn ignore_if(rootless: bool, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if rootless && matches!(error.downcast_ref(), Some(Errno::EPERM | Errno::EACCES | Errno::EROFS)) => {
            Ok(())
        }
        other => other,
    }
}

/// One write a rule, as the kernel wants it, through one descriptor for each of the two files.
fn write_v1(home: &OpenPlace, writes: &[devices::Write]) -> Result<()> {
    let (mut allow, mut deny) = (None, None);
    for write in writes {
        let (name, slot) = if write.allow { ("devices.allow", &mut allow) } else { ("devices.deny", &mut deny) };
        let path = || home.place.directory().join(name).display().to_string();
        let file = match slot {
            Some(file) => file,
            None => slot.insert(home.open_for_write(name).with_context(|| format!("open {}", path()))?),
        };
        file::write_once(file, &write.rule)
            .with_context(|| format!("/linux/resources/devices: write {:?} to {}", write.rule, path()))?;
    }
    Ok(())
}
