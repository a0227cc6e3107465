//! What a process needs to join a container, whatever the engine: the way into its cgroups.

use super::oci::cgroup::{self, Cgroup, Unit};
use crate::sys::{Errno, On, errno_of, fd};
use anyhow::{Result, bail};
use nix::fcntl::OFlag;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What a process joins the container's cgroups by.
#[derive(Default)]
pub struct Entry {
    /// The path of a `tasks` file for each v1 hierarchy.
    tasks: Vec<PathBuf>,
    /// A rootless container need not have a cgroup in each hierarchy.
    may_lack_some: bool,
    /// The v2 directory, to be born in.
    pub unified: Option<OwnedFd>,
    /// The one to be born in where that has no room for processes.
    pub within: Option<Within>,
    /// The scope that systemd moves the process to, and the path below it: the caller may not.
    pub attach: Option<(Unit, String)>,
}

/// Where a container's first process is in cgroup v2, which may be below where it was born: nobody can be in a cgroup that
/// hands out controllers to those below (cgroups(7), "no internal processes").
pub struct Within {
    init: i32,
    mount: PathBuf,
    path: PathBuf,
}

impl Within {
    /// Opens that cgroup; `None` where it is not below the container's own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let file = format!("/proc/{}/cgroup", self.init);
        let text = std::fs::read_to_string(&file).map_err(|error| errno_of(&error)).on("read", file)?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new);
        let Some(path) = path.filter(|path| path.starts_with(&self.path) && *path != self.path) else {
            return Ok(None);
        };
        let directory = self.mount.join(path);
        let open = fd::open(&directory, OFlag::O_PATH | OFlag::O_DIRECTORY);
        Ok(Some(open.on("open the cgroup", directory.display())?))
    }
}

impl Entry {
    /// Opens the `tasks` files, which can be done while the process starts.
    ///
    /// # Errors
    /// Where a sub-cgroup is not there; the kernel's.
    pub fn open_tasks(&self) -> Result<Vec<OwnedFd>> {
        let opened = self.tasks.iter().filter_map(|path| self.open(path, OFlag::O_WRONLY).transpose());
        opened.collect()
    }

    fn open(&self, path: &Path, flags: OFlag) -> Result<Option<OwnedFd>> {
        match fd::open(path, flags) {
            Err(Errno::ENOENT) if self.may_lack_some => Ok(None),
            other => Ok(Some(other.on("open the cgroup", path.display())?)),
        }
    }

    /// The part that comes once there is a process.
    ///
    /// # Errors
    /// What systemd refused.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.attach.as_ref().map_or(Ok(()), |(unit, below)| unit.attach(pid, below))
    }
}

/// The way into the container's cgroups. A sub-cgroup is a path below the container's, for all hierarchies or as
/// `controller:path`. Where an unprivileged caller may not move a process there, it stays in the caller's, as with runc.
///
/// # Errors
/// Where a sub-cgroup is not there; the kernel's.
pub fn entry(
    cgroup: &Cgroup,
    init: Option<i32>,
    sub_cgroups: &[String],
    rootless: bool,
    warnings: &mut Vec<String>,
) -> Result<Entry> {
    let mut entry =
        Entry { may_lack_some: sub_cgroups.is_empty() && cgroup.placement().may_lack_some(), ..Entry::default() };
    let places = &cgroup.placement().places;
    for sub in sub_cgroups {
        // Otherwise the process would be where its caller did not want it.
        let controllers = sub.split_once(':').map_or("", |(controllers, _)| controllers);
        let known = |name: &&str| places.iter().any(|place| place.has(name) || place.controllers == *name);
        if let Some(unknown) = controllers.split(',').find(|name| !name.is_empty() && !known(name)) {
            bail!("--cgroup {sub}: unknown controller {unknown}: the container has no cgroup of it");
        }
    }
    for place in places {
        let mut directory = place.directory();
        let mut below = String::new();
        if let Some(sub) = sub_cgroup(sub_cgroups, |controllers| {
            controllers.split(',').any(|name| place.has(name) || place.controllers == name)
        })? {
            directory.push(&sub);
            below = format!("/{sub}");
        }
        if !place.is_unified() {
            entry.tasks.push(directory.join("tasks"));
            continue;
        }
        let Some(open) = entry.open(&directory, OFlag::O_PATH | OFlag::O_DIRECTORY)? else { continue };
        let may = if rootless { cgroup::entry::check(place) } else { Ok(()) };
        match (may, cgroup.placement().unit()) {
            (Ok(()), _) => {
                entry.unified = Some(open);
                // Who names a cgroup means that one.
                let named = !sub_cgroups.is_empty();
                entry.within = init.filter(|_| !named).map(|init| Within {
                    init,
                    mount: place.mount.clone(),
                    path: place.path.clone(),
                });
            }
            (Err(_), Some(unit)) => entry.attach = Some((unit.clone(), below)),
            (Err(error), None) => {
                warnings.push(format!("the process stays in the cgroup of its caller: {error:#}"));
            }
        }
    }
    Ok(entry)
}

fn sub_cgroup(sub_cgroups: &[String], is_for: impl Fn(&str) -> bool) -> Result<Option<String>> {
    for sub in sub_cgroups {
        let path = match sub.split_once(':') {
            Some((controllers, path)) if is_for(controllers) => path,
            Some(_) => continue,
            None => sub,
        };
        let path = path.trim_start_matches('/');
        if path.split('/').any(|part| part == "..") {
            bail!("--cgroup {sub}: {path} is not a sub cgroup path: it has to be below the container's own cgroup");
        }
        return Ok(Some(path.to_owned()));
    }
    Ok(None)
}
