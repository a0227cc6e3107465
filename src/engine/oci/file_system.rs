//! Making a file system by fsopen(2) and its kin, detached. stage2 does it, in the namespaces that the file system belongs
//! to; one on a block device smaster makes, which no device rule of the container keeps from the device.

use super::stage2::c_string;
use crate::rpc::operation::FileSystem;
use crate::sys::{Errno, On, mount};
use anyhow::{Context, Result};
use std::os::fd::OwnedFd;

/// A detached mount of a new file system, with these options and `MOUNT_ATTR_*` attributes.
///
/// # Errors
/// The kernel's, with the file system's own words.
pub fn make(file_system: &FileSystem, data: &[(String, Option<String>)], attributes: u64) -> Result<OwnedFd> {
    let kind = &file_system.kind;
    let context = match mount::fsopen(&c_string(kind)?) {
        Err(errno @ Errno::ENODEV) => {
            return Err(errno).on("mount a file system of type", kind).context("the kernel has no such file system")?;
        }
        other => other.on("fsopen", kind)?,
    };
    configure(&context, file_system, data)?;
    if let Err(errno) = mount::fsconfig_create(&context) {
        return Err(explain(errno, &context, kind));
    }
    mount::fsmount(&context, attributes).map_err(|errno| explain(errno, &context, kind))
}

fn configure(
    context: &crate::sys::mount::FileSystemContext,
    file_system: &FileSystem,
    data: &[(String, Option<String>)],
) -> Result<()> {
    if let Some(source) = &file_system.source {
        mount::fsconfig_string(context, c"source", &c_string(source)?)
            .map_err(|errno| explain(errno, context, &format!("source {source}")))?;
    }
    for flag in &file_system.flags {
        mount::fsconfig_flag(context, &c_string(flag)?).map_err(|errno| explain(errno, context, flag))?;
    }
    for (key, value) in data {
        let result = match value {
            Some(value) => mount::fsconfig_string(context, &c_string(key)?, &c_string(value)?),
            None => mount::fsconfig_flag(context, &c_string(key)?),
        };
        result.map_err(|errno| {
            let option = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
            explain(errno, context, &format!("option {option:?} of {}", file_system.kind))
        })?;
    }
    Ok(())
}

/// An error of a file system context, with the file system's own words where it has any.
fn explain(errno: Errno, context: &crate::sys::mount::FileSystemContext, what: &str) -> anyhow::Error {
    let words = mount::fs_message(context).map_or_else(String::new, |words| format!(" ({words})"));
    crate::sys::Error { op: "mount".into(), target: format!("{what}{words}"), errno }.into()
}
