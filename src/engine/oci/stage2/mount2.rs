//! A new file system by mount(2), which is one call where fsopen(2) and its kin are six and more. It cannot say everything
//! that they can, nor say as well what is wrong; but it takes options that fsconfig(2) does not, whose values have 256
//! bytes and more, as an overlay of many layers has.
//!
//! The path of the descriptor is one in the host's /proc, which stage2 sees until it enters the container's root.

use crate::rpc::operation::{FileSystem, MountOperation};
use crate::sys::On;
use crate::sys::classic::mount_flags;
use crate::sys::mount::{Attributes, attr};
use anyhow::Result;
use nix::mount::MsFlags;
use std::os::fd::{AsRawFd, OwnedFd};

/// The size of fsconfig(2)'s buffer for a value, its NUL included.
const VALUE_MAX: usize = 256;

/// Whether these options have to go to mount(2).
pub fn is_needed(data: &[(String, Option<String>)]) -> bool {
    data.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.len() >= VALUE_MAX))
}

/// Whether mount(2) can say all of this at once: no value is taken apart at a comma, and the file system is read-only if the
/// mount is, for which mount(2) has one flag.
pub fn suffices(operation: &MountOperation, file_system: &FileSystem, data: &[(String, Option<String>)]) -> bool {
    let is_plain = |text: &str| !text.contains([',', '"', '\\']);
    let is_readonly = operation.attributes.set & attr::RDONLY != 0;
    !file_system.copy_up
        && file_system.label.is_none()
        && operation.recursive == Attributes::default()
        && operation.propagation.is_empty()
        && file_system.flags.iter().any(|flag| flag == "ro") == is_readonly
        && data.iter().all(|(key, value)| is_plain(key) && value.as_deref().is_none_or(is_plain))
}

/// Mounts onto the directory that `target` refers to, with `MOUNT_ATTR_*` attributes.
///
/// # Errors
/// The kernel's.
pub fn mount(
    target: &OwnedFd,
    file_system: &FileSystem,
    data: &[(String, Option<String>)],
    attributes: u64,
) -> Result<()> {
    let words: Vec<String> = data.iter().map(|(key, value)| word(key, value.as_deref())).collect();
    let words = words.join(",");
    let flags = MsFlags::from_bits_retain(mount_flags(attributes) as libc::c_ulong);
    let flags = file_system.flags.iter().fold(flags, |flags, name| flags | flag(name));
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    let (source, kind) = (file_system.source.as_deref(), file_system.kind.as_str());
    let data = Some(words.as_str()).filter(|words| !words.is_empty());
    nix::mount::mount(source, path.as_str(), Some(kind), flags, data)
        .on("mount", format_args!("{kind} with the options {words:?}"))?;
    Ok(())
}

fn word(key: &str, value: Option<&str>) -> String {
    match value {
        // The commas of a context would end it.
        Some(value) if key.ends_with("context") => format!("{key}=\"{value}\""),
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    }
}

/// What fsconfig(2) knows by name.
fn flag(name: &str) -> MsFlags {
    match name {
        "ro" => MsFlags::MS_RDONLY,
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        "mand" => MsFlags::MS_MANDLOCK,
        "lazytime" => MsFlags::MS_LAZYTIME,
        _ => MsFlags::empty(),
    }
}
