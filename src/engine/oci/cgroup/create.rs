//! Making a container's cgroup directories, and undoing it unless the create is committed.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::LinuxResources;

use super::placement::{Place, Placement};
use super::{apply, entry, file, tree};
use crate::sys::fd::close_together;

/// A place and its directory, which is opened when something is to be done in it.
pub struct OpenPlace {
    pub place: Place,
    dir: OnceCell<Rc<OwnedFd>>,
}

impl OpenPlace {
    pub fn new(place: Place, dir: Option<OwnedFd>) -> Self {
        Self { place, dir: dir.map_or_else(OnceCell::new, |dir| OnceCell::from(Rc::new(dir))) }
    }

    /// Opens one of its files, by its path unless the directory is open.
    pub fn open_for_write(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match self.dir.get() {
            Some(dir) => openat(dir, name, flags, Mode::empty()),
            None => openat(AT_FDCWD, &self.place.directory().join(name), flags, Mode::empty()),
        };
        opened.map(File::from)
    }

    /// The directory.
    pub fn dir(&self) -> Result<&Rc<OwnedFd>> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let directory = self.place.directory();
        let dir = file::open_dir(AT_FDCWD, &directory).with_context(|| format!("open {}", directory.display()))?;
        Ok(self.dir.get_or_init(|| Rc::new(dir)))
    }
}

/// The container's cgroups, made but not yet its own: dropping this removes them, and the parents made for them.
pub struct Created {
    pub(super) placement: Placement,
    pub(super) open: Vec<OpenPlace>,
    /// Directories made by this create, parents first.
    made: Vec<PathBuf>,
    /// Those of v1 are yet to be made.
    begun: bool,
    /// Missing privileges may leave the container without cgroups of its own.
    lenient: bool,
    committed: bool,
    /// Until the container is in.
    lock: Option<File>,
}

impl Created {
    /// Nothing yet, for a placement.
    pub(super) fn nothing(placement: &Placement, lenient: bool) -> Self {
        let placement = placement.clone();
        Created { placement, open: Vec::new(), made: Vec::new(), begun: false, lenient, committed: false, lock: None }
    }

    pub(super) fn new(placement: &Placement) -> Result<Self> {
        let mut created = Self::begin(placement)?;
        created.go_on(placement)?;
        Ok(created)
    }

    /// The cgroup of v2 alone, which the first process is born in. [`Self::go_on`] makes the others.
    pub(super) fn begin(placement: &Placement) -> Result<Self> {
        let mut created = Self::nothing(placement, placement.is_lenient());
        created.lock = placement.hold();
        created.begun = !placement.is_pure_v2();
        created.placement.places.clear();
        if let Some(place) = placement.unified() {
            created.add(placement, place)?;
        }
        created.check_not_frozen()?;
        Ok(created)
    }

    /// Makes the cgroups of v1.
    pub fn go_on(&mut self, planned: &Placement) -> Result<()> {
        let (unified, dir) = (std::mem::take(&mut self.placement.places), std::mem::take(&mut self.open));
        let made =
            planned.places.iter().filter(|place| !place.is_unified()).try_for_each(|place| self.add(planned, place));
        self.placement.places.extend(unified);
        self.open.extend(dir);
        made?;
        self.begun = false;
        self.check_not_frozen()
    }

    /// Makes the directory of one place. Missing privileges may leave the container without.
    fn add(&mut self, planned: &Placement, place: &Place) -> Result<()> {
        match self.make(place, planned.is_pure_v2()) {
            Ok(dir) => {
                self.open.push(OpenPlace::new(place.clone(), dir));
                self.placement.places.push(place.clone());
                Ok(())
            }
            Err(error) if self.lenient && !planned.insists_on(place) && is_missing_privilege(&error) => Ok(()),
            Err(error) => Err(match &planned.first_limit {
                Some(pointer) if planned.rootless && is_missing_privilege(&error) => {
                    error.context(format!("{pointer}: a limit needs a cgroup that may be written to"))
                }
                None if planned.rootless && planned.insists_on(place) && is_missing_privilege(&error) => error.context(
                    "/linux/cgroupsPath: this user may not make that cgroup: leave the path out to go without",
                ),
                _ => error,
            }),
        }
    }

