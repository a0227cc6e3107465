//! What a killed command may have left in a state directory, told from what somebody else put there.

use super::StateDir;
use super::barrier::{BARRIER, STARTING};
use super::directory::{CONFIG, RECORD, STAGED};
use super::notify::NOTIFY;
use crate::sys::{On, errno_of};
use anyhow::Result;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

impl StateDir {
    /// Files of a command that was killed before it had put them in their place, in the directory of a container that is
    /// complete. Whoever has the lock is the only one who writes such files.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unfinished_files(&self) -> Result<Vec<String>> {
        let is_unfinished = |name: &String| [STAGED, ".state.json.new", ".config.json.new"].contains(&name.as_str());
        Ok(self.names()?.into_iter().filter(is_unfinished).collect())
    }

    /// A name in the directory that rtx does not use: then the directory may be another program's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn strange_file(&self) -> Result<Option<String>> {
        let known = [RECORD, CONFIG, BARRIER, STARTING, NOTIFY, STAGED, ".state.json.new", ".config.json.new"];
        // The engine of that name keeps its own there.
        let is_strange = |name: &String| !known.contains(&name.as_str()) && name != "libcontainer";
        Ok(self.names()?.into_iter().find(is_strange))
    }

    fn names(&self) -> Result<Vec<String>> {
        let path = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        let entries = std::fs::read_dir(path).map_err(|error| errno_of(&error)).on("read", self.id())?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Whether a process has the directory open, other than this one: the command that attends the container, which runs
    /// as the user that the directory belongs to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_open_elsewhere(&self) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let own = self.file().metadata().map_err(|error| errno_of(&error)).on("stat", self.id())?;
        let processes = std::fs::read_dir("/proc").map_err(|error| errno_of(&error)).on("read", "/proc")?;
        for process in processes.flatten() {
            let is_process =
                process.file_name().to_string_lossy().parse().is_ok_and(|pid: u32| pid != std::process::id());
            if !is_process {
                continue;
            }
            for file in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
                // The name alone says nothing in another mount namespace, and to follow every link could wait for a server.
                let names_it = std::fs::read_link(file.path()).is_ok_and(|target: PathBuf| target.ends_with(self.id()));
                let is_it = |found: std::fs::Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
                if names_it && file.path().metadata().is_ok_and(is_it) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
