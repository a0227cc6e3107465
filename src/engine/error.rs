//! The typed refusal of an engine.

use std::borrow::Cow;
use std::fmt;

/// The engine cannot do this at all; another may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureNotSupported {
    pub engine: &'static str,
    pub feature: Cow<'static, str>,
}

impl fmt::Display for FeatureNotSupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "engine {:?} does not support {}; `rtx engine list` shows what each engine can do",
            self.engine, self.feature
        )
    }
}

impl std::error::Error for FeatureNotSupported {}
