//! All containers of one state directory, through one descriptor of it.

use super::barrier::{BARRIER, STARTING};
use super::directory::{RECORD, check_owner, open_directory};
use super::{Brief, Line, StateDir};
use crate::sys::dir::{self, Entry};
use crate::sys::{Errno, On};
use anyhow::Result;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// What a state directory holds.
pub struct Listing<'a> {
    root: &'a Path,
    /// Absent where there is no state directory.
    directory: Option<Arc<OwnedFd>>,
    /// Nobody else can have put anything there.
    is_own: bool,
    ids: Vec<String>,
}

impl<'a> Listing<'a> {
    /// # Errors
    /// Where the root cannot be read, or others could have filled it; a root that is not there holds none.
    pub fn read(root: &'a Path) -> Result<Self> {
        let Some(directory) = open(root)? else {
            return Ok(Self { root, directory: None, is_own: false, ids: Vec::new() });
        };
        let stat = check_owner(&directory, root)?;
        let is_own = stat.st_mode & (libc::S_IWGRP | libc::S_IWOTH) == 0;
        let ids = ids(&directory, root)?;
        Ok(Self { root, directory: Some(Arc::new(directory)), is_own, ids })
    }

    /// The ids, in order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Whether a container with this id is there now.
    pub fn has(&self, id: &str) -> bool {
        super::exists(self.root, id)
    }

    /// As [`StateDir::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, id: &str) -> Result<StateDir> {
        match &self.directory {
            Some(directory) => StateDir::open_in(directory.clone(), self.root, id),
            None => StateDir::open(self.root, id),
        }
    }

    /// For a look at a container from here. `None` where its directory has to be looked at first.
    pub fn glance<'g>(&'g self, id: &'g str) -> Option<Glance<'g>> {
        let directory = self.directory.as_ref().filter(|_| self.is_own)?;
        Some(Glance { directory, id })
    }
}

/// A container seen from the directory of all of them: without opening its own, and asking whose that is, for each.
pub struct Glance<'a> {
    directory: &'a OwnedFd,
    id: &'a str,
}

impl Glance<'_> {
    /// The record. `None` where [`StateDir::record`] has to read it, or to say why it cannot be read.
    pub fn brief<'l>(&self, line: &'l mut Line) -> Option<Brief<'l>> {
        let line = line.read(self.directory, &format!("{}/{RECORD}", self.id))?;
        Brief::read(line).filter(|brief| brief.id == self.id)
    }

    /// As [`StateDir::is_waiting`]. `None` where somebody would have to be asked.
    ///
    /// # Errors
    /// As there.
    pub fn is_waiting(&self) -> Result<Option<bool>> {
        let is_there = |name| {
            let path = format!("{}/{name}", self.id);
            dir::has(self.directory, path.as_str()).on("look for", path)
        };
        if is_there(BARRIER)? {
            return Ok(Some(true));
        }
        Ok(if is_there(STARTING)? { None } else { Some(false) })
    }
}

/// The ids of all containers, in order.
///
/// # Errors
/// Where the root cannot be read; a root that is not there holds none.
pub fn list(root: &Path) -> Result<Vec<String>> {
    open(root)?.map_or(Ok(Vec::new()), |directory| ids(&directory, root))
}

/// All that is in a state directory, in order: containers, what else rtx keeps there, and what others do.
///
/// # Errors
/// Where the root cannot be read, or others could have filled it; a root that is not there holds nothing.
pub fn entries(root: &Path) -> Result<Vec<Entry>> {
    let Some(directory) = open(root)? else { return Ok(Vec::new()) };
    check_owner(&directory, root)?;
    let mut entries = dir::entries_of(directory).on("read", root.display())?;
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

fn open(root: &Path) -> Result<Option<OwnedFd>> {
    match open_directory(root) {
        Err(Errno::ENOENT) => Ok(None),
        other => Ok(Some(other.on("read", root.display())?)),
    }
}

fn ids(directory: impl AsFd, root: &Path) -> Result<Vec<String>> {
    let entries = dir::entries_of(directory).on("read", root.display())?;
    let names = entries.into_iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.into_string().ok());
    let mut ids: Vec<String> = names.filter(|name| !name.contains('@')).collect();
    ids.sort_unstable();
    Ok(ids)
}
