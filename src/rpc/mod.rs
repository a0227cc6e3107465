//! How smaster and stage2 talk: SEQPACKET frames with descriptors beside them, many operations in one message.
//!
//! Every message has one writer and one reader. smaster writes Config, Batch and Finish; stage2 answers each Batch and
//! the Finish with one Reply, in order, so that smaster may send all it knows before it reads anything.

pub mod client;
pub mod frame;
pub mod operation;
pub mod server;

pub use client::RpcClient;
pub use frame::{Frame, Kind};
pub use operation::Operation;

use crate::trace::Span;
use serde::{Deserialize, Serialize};

/// The outcome of one Batch or of Finish. Descriptors that it hands back travel beside it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What went differently than asked for without being an error, in words for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The pid of the process that goes on as stage2 in place of the one that was asked, in smaster's pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<i32>,
    /// The number under which the listener of a seccomp filter is about to appear in stage2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<i32>,
    /// What stage2 did when, if that is recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Span>,
}

/// Why an operation failed in stage2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The whole chain of causes, one line.
    pub message: String,
    /// The error number behind it, 0 where there is none.
    #[serde(default)]
    pub errno: i32,
}

impl Failure {
    /// Puts an error into a form that travels.
    pub fn from_error(error: &anyhow::Error) -> Self {
        let errno = error.downcast_ref::<crate::sys::Error>().map_or(0, |error| error.errno as i32);
        Self { message: format!("{error:#}"), errno }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
