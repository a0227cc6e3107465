//! What a killed command may have left in a state directory, told from what somebody else put there.

use super::barrier::{BARRIER, STARTING};
use super::directory::{CONFIG, RECORD};
use super::journal::{EARLIER, EVENTS};
use super::locks::has_open;
use super::notify::NOTIFY;
use super::supervision::{BEING_STARTED, DELETING, SOCKET, STARTED, STOP, SUPERVISION, UNSUPERVISED};
use super::{NotFound, StateDir};
use crate::sys::{Errno, On, dir, errno_of};
use anyhow::Result;
use nix::fcntl::AtFlags;
use nix::sys::stat::{fstat, fstatat};
use std::os::fd::AsRawFd;
use std::path::Path;

/// What is made in a directory that has a record.
const AFTER_RECORD: [&str; 11] =
    [BARRIER, STARTING, SUPERVISION, SOCKET, STARTED, BEING_STARTED, STOP, DELETING, UNSUPERVISED, EVENTS, EARLIER];

impl StateDir {
    /// Files of a command that was killed before it had put them in their place, in the directory of a container that is
    /// complete. Whoever has the lock is the only one who writes such files.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unfinished_files(&self) -> Result<Vec<String>> {
        let is_unfinished = |name: &String| [".state.json.new", ".config.json.new"].contains(&name.as_str());
        Ok(self.names()?.into_iter().filter(is_unfinished).collect())
    }

    /// Why a directory without a record is not what a killed `create` left, or `None` where it may be. An empty one and one
    /// with nothing but a configuration are such remains, and bundles and other programs' directories as well: what rtx makes
    /// is its user's alone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn strangeness(&self) -> Result<Option<String>> {
        let stat = fstat(self.file()).on("stat", self.id())?;
        // A group may come from the directory above.
        let mode = stat.st_mode & !(libc::S_IFMT | libc::S_ISGID);
        if mode != libc::S_IRWXU {
            return Ok(Some(format!("has mode {mode:04o} and not 0700")));
        }
        if stat.st_uid != nix::unistd::geteuid().as_raw() {
            return Ok(Some(format!("belongs to user {}", stat.st_uid)));
        }
        self.strange_content(&[])
    }

    /// Why a directory without a record is somebody else's by what is in it, `tolerated` aside, or `None` where it may be
    /// rtx's. An empty one is worth nothing to anybody.
    ///
    /// # Errors
    /// The kernel's.
    pub fn others(&self, tolerated: &[&str]) -> Result<Option<String>> {
        let is_recorded = !matches!(self.record(), Err(error) if error.is::<NotFound>());
        if is_recorded { Ok(None) } else { self.strange_content(tolerated) }
    }

    fn strange_content(&self, tolerated: &[&str]) -> Result<Option<String>> {
        if let Some(name) = self.strange_file(tolerated)? {
            return Ok(Some(format!("has {name:?} in it, which is not rtx's")));
        }
        Ok(self.has_strange_config()?.then(|| format!("has a {CONFIG:?} in it that rtx has not written")))
    }

    /// Whether the configuration is not one that a `create` has saved, but that of a bundle, say.
    ///
    /// # Errors
    /// The kernel's.
    fn has_strange_config(&self) -> Result<bool> {
        match fstatat(self.file(), CONFIG, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_mode != libc::S_IFREG | libc::S_IRUSR | libc::S_IWUSR),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno).on("stat", format_args!("{}/{CONFIG}", self.id()))?,
        }
    }

    /// A name in the directory that rtx does not use: then the directory may be another program's.
    ///
    /// # Errors
    /// The kernel's.
    fn strange_file(&self, tolerated: &[&str]) -> Result<Option<String>> {
        let known = [
            RECORD,
            CONFIG,
            NOTIFY,
            ".state.json.new",
            ".config.json.new",
            ".supervisor.json.new",
            "output",
            "criu-root",
        ];
        // The engine of that name keeps its own there.
        let is_strange = |name: &&String| {
            !known.contains(&name.as_str())
                && !AFTER_RECORD.contains(&name.as_str())
                && !tolerated.contains(&name.as_str())
                && *name != "libcontainer"
        };
        Ok(self.names()?.iter().find(is_strange).cloned())
    }

    /// Whether the record has been removed by somebody else: what is made after it is there, with the configuration, which
    /// goes right after it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_lost_record(&self) -> Result<bool> {
        let names = self.names()?;
        let has = |name: &str| names.iter().any(|found| found == name);
        Ok(has(CONFIG) && !has(RECORD) && AFTER_RECORD.iter().any(|name| has(name)))
    }

    fn names(&self) -> Result<Vec<String>> {
        let path = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        let entries = dir::entries(Path::new(&path)).on("read", self.id())?;
        Ok(entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect())
    }

    /// Whether a process has the directory open, other than this one: the command that attends the container, which runs
    /// as the user that the directory belongs to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_open_elsewhere(&self) -> Result<bool> {
        let own = self.file().metadata().map_err(|error| errno_of(&error)).on("stat", self.id())?;
        let own_pid = std::process::id();
        Ok(dir::entries(Path::new("/proc")).on("read", "/proc")?.into_iter().any(|process| {
            let is_other =
                process.name.to_str().and_then(|name| name.parse().ok()).is_some_and(|pid: u32| pid != own_pid);
            is_other && has_open(&process.name, self.id(), &own)
        }))
    }
}
