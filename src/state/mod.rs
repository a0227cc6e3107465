//! What outlives a command: one directory a container, with files that are replaced whole, under one lock.

mod directory;
mod identity;
mod record;
mod root;

pub use directory::{StateDir, exists, list};
pub use identity::{BootId, Liveness, ProcessIdentity};
pub use record::{Record, Status};
pub use root::{default_root, is_rootless};

use std::fmt;

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