    /// Whether [`Self::go_on`] is yet to come, and has something to do.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Where the container's cgroups are: the plan without those that an unprivileged caller could not have.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The directories that were there already.
    pub fn found(&self) -> Vec<PathBuf> {
        let directories = self.placement.places.iter().map(Place::directory);
        directories.filter(|directory| !self.has_made(directory)).collect()
    }

    /// The directory in the v2 hierarchy, for clone3's CLONE_INTO_CGROUP.
    pub fn unified_directory(&self) -> Result<Option<Rc<OwnedFd>>> {
        let unified = self.open.iter().find(|open| open.place.is_unified());
        unified.map(|open| open.dir().cloned()).transpose()
    }

    /// The `tasks` file of every v1 hierarchy, write end, in joining order: the child writes `0` to each while it has
    /// one thread. Writing a pid to cgroup.procs, or from the parent, waits for an RCU grace period instead.
    pub fn task_files(&self) -> Result<Vec<OwnedFd>> {
        let mut files = Vec::with_capacity(self.open.len());
        for open in self.open.iter().filter(|open| !open.place.is_unified()) {
            match open.open_for_write("tasks") {
                Ok(file) => files.push(file.into()),
                Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) if self.lenient => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("open {}/tasks", open.place.directory().display()));
                }
            }
        }
        Ok(files)
    }

    /// Moves a process into every cgroup. A process that does not make its way itself, as stage2 does by
    /// [`Self::task_files`].
    pub fn attach(&self, pid: i32) -> Result<()> {
        for open in &self.open {
            file::write(open.dir()?, "cgroup.procs", &pid.to_string())
                .with_context(|| format!("write {pid} to {}/cgroup.procs", open.place.directory().display()))?;
        }
        Ok(())
    }

    /// Writes the device rules, the default ones too. They come before the first process joins: the v1 controller can
    /// only forbid everything and then allow things again, and between the two no device could be made.
    pub fn apply_device_rules(&self, resources: &LinuxResources) -> Result<()> {
        apply::devices(&self.placement, &self.open, resources)
    }

    /// Writes every limit. `resources` is `linux.resources`, or its default where the bundle has none. Errors name the
    /// property, the file and the value.
    pub fn apply_limits(&self, resources: &LinuxResources) -> Result<()> {
        apply::check_room(&self.open, resources)?;
        apply::limits(&self.placement, &self.open, resources)
    }

    /// Ends what has outlived init where it was to be, a hook's daemon for instance: in the directories that were made for it.
    /// In one that was there before nobody can be told from others.
    pub fn kill_left(&self) {
        let places = self.placement.places.iter().filter(|place| self.is_own(place)).cloned().collect();
        Placement { places, unit: self.placement.unit.clone(), shared: self.placement.shared, ..Placement::default() }
            .open()
            .kill_left();
    }

    /// Whether a place is this create's. systemd makes most directories of a scope, which is ours as a whole or not at all.
    fn is_own(&self, place: &Place) -> bool {
        match self.placement.unit {
            Some(_) => place.is_tracked() || self.open.iter().any(|open| open.place == *place),
            None => self.has_made(&place.directory()),
        }
    }

    /// Keeps the directories: from here on they belong to the container, and [`super::Cgroup::remove`] ends them.
    pub fn commit(mut self) {
        self.committed = true;
    }

    /// Makes one directory, with what its hierarchy needs before a process can join.
    fn make(&mut self, place: &Place, is_only: bool) -> Result<Option<OwnedFd>> {
        if self.placement.rootless && place.is_unified() {
            entry::check(place)?;
        }
        let (dir, existed) = self.open_directory(place, None)?;
        if let Some(dir) = dir.as_ref().filter(|_| place.is_unified()) {
            if is_only {
                enable_all(place, dir.as_fd())?;
            }
            // What was just made at the top of the hierarchy cannot be threaded.
            if existed || place.path.components().count() > 1 {
                refuse_if_threaded(dir.as_fd(), &place.directory())?;
            }
        }
        Ok(dir)
    }

    /// Opens a directory, made where it was not there, which is told as well. At most this process may be in it. One that was
    /// made, and in which there is nothing to do, is not opened.
    pub(super) fn open_directory(&mut self, place: &Place, own: Option<i32>) -> Result<(Option<OwnedFd>, bool)> {
        let directory = place.directory();
        let existed = self.make_directory(place, &directory)?;
        if !existed && !place.is_unified() && !place.has("cpuset") {
            return Ok((None, false));
        }
        let dir = file::open_dir(AT_FDCWD, &directory).with_context(|| format!("open {}", directory.display()))?;
        if existed && !self.placement.shared {
            refuse_if_in_use(&directory, own)?;
        }
        if place.has("cpuset") {
            inherit_cpuset(dir.as_fd(), existed)
                .with_context(|| format!("set the cpus and memory nodes of {}", directory.display()))?;
        }
        Ok((Some(dir), existed))
    }

    /// mkdir of the leaf, which is nearly always enough, and of the path to it where it is not. True if it was there.
    fn make_directory(&mut self, place: &Place, directory: &Path) -> Result<bool> {
        // Another create that shares our parents may undo itself between two of our calls: begin again then.
        for _ in 0..5 {
            match self.mkdir(directory) {
                Err(Errno::ENOENT) => {}
                result => return result.with_context(|| format!("mkdir {}", directory.display())),
            }
            let mut parent = place.mount.clone();
            for component in place.path.parent().unwrap_or(Path::new("")) {
                parent.push(component);
                match self.mkdir(&parent) {
                    Ok(_) => {}
                    Err(Errno::ENOENT) => break,
                    Err(errno) => return Err(errno).with_context(|| format!("mkdir {}", parent.display())),
                }
            }
        }
        Err(Errno::ENOENT).with_context(|| format!("mkdir {}", directory.display()))
    }

    /// True if the directory was there already.
    fn mkdir(&mut self, directory: &Path) -> nix::Result<bool> {
        match mkdirat(AT_FDCWD, directory, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                self.made.push(directory.to_owned());
                Ok(false)
            }
            Err(Errno::EEXIST) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn has_made(&self, directory: &Path) -> bool {
        has_made(&self.made, directory)
    }

    /// A cgroup that was there already and is frozen would hang the container before its first instruction.
    pub(super) fn check_not_frozen(&self) -> Result<()> {
        for open in self.open.iter().filter(|open| !self.has_made(&open.place.directory())) {
            let (place, dir) = (&open.place, open.dir()?);
            let frozen = if place.is_unified() {
                file::read_line(dir, "cgroup.freeze").is_ok_and(|state| state.trim() == "1")
            } else {
                place.has("freezer")
                    && file::read_line(dir, "freezer.state").is_ok_and(|state| state.trim() != "THAWED")
            };
            if frozen {
                bail!(
                    "container's cgroup unexpectedly frozen: {} was there before it; thaw it or choose another /linux/cgroupsPath",
                    place.directory().display()
                );
            }
        }
        Ok(())
    }
}

