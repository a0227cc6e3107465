//! Masked and read-only paths (runtime-spec config-linux.md, Masked Paths and Readonly Paths).

use super::root::{Root, is_directory};
use crate::sys::fd::close_together;
use crate::sys::mount::{self, Attributes, attr};
use crate::sys::{Errno, On, path::resolve};
use anyhow::{Result, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Hides what is at each path: a directory behind an empty read-only tmpfs, which all of them share, anything else
/// behind /dev/null. A path that is not there needs no mask. `label` is the SELinux context of the tmpfs.
///
/// # Errors
/// The kernel's, with the path.
pub fn mask(root: &Root, paths: &[String], label: Option<&str>) -> Result<()> {
    let (mut empty, mut null, mut whole) = (None, None, None);
    let mut done = Vec::with_capacity(2 * paths.len() + 2);
    for path in paths {
        let relative = within(path);
        let Some(target) = root.find(relative)? else { continue };
        let mask = if is_directory(&target).on("stat", path)? {
            if may_be_root(relative) && is_root(root, &target, &mut whole).on("stat", path)? {
                bail!("{path} is the root, which cannot be masked");
            }
            match &empty {
                Some(tree) => mount::clone_tree(tree, c"", false).on("clone the mask for", path)?,
                None => {
                    let tree = empty_directory(label).on("make the mask for", path)?;
                    mount::attach(&tree, &target).on("mask", path)?;
                    empty = Some(tree);
                    done.push(target);
                    continue;
                }
            }
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(null_device(root)?),
            };
            mount::clone_tree(null, c"", false).on("clone the mask for", path)?
        };
        mount::attach(&mask, &target).on("mask", path)?;
        done.extend([target, mask]);
    }
    close_together(done.into_iter().chain(empty).chain(null));
    Ok(())
}

fn empty_directory(label: Option<&str>) -> nix::Result<OwnedFd> {
    let context = mount::fsopen(c"tmpfs")?;
    if let Some(label) = label {
        let label = CString::new(label).map_err(|_| Errno::EINVAL)?;
        mount::fsconfig_string(&context, c"context", &label)?;
    }
    mount::fsconfig_string(&context, c"source", c"tmpfs")?;
    mount::fsconfig_flag(&context, c"ro")?;
    mount::fsconfig_create(&context)?;
    mount::fsmount(&context, attr::RDONLY)
}

/// The container's /dev/null, if that is what it is: an image, or another container that shares it, could have put
/// something else there, which a mask would then show (CVE-2025-31133).
fn null_device(root: &Root) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let null =
        root.open_with("dev/null", flags, 0).on("open", "/dev/null, with which /linux/maskedPaths are masked,")?;
    let stat = fstat(&null).on("stat", "/dev/null")?;
    let is_character = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !(is_character && major(stat.st_rdev) == 1 && minor(stat.st_rdev) == 3) {
        bail!(
            "the container's /dev/null is not the null device, with which /linux/maskedPaths are masked: it is to come from \
             /linux/devices, a mount on /dev, or the root file system"
        );
    }
    Ok(null)
}

/// The path beneath the root. What it ends in does not count: a file that is named like a directory is to be protected as well.
fn within(path: &str) -> &str {
    let mut path = path.trim_start_matches('/');
    while let Some(shorter) = path.strip_suffix('/').or_else(|| path.strip_suffix("/.")) {
        path = shorter;
    }
    if path == "." { "" } else { path }
}

/// False for what nearly every container has: in proc and sysfs no link leads to the root.
fn may_be_root(path: &str) -> bool {
    !(path.starts_with("proc/") || path.starts_with("sys/")) || path.split('/').any(|part| part == "..")
}

/// `known` is what the root was found to be.
fn is_root(root: &Root, target: &OwnedFd, known: &mut Option<FileStat>) -> nix::Result<bool> {
    let whole = match known {
        Some(whole) => whole,
        None => known.insert(fstat(root)?),
    };
    let target = fstat(target)?;
    Ok((target.st_dev, target.st_ino) == (whole.st_dev, whole.st_ino))
}

/// Makes what is at each path read-only. Mounts below stay what they are: they are asked for by themselves. `true` beside a path
/// says that by their paths there are none.
///
/// # Errors
/// The kernel's, with the path.
pub fn make_readonly(root: &Root, paths: &[(String, bool)]) -> Result<()> {
    let attributes = Attributes { set: attr::RDONLY, ..Attributes::default() };
    let mut done = Vec::with_capacity(2 * paths.len());
    let mut whole = None;
    for (path, is_lone) in paths {
        let relative = within(path);
        let (found, is_lone) = find_lone(root, relative, *is_lone)?;
        let Some(target) = found else { continue };
        // A mount on the root would lie beneath those who are in the root already.
        if may_be_root(relative) && is_root(root, &target, &mut whole).on("stat", path)? {
            mount::set_attributes(root, attributes, false).on("make read-only", path)?;
            done.push(target);
            continue;
        }
        let tree = match is_lone {
            true => mount::clone_tree_with(&target, c"", false, attributes),
            false => mount::clone_tree(&target, c"", true)
                .and_then(|tree| mount::set_attributes(&tree, attributes, false).map(|()| tree)),
        };
        let tree = tree.on("make read-only", path)?;
        mount::attach(&tree, &target).on("make read-only", path)?;
        done.extend([target, tree]);
    }
    close_together(done);
    Ok(())
}

/// What is at a path, and whether nothing is mounted below it, if that is said of its path: no link leads there, or to a mount.
fn find_lone(root: &Root, path: &str, is_said: bool) -> Result<(Option<OwnedFd>, bool)> {
    if !is_said || root.is_linked() {
        return Ok((root.find(path)?, false));
    }
    match root.open_with(path, OFlag::O_PATH, resolve::NO_SYMLINKS) {
        Ok(found) => Ok((Some(found), true)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok((None, true)),
        // A link, or an error that is told there.
        Err(_) => Ok((root.find(path)?, false)),
    }
}

/// Changes the attributes of mounts that had to be writable while the container was built. The empty path is the root.
///
/// # Errors
/// The kernel's, with the path.
pub fn change(root: &Root, paths: &[String], attributes: Attributes) -> Result<()> {
    for path in paths {
        if path.is_empty() {
            mount::set_attributes(root, attributes, false).on("make read-only", "/")?;
            continue;
        }
        let mount = match root.open_with(path, OFlag::O_PATH, 0) {
            Err(Errno::ENOENT) => continue,
            other => other.on("open", format_args!("/{path}"))?,
        };
        mount::set_attributes(&mount, attributes, false).on("make read-only", format_args!("/{path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn the_end_of_a_path_does_not_count() {
        for (path, relative) in [
            ("/", ""),
            ("//", ""),
            ("/.", ""),
            ("/./", ""),
            ("/etc/passwd", "etc/passwd"),
            ("/etc/passwd/", "etc/passwd"),
            ("//etc/passwd/.//./", "etc/passwd"),
            ("proc/sys", "proc/sys"),
            ("/etc/..", "etc/.."),
            ("/a.", "a."),
            ("/.a/", ".a"),
        ] {
            assert_eq!(within(path), relative, "{path}");
        }
    }
}
