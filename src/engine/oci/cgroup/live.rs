//! A running container's cgroups: its processes, freezing, limits changed later.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::create::OpenPlace;
use super::limits::Setting;
use super::placement::{Place, Placement};
use super::{Unit, apply, file, frozen, limits, limits_v1, tree};
use crate::sys::{dir, process};

/// How long the kernel gets to freeze every process; one that sleeps uninterruptibly takes as long as it likes.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// The cgroups of one container, by the placement that its state keeps.
pub struct Cgroup {
    placement: Placement,
}

impl Cgroup {
    pub(super) fn new(mut placement: Placement) -> Self {
        // A placement comes from a file. Whatever is in there, the root of a hierarchy, or a path out of it, is not a
        // container's, and its processes are not for us to end.
        placement.places.retain(|place| is_below(&place.path));
        Self { placement }
    }

    /// Where it is.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// True if any of the directories exists.
    pub fn exists(&self) -> bool {
        self.placement.places.iter().any(|place| place.directory().is_dir())
    }

    /// The directories that exist.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.placement.places.iter().map(Place::directory).filter(|directory| directory.is_dir()).collect()
    }

    /// The directories that exist and have neither a process nor a directory in them.
    pub fn empty_directories(&self) -> Vec<PathBuf> {
        let is_empty = |directory: &PathBuf| {
            !has_directories(directory) && pids_below(directory).is_ok_and(|pids| pids.is_empty())
        };
        self.directories().into_iter().filter(is_empty).collect()
    }

    /// Every process of the container, those in cgroups that it made itself too, in ascending order.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let Some(place) = self.leading() else { return Ok(Vec::new()) };
        let pids = pids_below(&place.directory())?;
        Ok(pids.into_iter().map(Pid::from_raw).collect())
    }

    /// Sends a signal to every process of the container, or to none that is born meanwhile: it is frozen for as long.
    /// SIGKILL uses cgroup.kill where the kernel has it (Linux 5.14).
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let Some(place) = self.leading() else { return Ok(()) };
        let directory = place.directory();
        if signal == libc::SIGKILL && place.is_unified() && write_at(&directory, "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        let was_frozen = match self.is_frozen() {
            // Whoever is to end is thawed in any case.
            Err(_) if signal == libc::SIGKILL => false,
            other => other?,
        };
        let froze = !was_frozen && self.freeze().is_ok();
        let result = signal_below(&directory, signal);
        // A process frozen by v1 cannot even be killed; and whom we froze, we thaw.
        if froze || (was_frozen && signal == libc::SIGKILL) {
            match self.thaw() {
                // They have ended, and whoever waited for that has removed their cgroup.
                Err(_) if !directory.is_dir() => {}
                thawed => thawed?,
            }
        }
        if signal == libc::SIGKILL && !place.is_unified() {
            thaw_below(&directory);
        }
        result
    }

    /// Ends whoever is left. In a cgroup that is shared others' processes cannot be told from the container's.
    pub(super) fn kill_left(&self) {
        if !self.placement.shared {
            let _ = self.kill_all(libc::SIGKILL);
        }
    }

    /// Stops every process and returns when all stand still.
    pub fn freeze(&self) -> Result<()> {
        let (place, _) = self.freezer()?;
        self.set_frozen(true).map_err(|error| {
            // Half frozen would be a hung container.
            let _ = self.set_frozen(false);
            error.context(format!("freeze {}", place.directory().display()))
        })
    }

    /// Lets every process run on.
    pub fn thaw(&self) -> Result<()> {
        let (place, _) = self.freezer()?;
        self.set_frozen(false).with_context(|| format!("thaw {}", place.directory().display()))
    }

    /// True if the container is frozen, or on the way there.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok((place, file)) = self.freezer() else { return Ok(false) };
        frozen::read(&place.directory().join(file))
    }

    /// Changes limits, either all of them or none; what is returned takes it back. Device rules are left as they are, as runc
    /// does: callers pass the whole of `linux.resources`. The rules that the container has are `devices`; they are asked for only
    /// where systemd writes them too.
    pub fn update(
        self,
        resources: &LinuxResources,
        devices: impl FnOnce() -> Result<LinuxResources>,
    ) -> Result<Box<dyn FnOnce()>> {
        let oom_killer = limits_v1::oom_killer_again(resources, &self.placement);
        if !limits::any_limit(resources) && oom_killer.is_none() {
            return Ok(Box::new(|| {}));
        }
        let mut open = Vec::new();
        for place in &self.placement.places {
            match file::open_dir(AT_FDCWD, place.directory()) {
                Ok(dir) => open.push(OpenPlace::new(place.clone(), Some(dir))),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).with_context(|| format!("open {}", place.directory().display())),
            }
        }
        let mut settings = limits::settings(resources, &self.placement.controllers()?)?;
        settings.extend(oom_killer);
        let devices = match &self.placement.unit {
            Some(_) if self.placement.is_ruled_by_systemd() => Some(devices()?),
            _ => None,
        };
        // systemd writes to the files as well.
        let before = apply::before(&open, &settings);
        let changed = self.tell(&settings, &open, devices.as_ref()).and_then(|()| apply::write_all(&open, &settings));
        let take_back = move || {
            let _ = self.tell(&before, &open, devices.as_ref());
            apply::write_again(&open, before);
        };
        match changed {
            Ok(()) => Ok(Box::new(take_back)),
            Err(error) => {
                take_back();
                Err(error)
            }
        }
    }

    /// Tells systemd, where it has made the cgroups. `devices` where it rules those, too.
    fn tell(&self, settings: &[Setting], open: &[OpenPlace], devices: Option<&LinuxResources>) -> Result<()> {
        match (&self.placement.unit, devices) {
            (Some(unit), Some(devices)) => self.update_ruled(unit, settings, open, devices),
            (Some(unit), None) => unit.update(settings),
            (None, _) => Ok(()),
        }
    }

    /// With any property systemd writes the device rules anew: everything is forbidden for a moment, which nobody may
    /// notice, and what it cannot say is lost.
    fn update_ruled(
        &self,
        unit: &Unit,
        settings: &[Setting],
        open: &[OpenPlace],
        devices: &LinuxResources,
    ) -> Result<()> {
        let froze = !self.is_frozen()? && self.freeze().is_ok();
        let updated = unit.update(settings).and_then(|()| apply::devices_again(&self.placement, open, devices));
        let thawed = if froze { self.thaw() } else { Ok(()) };
        updated.and(thawed)
    }

    /// The hierarchy whose membership counts: the freezer's, where v1 has one, because its processes are the ones that
    /// can be stopped; otherwise the first that exists.
    fn leading(&self) -> Option<&Place> {
        let there = |place: &&Place| place.directory().is_dir();
        self.placement.v1("freezer").filter(there).or_else(|| self.placement.places.iter().rev().find(there))
    }

    /// The place that can freeze, and its file: v1's controller, or any v2 cgroup (Linux 5.2).
    fn freezer(&self) -> Result<(&Place, &'static str)> {
        if let Some(place) = self.placement.v1("freezer") {
            return Ok((place, "freezer.state"));
        }
        match self.placement.unified() {
            Some(place) => Ok((place, "cgroup.freeze")),
            None => bail!("this host has no freezer: neither the cgroup v1 controller nor cgroup v2"),
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (place, file) = self.freezer()?;
        let directory = place.directory();
        let word = match (place.is_unified(), frozen) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        };
        let write = || {
            write_at(&directory, file, word)
                .with_context(|| format!("write {word:?} to {}/{file}", directory.display()))
        };
        write()?;
        let deadline = Instant::now() + FREEZE_PATIENCE;
        let mut pause = Duration::from_micros(50);
        while !self.has_become(place, frozen)? {
            if Instant::now() > deadline {
                bail!("{}/{file} does not become {word} within {FREEZE_PATIENCE:?}", directory.display());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
            if !place.is_unified() {
                // v1 forgets processes that were being born at the first write.
                write()?;
            }
        }
        Ok(())
    }

    fn has_become(&self, place: &Place, frozen: bool) -> Result<bool> {
        let (file, word) = match (place.is_unified(), frozen) {
            (true, true) => ("cgroup.events", "frozen 1"),
            (true, false) => ("cgroup.events", "frozen 0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let text = read_at(&place.directory(), file)
            .with_context(|| format!("read {}/{file}", place.directory().display()))?;
        Ok(text.lines().any(|line| line == word))
    }
}

/// Whether a path below a mount point is that of a cgroup other than the root.
pub(super) fn is_below(path: &Path) -> bool {
    let mut components = path.components();
    components.clone().next().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}

/// Reads a file of a cgroup that may be gone.
pub(super) fn read_at(directory: &Path, name: &str) -> Result<String, Errno> {
    file::read(file::open_dir(AT_FDCWD, directory)?, name)
}

fn write_at(directory: &Path, name: &str, value: &str) -> Result<(), Errno> {
    file::write(file::open_dir(AT_FDCWD, directory)?, name, value)
}

/// Signals every process below a directory except this one.
pub(super) fn signal_below(directory: &Path, signal: i32) -> Result<()> {
    for pid in pids_below(directory)? {
        if pid == std::process::id() as i32 {
            continue;
        }
        // By number: realtime signals and 0 have no name in nix.
        match process::pidfd_open(pid).and_then(|pidfd| process::pidfd_signal(pidfd, signal)) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("signal {signal} to process {pid}")),
        }
    }
    Ok(())
}

/// The processes of a directory and of all below it. What vanishes meanwhile has none.
fn pids_below(directory: &Path) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    tree::each(directory, |directory, path| {
        match file::read(directory, "cgroup.procs") {
            // A process of another pid namespace is shown as 0, and is not ours to see.
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0)),
            // A threaded cgroup: its processes are listed in its domain.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno).with_context(|| format!("read {}/cgroup.procs", path.display())),
        }
        anyhow::Ok(())
    })?;
    Ok(pids)
}

fn has_directories(directory: &Path) -> bool {
    dir::entries(directory).is_ok_and(|entries| entries.iter().any(|entry| entry.is_dir))
}

/// Lets what is in cgroups below run on that were frozen by themselves, which only v1 has files for.
fn thaw_below(directory: &Path) {
    let thaw = |directory: BorrowedFd<'_>, _: &Path| {
        let _ = file::write(directory, "freezer.state", "THAWED");
        nix::Result::Ok(())
    };
    let _ = tree::each(directory, thaw);
}
