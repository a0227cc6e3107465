//! What outlives a command: one directory a container, whose files are replaced whole or added to, under one lock.

mod barrier;
mod brief;
mod directory;
mod identity;
mod journal;
mod listing;
mod locks;
mod notify;
mod plain;
mod record;
mod recording;
mod remains;
mod root;
mod supervision;

pub use brief::Brief;
pub use directory::StateDir;
pub use identity::{BootId, Identity, Liveness, ProcessIdentity};
pub use journal::{Event, Events};
pub use listing::{Glance, Listing, entries, list};
pub use plain::Plain;
pub use record::{OciState, Record, Status};
pub use recording::{Line, Recording};
pub use root::{check_root, default_root, exists, is_abandoned, is_rootless};
pub use supervision::{End, Phase, Supervision, now};

use std::fmt;
use std::os::fd::OwnedFd;

/// Another command is at work on the container, and has been for long.
#[derive(Debug)]
pub struct Busy {
    pub id: String,
    /// The process of that command, where it can be told.
    pub holder: Option<Holder>,
}

/// A process that holds the lock of a state directory.
#[derive(Debug)]
pub struct Holder {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        match &self.holder {
            Some(Holder { pid, .. }) => {
                write!(f, "container {id:?} is in the hands of process {pid}, which is not done (a hook that hangs?)")
            }
            None => write!(f, "container {id:?} is in the hands of another process, which is not done"),
        }
    }
}

impl std::error::Error for Busy {}

/// The container that a command is to make is there.
#[derive(Debug)]
pub struct AlreadyExists {
    pub id: String,
}

impl fmt::Display for AlreadyExists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container with given ID already exists: {}", self.id)
    }
}

impl std::error::Error for AlreadyExists {}

/// What lies where a container's record would is another program's.
#[derive(Debug)]
pub struct Foreign {
    pub id: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        write!(f, "the state.json of {id:?} is not rtx's: it is another runtime's container (see --root)")
    }
}

impl std::error::Error for Foreign {}

/// The container that a command names is not there. The text is what callers of a runtime compare with.
#[derive(Debug)]
pub struct NotFound {
    pub id: String,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container does not exist: there is no container {:?}", self.id)
    }
}

impl std::error::Error for NotFound {}
