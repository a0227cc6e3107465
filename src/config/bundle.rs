//! A bundle: a directory with a `config.json` and a root file system (runtime-spec bundle.md).

use super::json;
use crate::sys::path::{canonical, clean};
use crate::sys::{self, Errno, describe};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A bundle that was read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute.
    pub directory: PathBuf,
    /// The bytes of `config.json`.
    pub raw: Vec<u8>,
    /// Shared, because it is large.
    pub spec: Arc<Spec>,
    /// Absolute.
    pub rootfs: PathBuf,
    /// Findings that stop nothing, for the user.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads and checks the bundle in `directory`.
    ///
    /// # Errors
    /// Every problem of the configuration at once.
    pub fn load(directory: &Path) -> Result<Self> {
        let directory = absolute(directory)?;
        let raw = match json::read(&directory.join("config.json")) {
            Err(error) if error.downcast_ref().is_some_and(|error: &sys::Error| error.errno == Errno::ENOENT) => {
                bail!("JSON specification file config.json not found in {}", directory.display())
            }
            other => other?,
        };
        Self::parse(directory, raw)
    }

    /// A bundle whose configuration is at hand already.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(directory: PathBuf, raw: Vec<u8>) -> Result<Self> {
        let mut value =
            json::parse(&raw).with_context(|| format!("{}/config.json is not valid JSON", directory.display()))?;
        let warnings = super::findings::refuse("config.json", super::check::check(&value, Some(&directory)))?;
        super::check::normalise(&mut value);
        let spec: Arc<Spec> = serde_json::from_value(value)
            .map(Arc::new)
            .with_context(|| format!("{}/config.json is not a configuration", directory.display()))?;
        let rootfs = spec.root().as_ref().map_or_else(|| directory.clone(), |root| clean(&directory.join(root.path())));
        Ok(Self { directory, raw, spec, rootfs, warnings })
    }
}

fn absolute(directory: &Path) -> Result<PathBuf> {
    let directory = canonical(directory)
        .map_err(|errno| anyhow::anyhow!("open the bundle: chdir {}: {}", directory.display(), describe(errno)))?;
    if directory.to_str().is_none() {
        bail!("open the bundle: {directory:?} is not valid UTF-8, as a container's state has to be: move it elsewhere");
    }
    Ok(directory)
}
