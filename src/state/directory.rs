//! The state directory of one container: made, locked, read and removed through its descriptor.

use super::locks::{lock_holder, wait_for_lock};
use super::root::{make_root, with_advice};
use super::{AlreadyExists, Busy, NotFound};
use crate::sys::dir::{self, Entry};
use crate::sys::{Errno, On, errno_of, fd};
use anyhow::{Result, bail};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const RECORD: &str = "state.json";
pub(super) const CONFIG: &str = "config.json";

/// The open state directory of a container. Commands that change the container hold its lock.
pub struct StateDir {
    id: String,
    parent: Arc<OwnedFd>,
    directory: File,
    is_locked: bool,
    owner: u32,
}

/// A process that this one has just made may still have the directory open: that alone would keep the lock.
impl Drop for StateDir {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl StateDir {
    /// Makes the directory of a new container, locks it and keeps the configuration, before anything else is made: whoever
    /// finds it knows what to look for.
    ///
    /// # Errors
    /// [`AlreadyExists`]; or the kernel's.
    pub fn create(root: &Path, id: &str, config: &[u8]) -> Result<Self> {
        let parent = match open_directory(root) {
            Err(Errno::ENOENT) => {
                make_root(root)?;
                open_directory(root)
            }
            other => other,
        };
        let parent = Arc::new(parent.on("open", root.display())?);
        check_owner(&parent, root)?;
        loop {
            match mkdirat(&parent, id, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => return Err(AlreadyExists { id: id.to_owned() }.into()),
                other => with_advice(other.on("mkdir", root.join(id).display()))?,
            }
            match lock_new(&parent, root, id, config) {
                Ok(Some((directory, owner))) => {
                    return Ok(Self { id: id.to_owned(), parent, directory, is_locked: true, owner });
                }
                // Before it was locked, who looks for what a killed create left has taken it for that and removed it.
                Ok(None) => {}
                Err(error) => {
                    // Still empty, or else another's by now, and it stays.
                    let _ = unlinkat(&parent, id, UnlinkatFlags::RemoveDir);
                    return Err(error);
                }
            }
        }
    }

    /// Whether this is what a killed `create` left: the creation was never completed, and nobody is at it, since this
    /// process has the lock.
    pub fn is_abandoned(&self) -> bool {
        self.is_locked && self.is_incomplete()
    }

    /// The same, for one that is only looked at: several may look at a time, but nobody while another changes it.
    pub(super) fn looks_abandoned(&self) -> bool {
        self.directory.try_lock_shared().is_ok() && is_there(&self.directory) && self.is_incomplete()
    }

    fn is_incomplete(&self) -> bool {
        match self.record() {
            Ok(record) => record.is_abandoned(),
            Err(error) => error.is::<NotFound>(),
        }
    }

    /// Opens the directory of a container to change it, waiting until no other command does.
    ///
    /// # Errors
    /// [`NotFound`]; or the kernel's.
    pub fn open_locked(root: &Path, id: &str) -> Result<Self> {
        let parent = open_parent(root, id)?;
        Self::lock(parent, root, id)
    }

