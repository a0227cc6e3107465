//! The last step before libcontainer's process executes its program: libcontainer forks from this process and leaves as
//! it was what a program must not inherit from it.

use crate::sys::process;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

/// libcontainer's own executor, with the signals as every program expects them: in the foreground rtx blocks them all, a Rust
/// program ignores SIGPIPE, and its caller may ignore others.
#[derive(Clone)]
pub struct CleanExecutor(DefaultExecutor);

impl CleanExecutor {
    pub fn new() -> Self {
        Self(DefaultExecutor {})
    }
}

impl Executor for CleanExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        process::stop_ignoring_any();
        process::restore_sigpipe();
        process::unblock_signals().map_err(|errno| ExecutorError::Other(format!("unblock signals: {errno}")))?;
        self.0.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.0.validate(spec)
    }
}
