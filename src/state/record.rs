//! `state.json`: what rtx knows about one container between commands. A few hundred bytes; the configuration lies
//! beside it.

use super::{Liveness, ProcessIdentity};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The life of a container (runtime-spec runtime.md, State), and `paused`, as every runtime has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Of this file's form.
    pub version: u32,
    pub id: String,
    pub engine: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// The user that created the container.
    pub owner: u32,
    /// Whether the creation was completed. A record where it was not is what a killed create left.
    pub complete: bool,
    /// stage2 goes on to the program by itself when it is ready, and smaster, which has the lock until then, completes the
    /// record. Where smaster was killed in between the process that is alive is the program, since stage2 would have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    /// The command that made it removes it when it has ended. Where that command is gone, nobody does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attended: bool,
    pub init: Option<ProcessIdentity>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whether smaster is a process of its own; what that knows lies beside this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supervised: bool,
    /// What the engine needs to find the container again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_state: Option<Box<RawValue>>,
}

/// The state of a container as hooks get it and `state` prints it (runtime-spec runtime.md, State).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    pub oci_version: &'static str,
    pub id: &'a str,
    /// Absent once there is no process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    pub status: Status,
    pub bundle: &'a std::path::Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

impl Record {
    pub const VERSION: u32 = 1;

    /// Whether nothing but a creation that was never completed has left this, where nobody is at that any more.
    pub fn is_abandoned(&self) -> bool {
        let may_run = |init: &ProcessIdentity| !init.liveness().is_ok_and(|liveness| liveness != Liveness::Alive);
        let runs = self.starting && self.init.as_ref().is_some_and(may_run);
        !self.complete && !runs
    }

    /// The state as hooks get it.
    pub fn oci_state(&self, status: Status, pid: i32) -> OciState<'_> {
        OciState {
            oci_version: crate::OCI_VERSION,
            id: &self.id,
            pid: (status != Status::Stopped).then_some(pid),
            status,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}
