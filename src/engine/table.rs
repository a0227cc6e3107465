//! The engines there are. One static table: nothing registers itself from elsewhere.

use super::{EngineOperations, PayloadOperations};
use crate::config::envelope::{Common, OciConfig, Starter};
use anyhow::{Result, bail};
use serde_json::Value;
use std::os::fd::OwnedFd;

/// What an engine can do, for `rtx engine list`. Code tries and handles [`super::FeatureNotSupported`] instead.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities {
    pub isolates: bool,
    pub needs_privileges: bool,
    pub exec: bool,
    pub pause: bool,
    pub update: bool,
    pub stats: bool,
    pub terminal: bool,
}

/// What the stage2 side of an engine is made from: its part of the envelope, and the descriptors that came with it.
pub struct PayloadRequest {
    pub common: Common,
    pub starter: Starter,
    pub oci_config: OciConfig,
    pub fds: Vec<OwnedFd>,
}

/// Makes the stage2 side of an engine.
pub type MakePayload = fn(PayloadRequest) -> Result<Box<dyn PayloadOperations>>;

pub struct Provider {
    pub name: &'static str,
    pub about: &'static str,
    pub capabilities: Capabilities,
    pub make: fn() -> Box<dyn EngineOperations>,
    /// Absent for an engine without a stage2.
    pub make_payload: Option<MakePayload>,
    /// Why the engine cannot be used on this machine by this user, if so.
    pub unavailable: fn() -> Option<String>,
    /// JSON Schema of the engine's part of the configuration file.
    pub schema: fn() -> Value,
}

pub static PROVIDERS: &[&Provider] = &[
    &super::oci::PROVIDER,
    &super::native::PROVIDER,
    &super::mock::PROVIDER,
    #[cfg(feature = "engine-libcontainer")]
    &super::libcontainer::PROVIDER,
];

/// The engine of that name.
///
/// # Errors
/// Where there is none; names those there are.
pub fn find(name: &str) -> Result<&'static Provider> {
    match PROVIDERS.iter().find(|provider| provider.name == name).copied() {
        Some(provider) => Ok(provider),
        None => {
            let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
            bail!("there is no engine {name:?}; there are {}", names.join(", "))
        }
    }
}