/// By their letters, which are the same for the same place: to compare paths takes them apart first.
fn has_made(made: &[PathBuf], directory: &Path) -> bool {
    made.iter().any(|made| made.as_os_str() == directory.as_os_str())
}

impl Drop for Created {
    fn drop(&mut self) {
        // Removing takes it again.
        drop(self.lock.take());
        let ours = |_| self.placement.places.iter().filter(|place| self.is_own(place)).cloned().collect();
        let places = (!self.committed).then_some(()).map(ours);
        let open = std::mem::take(&mut self.open);
        let open = open.into_iter().filter_map(|open| open.dir.into_inner());
        close_together(open.filter_map(|dir| Rc::try_unwrap(dir).ok()));
        let Some(places) = places else { return };
        // An error has brought us here and is being reported; what cannot be removed is found by the next create or
        // delete of this id.
        let unit = self.placement.unit.take();
        let shared = self.placement.shared;
        let _ = Placement { places, unit, shared, ..Placement::default() }.open().remove(|_| true);
        for directory in self.made.iter().rev() {
            let _ = unlinkat(AT_FDCWD, directory, UnlinkatFlags::RemoveDir);
        }
    }
}

/// The errors that mean "you may not": runc ignores them for an unprivileged caller that asks for no limit.
fn is_missing_privilege(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Errno>(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT))
}