    /// Opens the directory of a container to change it, if no other command does for as long as `patience`.
    ///
    /// # Errors
    /// [`Busy`] with the process that holds the lock; [`NotFound`]; or the kernel's.
    pub fn open_locked_within(root: &Path, id: &str, patience: Duration) -> Result<Self> {
        const PAUSE: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + patience;
        loop {
            let parent = open_parent(root, id)?;
            let (file, owner) = open_child(&parent, root, id)?;
            match file.try_lock() {
                Ok(()) if is_there(&file) => {
                    return Ok(Self { id: id.to_owned(), parent, directory: file, is_locked: true, owner });
                }
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Busy { id: id.to_owned(), holder: lock_holder(&file, id) }.into());
                }
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(errno_of(&error)).on("lock", root.join(id).display())?,
            }
        }
    }

    /// Opens the directory of a container to look at it.
    ///
    /// # Errors
    /// [`NotFound`]; or the kernel's.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        Self::open_in(open_parent(root, id)?, root, id)
    }

    /// As [`Self::open`], in the directory `root`, which is open.
    pub(super) fn open_in(parent: Arc<OwnedFd>, root: &Path, id: &str) -> Result<Self> {
        let (directory, owner) = open_child(&parent, root, id)?;
        Ok(Self { id: id.to_owned(), parent, directory, is_locked: false, owner })
    }

    fn lock(parent: Arc<OwnedFd>, root: &Path, id: &str) -> Result<Self> {
        loop {
            let (file, owner) = open_child(&parent, root, id)?;
            wait_for_lock(&file).on("lock", root.join(id).display())?;
            // Whoever held the lock before may have removed the directory: then this one is another's or nobody's.
            if is_there(&file) {
                return Ok(Self { id: id.to_owned(), parent, directory: file, is_locked: true, owner });
            }
        }
    }

    /// Lets other commands change the container.
    pub fn unlock(&mut self) {
        if std::mem::take(&mut self.is_locked) {
            // The lock that could not be given up goes with the descriptor.
            let _ = crate::sys::retry(|| self.directory.unlock().map_err(|error| errno_of(&error)));
        }
    }

    /// Takes the lock again that [`Self::unlock`] gave up. `None` where the container has been removed meanwhile: what has
    /// its id now is another one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lock_again(mut self) -> Result<Option<Self>> {
        if !self.is_locked {
            wait_for_lock(&self.directory).on("lock", &self.id)?;
            self.is_locked = true;
        }
        Ok(is_there(&self.directory).then_some(self))
    }

    /// Whether no other command changes the container now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_free(&self) -> nix::Result<bool> {
        if self.is_locked {
            return Ok(true);
        }
        loop {
            match self.directory.try_lock_shared() {
                Ok(()) => {
                    crate::sys::retry(|| self.directory.unlock().map_err(|error| errno_of(&error)))?;
                    return Ok(true);
                }
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(errno_of(&error)),
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.directory
    }

    /// Tells directories apart that have had the same name.
    pub fn inode(&self) -> u64 {
        fstat(self.file()).map_or(0, |stat| stat.st_ino)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user that it belongs to, which is the one who has made the container.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// The command that removes the container whatever is wrong with it, for errors.
    pub fn forced_deletion(&self) -> String {
        let parent = std::fs::read_link(format!("/proc/self/fd/{}", self.parent.as_raw_fd())).ok();
        match parent.filter(|parent| *parent != super::default_root()) {
            Some(parent) => format!("`rtx --root {} delete --force {}`", parent.display(), self.id),
            None => format!("`rtx delete --force {}`", self.id),
        }
    }

    /// A name for something in this directory that is short, whatever the path of the directory is: for the address
    /// of a socket, which holds 107 bytes.
    pub(super) fn short_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.file().as_raw_fd()))
    }

    /// The configuration as the container was created with it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn config(&self) -> Result<Vec<u8>> {
        Ok(self.read(CONFIG).on("read the configuration of", &self.id)?)
    }

    /// Replaces the configuration of a container that is there: whoever reads it meanwhile finds the old or the new one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn replace_config(&self, config: &[u8]) -> Result<()> {
        self.replace(CONFIG, config).map(drop)
    }

    /// Removes the directory and all that is in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(self) -> Result<()> {
        // What there is of most; the rest goes as what is found there.
        for name in [RECORD, CONFIG] {
            let _ = unlinkat(self.file(), name, UnlinkatFlags::NoRemoveDir);
        }
        match unlinkat(&*self.parent, self.id.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::ENOTEMPTY) => {
                remove_rest(self.file())?;
                unlinkat(&*self.parent, self.id.as_str(), UnlinkatFlags::RemoveDir).on("rmdir", &self.id)?;
                Ok(())
            }
            Err(errno) => Err(errno).on("rmdir", &self.id)?,
        }
    }

    pub(super) fn read(&self, name: &str) -> nix::Result<Vec<u8>> {
        fd::read_to_end(open_file(self.file(), name)?)
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let opened = openat(self.file(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = with_advice(opened.on("create", format_args!("{}/{name}", self.id)))?;
        write_to(fd, &self.id, name, bytes)
    }

    /// Replaces a file. What is written to the returned one is added to it.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<File> {
        let temporary = format!(".{name}.new");
        let file = self.write_new(&temporary, bytes)?;
        let renamed = renameat(self.file(), temporary.as_str(), self.file(), name);
        with_advice(renamed.on("rename", format_args!("{}/{temporary}", self.id)))?;
        Ok(file)
    }
}

