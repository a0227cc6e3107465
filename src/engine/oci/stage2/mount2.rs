//! A new file system by mount(2), for options that fsconfig(2) does not take: it cuts no value off, but refuses those of
//! 256 bytes and more, which an overlay of many layers has.

use crate::rpc::operation::FileSystem;
use crate::sys::On;
use anyhow::Result;
use nix::mount::MsFlags;
use std::os::fd::{AsRawFd, OwnedFd};

/// The size of fsconfig(2)'s buffer for a value, its NUL included.
const VALUE_MAX: usize = 256;

/// Whether these options have to go to mount(2).
pub fn is_needed(data: &[(String, Option<String>)]) -> bool {
    data.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.len() >= VALUE_MAX))
}

/// Mounts onto the directory that `target` refers to. Attributes of the mount are left for later.
///
/// # Errors
/// The kernel's.
pub fn mount(target: &OwnedFd, file_system: &FileSystem, data: &[(String, Option<String>)]) -> Result<()> {
    let words: Vec<String> = data.iter().map(|(key, value)| word(key, value.as_deref())).collect();
    let flags = file_system.flags.iter().fold(MsFlags::empty(), |flags, name| flags | flag(name));
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    let source = file_system.source.as_deref();
    nix::mount::mount(source, path.as_str(), Some(file_system.kind.as_str()), flags, Some(words.join(",").as_str()))
        .on("mount", format_args!("{} with the options {:?}", file_system.kind, words.join(",")))?;
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