/// What is in a container's own cgroup before it, or in one below, except for `own`, was left by another of its id.
fn refuse_if_in_use(directory: &Path, own: Option<i32>) -> Result<()> {
    tree::each(directory, |directory, path| {
        let count = match file::read(directory, "cgroup.procs") {
            Ok(pids) => pids.lines().filter(|pid| own.is_none_or(|own| pid.parse() != Ok(own))).count(),
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => 0,
            Err(errno) => return Err(errno).with_context(|| format!("read {}/cgroup.procs", path.display())),
        };
        if count != 0 {
            bail!(
                "container's cgroup is not empty: {count} process(es) found in {}; end them or choose another /linux/cgroupsPath",
                path.display()
            );
        }
        Ok(())
    })
}

/// A process can join a v1 cpuset only when it has CPUs and memory nodes, and a new one has none: take the parent's,
/// which may be as new as this one. A cpuset that was there already (`existed`) keeps what it has.
fn inherit_cpuset(dir: BorrowedFd, existed: bool) -> nix::Result<()> {
    let empty = |dir: BorrowedFd, name: &str| file::read(dir, name).map(|list| list.trim().is_empty());
    let names = ["cpuset.cpus", "cpuset.mems"];
    if existed && !empty(dir, names[0])? && !empty(dir, names[1])? {
        return Ok(());
    }
    for name in names {
        if existed && !empty(dir, name)? {
            continue;
        }
        let of_parent = format!("../{name}");
        let mut value = file::read_line(dir, &of_parent)?;
        if value.trim().is_empty() {
            inherit_cpuset(file::open_dir(dir, OsStr::new(".."))?.as_fd(), true)?;
            value = file::read_line(dir, &of_parent)?;
        }
        file::write(dir, name, value.trim())?;
    }
    Ok(())
}

/// Hands every controller of a pure v2 host down to the container, as runc does, so that it can be limited later. A
/// controller that cannot be handed down matters only if a limit needs it, and is reported then.
fn enable_all(place: &Place, dir: BorrowedFd) -> Result<()> {
    let root = file::open_dir(AT_FDCWD, &place.mount).with_context(|| format!("open {}", place.mount.display()))?;
    let wanted = file::read_line(&root, "cgroup.controllers").context("read cgroup.controllers")?;
    let present = file::read_line(dir, "cgroup.controllers").context("read cgroup.controllers")?;
    let missing: Vec<&str> =
        wanted.split_whitespace().filter(|name| !present.split_whitespace().any(|p| p == *name)).collect();
    if !missing.is_empty() {
        enable(place, &missing)?;
    }
    Ok(())
}

/// Writes `+controller` into cgroup.subtree_control from the mount point down to the container's parent. cgroups(7).
pub(super) fn enable(place: &Place, controllers: &[&str]) -> Result<()> {
    let mut parent =
        file::open_dir(AT_FDCWD, &place.mount).with_context(|| format!("open {}", place.mount.display()))?;
    for component in &place.path {
        let all: String = controllers.iter().map(|name| format!("+{name} ")).collect();
        if file::write(&parent, "cgroup.subtree_control", all.trim_end()).is_err() && controllers.len() > 1 {
            // All or nothing is the kernel's way: find out which can be had.
            for name in controllers {
                let _ = file::write(&parent, "cgroup.subtree_control", &format!("+{name}"));
            }
        }
        parent = file::open_dir(&parent, component)
            .map_err(|errno| anyhow!("open {}: {}", place.directory().display(), errno.desc()))?;
    }
    Ok(())
}

/// Below a threaded cgroup no process can be put: the kernel says EOPNOTSUPP, which nobody would understand.
fn refuse_if_threaded(dir: BorrowedFd, directory: &Path) -> Result<()> {
    let kind = file::read_line(dir, "cgroup.type").unwrap_or_default();
    if !kind.is_empty() && !kind.starts_with("domain\n") {
        bail!(
            "cgroup {} has type {:?} and takes no process; choose a /linux/cgroupsPath that is not below a threaded cgroup",
            directory.display(),
            kind.trim()
        );
    }
    Ok(())
}