/// Locks a directory that was just made and keeps the configuration in it. `None` where it was removed before; where another create's is in its place by now,
/// the container is there. With the user that it belongs to.
fn lock_new(parent: &OwnedFd, root: &Path, id: &str, config: &[u8]) -> Result<Option<(File, u32)>> {
    let path = root.join(id);
    let directory: File = match open_child_of(parent, id) {
        Err(Errno::ENOENT) => return Ok(None),
        other => other.on("open", path.display())?.into(),
    };
    wait_for_lock(&directory).on("lock", path.display())?;
    let stat = fstat(&directory).on("stat", path.display())?;
    if stat.st_nlink == 0 {
        return Ok(None);
    }
    check_owner_by(&stat, &path)?;
    // The configuration is the first thing that is kept of a container, by whoever has locked its directory first.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    match openat(&directory, CONFIG, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Err(Errno::EEXIST) => return Err(AlreadyExists { id: id.to_owned() }.into()),
        opened => {
            let fd = with_advice(opened.on("create", format_args!("{id}/{CONFIG}")))?;
            if let Err(error) = write_to(fd, id, CONFIG, config) {
                let _ = unlinkat(&directory, CONFIG, UnlinkatFlags::NoRemoveDir);
                return Err(error);
            }
        }
    }
    Ok(Some((directory, stat.st_uid)))
}

fn write_to(fd: OwnedFd, id: &str, name: &str, bytes: &[u8]) -> Result<File> {
    let mut file = File::from(fd);
    let written = file.write_all(bytes).map_err(|error| errno_of(&error));
    with_advice(written.on("write", format_args!("{id}/{name}")))?;
    Ok(file)
}

fn remove_rest(directory: &impl AsFd) -> Result<()> {
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    for Entry { name, is_dir } in dir::entries(Path::new(&path)).on("read", &path)? {
        let mut flag = UnlinkatFlags::NoRemoveDir;
        if is_dir {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            remove_rest(&openat(directory, name.as_os_str(), flags, Mode::empty()).on("open", name.display())?)?;
            flag = UnlinkatFlags::RemoveDir;
        }
        unlinkat(directory, name.as_os_str(), flag).on("unlink", name.display())?;
    }
    Ok(())
}

pub(super) fn open_file(directory: impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    // What is no file must not keep anybody waiting.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    openat(directory, path, flags, Mode::empty())
}

pub(super) fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    fd::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn open_parent(root: &Path, id: &str) -> Result<Arc<OwnedFd>> {
    let parent = match open_directory(root) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(NotFound { id: id.to_owned() }.into()),
        other => other.on("open", root.display())?,
    };
    check_owner(&parent, root)?;
    Ok(Arc::new(parent))
}

/// Whether a directory still has a name.
fn is_there(directory: &File) -> bool {
    fstat(directory).is_ok_and(|stat| stat.st_nlink > 0)
}

/// Refuses a directory that another user could have filled: state names cgroups to remove and processes to end. The
/// default of an unprivileged user lies in /tmp, where anybody may have been first.
pub(super) fn check_owner(directory: &impl AsFd, path: &Path) -> Result<FileStat> {
    let stat = fstat(directory).on("stat", path.display())?;
    check_owner_by(&stat, path)?;
    Ok(stat)
}

fn check_owner_by(stat: &FileStat, path: &Path) -> Result<()> {
    let is_others = stat.st_uid != 0 && stat.st_uid != nix::unistd::geteuid().as_raw();
    let is_open_to_all = stat.st_mode & libc::S_IWOTH != 0 && stat.st_mode & libc::S_ISVTX == 0;
    if is_others || is_open_to_all {
        let why =
            if is_others { format!("belongs to user {}", stat.st_uid) } else { "can be written by every user".into() };
        bail!(
            "the state directory {} {why}: choose one of your own with --root, or run rtx as that user",
            path.display()
        );
    }
    Ok(())
}

fn open_child_of(parent: impl AsFd, id: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    openat(parent.as_fd(), id, flags, Mode::empty())
}

fn open_child(parent: impl AsFd, root: &Path, id: &str) -> Result<(File, u32)> {
    match open_child_of(parent, id) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Err(NotFound { id: id.to_owned() }.into()),
        other => {
            let child = other.on("open", root.join(id).display())?;
            let stat = check_owner(&child, &root.join(id))?;
            Ok((child.into(), stat.st_uid))
        }
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}
