//! All containers of one state directory, through one descriptor of it.

use super::StateDir;
use super::directory::{check_owner, open_directory};
use crate::sys::{Errno, On, dir};
use anyhow::Result;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// What a state directory holds.
pub struct Listing<'a> {
    root: &'a Path,
    /// Absent where there is no state directory.
    directory: Option<Arc<OwnedFd>>,
    ids: Vec<String>,
}

impl<'a> Listing<'a> {
    /// # Errors
    /// Where the root cannot be read, or others could have filled it; a root that is not there holds none.
    pub fn read(root: &'a Path) -> Result<Self> {
        let Some(directory) = open(root)? else { return Ok(Self { root, directory: None, ids: Vec::new() }) };
        check_owner(&directory, root)?;
        let ids = ids(&directory, root)?;
        Ok(Self { root, directory: Some(Arc::new(directory)), ids })
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
}

/// The ids of all containers, in order.
///
/// # Errors
/// Where the root cannot be read; a root that is not there holds none.
pub fn list(root: &Path) -> Result<Vec<String>> {
    open(root)?.map_or(Ok(Vec::new()), |directory| ids(&directory, root))
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
