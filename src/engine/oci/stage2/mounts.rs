//! One mount: its file system or tree made detached, its attributes set while nobody can see it, then attached.

use super::copy_up::copy_up;
use super::mount2;
use super::root::{Root, Target, c_string, is_directory};
use crate::engine::oci::{file_system, idmap};
use crate::rpc::operation::{FileSystem, MountOperation, MountSource};
use crate::rpc::server::Context;
use crate::sys::mount::{self, Attributes};
use crate::sys::path::{is_mount_root, mount_id, resolve};
use crate::sys::{Errno, On};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, readlinkat};
use nix::mount::MsFlags;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::symlinkat;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What may be mounted over inside /proc: files that programs such as lxcfs replace to show a container its own
/// limits. Anything else there could hide the masks of /proc from the container's user (CVE-2019-16884).
const REPLACEABLE_IN_PROC: &[&str] = &[
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Performs one mount.
///
/// # Errors
/// With the destination and the pointer of the mount in config.json.
pub fn mount(root: &Root, operation: &MountOperation, context: &mut Context) -> Result<()> {
    let result = match &operation.source {
        MountSource::Tree { fd, directory } => {
            context.take(*fd).and_then(|tree| bind(root, operation, tree, *directory))
        }
        MountSource::HostPath { path, recursive, nofollow } => clone_host_path(path, *recursive, *nofollow)
            .and_then(|(tree, directory)| bind(root, operation, tree, directory)),
        MountSource::Inside { path, recursive, nofollow, map } => clone_inside(root, path, *recursive, *nofollow)
            .and_then(|(tree, directory)| {
                if let Some((namespace, recursive)) = map {
                    idmap::apply(&tree, &context.take(*namespace)?, *recursive, path)?;
                }
                bind(root, operation, tree, directory)
            }),
        MountSource::FileSystem(file_system) => mount_file_system(root, operation, file_system),
        MountSource::Existing { superblock_flags, data, bind } => {
            remount(root, operation, *superblock_flags, data, *bind)
        }
    };
    result.with_context(|| format!("error mounting {} at /{}", operation.pointer, operation.destination))
}

/// A symbolic link in place of a mount (`copy-symlink`).
///
/// # Errors
/// Where something else than this link is there already.
pub fn copy_symlink(root: &Root, pointer: &str, target: &str, path: &str) -> Result<()> {
    let make = || -> Result<()> {
        let (parent, name) = root.parent(path)?;
        match symlinkat(target, &parent, name) {
            Err(Errno::EEXIST) if readlinkat(&parent, name).is_ok_and(|present| present == *target) => Ok(()),
            Err(Errno::EEXIST) => {
                Err(Errno::EEXIST).on("symlink", format_args!("/{path}")).context("something else is there already")?
            }
            other => Ok(other.on("symlink", format_args!("/{path}"))?),
        }
    };
    make().with_context(|| format!("error copying the symbolic link of {pointer} to /{path}"))
}

fn clone_inside(root: &Root, path: &str, recursive: bool, nofollow: bool) -> Result<(OwnedFd, bool)> {
    let shown = format_args!("/{path}");
    let flags = if nofollow { OFlag::O_PATH | OFlag::O_NOFOLLOW } else { OFlag::O_PATH };
    let source = root.open_with(path, flags, 0).on("open", shown)?;
    let tree = mount::clone_tree(&source, c"", recursive).on("clone", shown)?;
    // A private copy, as the sources of the host are: what is mounted on it later does not show in the original.
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    mount::set_attributes(&tree, private, true).on("set the propagation of", shown)?;
    let directory = is_directory(&tree).on("stat", shown)?;
    Ok((tree, directory))
}

pub(super) fn clone_host_path(path: &str, recursive: bool, nofollow: bool) -> Result<(OwnedFd, bool)> {
    let tree = match nofollow {
        true => mount::clone_tree_nofollow(AT_FDCWD, &c_string(path)?, recursive),
        false => mount::clone_tree(AT_FDCWD, &c_string(path)?, recursive),
    }
    .on("open", path)?;
    let directory = is_directory(&tree).on("stat", path)?;
    Ok((tree, directory))
}

fn bind(root: &Root, operation: &MountOperation, tree: OwnedFd, directory: bool) -> Result<()> {
    let target = target(root, operation, if directory { Target::Directory } else { Target::File })?;
    protect_proc(&operation.destination, &target, Some(tree.as_fd()))?;
    dress(&tree, operation)?;
    attach(&tree, &target, directory)
}

fn mount_file_system(root: &Root, operation: &MountOperation, file_system: &FileSystem) -> Result<()> {
    let (target, data) = place(root, operation, file_system)?;
    // What mount(2) refuses the longer way explains.
    if mount2::suffices(operation, file_system, &data)
        && mount2::mount(&target, file_system, &data, operation.attributes.set).is_ok()
    {
        return Ok(());
    }
    mount_at(root, operation, file_system, &target, &data).map(drop)
}

/// Makes and attaches a file system. Returns its root.
pub(super) fn new_file_system(root: &Root, operation: &MountOperation, file_system: &FileSystem) -> Result<OwnedFd> {
    let (target, data) = place(root, operation, file_system)?;
    mount_at(root, operation, file_system, &target, &data)
}

/// The options of a file system, in order.
type Data = Vec<(String, Option<String>)>;

/// Where a new file system goes, and with what options.
fn place(root: &Root, operation: &MountOperation, file_system: &FileSystem) -> Result<(OwnedFd, Data)> {
    let (target, is_made) = match file_system.kind.as_str() {
        // Both have to be where programs, and the masks of this container, expect them, not where a link of the image
        // leads to (CVE-2019-19921).
        "proc" | "sysfs" => (strict_target(root, &operation.destination)?, false),
        _ => root.place(&operation.destination, Target::Directory, operation.nofollow)?,
    };
    // In /proc nobody can make a directory.
    if file_system.kind != "proc" && (!is_made || operation.destination == "proc") {
        protect_proc(&operation.destination, &target, None)?;
    }
    let mut data = file_system.data.clone();
    if !is_made && takes_permissions(file_system) {
        let mode = fstat(&target).on("stat", format_args!("/{}", operation.destination))?.st_mode & 0o7777;
        data.insert(0, ("mode".into(), Some(format!("{mode:o}"))));
    }
    Ok((target, data))
}

fn mount_at(
    root: &Root,
    operation: &MountOperation,
    file_system: &FileSystem,
    target: &OwnedFd,
    data: &[(String, Option<String>)],
) -> Result<OwnedFd> {
    if mount2::is_needed(data) {
        let proc = super::sysctl::open_proc()?;
        let covered = mount_id(&proc, target).ok();
        mount2::mount(target, file_system, data, operation.attributes.set)?;
        // What is at the destination now is the new mount, unless somebody else has put a link in its place.
        let tree = root.target(&operation.destination, Target::Directory)?;
        if covered.is_some() && mount_id(&proc, &tree).ok() == covered {
            bail!("/{}: something else has taken the place of the mount", operation.destination);
        }
        dress(&tree, operation)?;
        return Ok(tree);
    }
    let tree = file_system::make(file_system, data, operation.attributes.set)?;
    if file_system.copy_up {
        copy_up(target, &tree).context("tmpcopyup")?;
    }
    if let Some(label) = &file_system.label {
        mount::set_selinux_label(&tree, &c_string(label)?).on("label", format_args!("/{}", operation.destination))?;
    }
    dress_further(&tree, operation)?;
    attach(&tree, target, true)?;
    Ok(tree)
}

fn target(root: &Root, operation: &MountOperation, kind: Target) -> Result<OwnedFd> {
    root.place(&operation.destination, kind, operation.nofollow).map(|(target, _)| target)
}

/// Whether this is a tmpfs that has to take on the permissions of a directory of the image which it covers. One whose place
/// had to be made is for everybody, which is the kernel's default and what `docker run --tmpfs` relies on.
fn takes_permissions(file_system: &FileSystem) -> bool {
    file_system.kind == "tmpfs" && !file_system.data.iter().any(|(key, _)| key == "mode")
}

fn strict_target(root: &Root, destination: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    root.forget();
    match root.open_with(destination, flags, resolve::NO_SYMLINKS) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => {
            root.target(destination, Target::Directory)?;
            // Again and strictly: a link may have been put there meanwhile (CVE-2023-27561).
            Ok(root.open_with(destination, flags, resolve::NO_SYMLINKS).on("open", format_args!("/{destination}"))?)
        }
        Err(errno @ (Errno::ELOOP | Errno::ENOTDIR)) => {
            Err(errno).on("open", format_args!("/{destination}")).context("must be mounted on ordinary directory")
        }
        Err(errno) => Err(errno).on("open", format_args!("/{destination}"))?,
    }
}

/// Sets all that was asked for, before anyone can see the mount.
fn dress(tree: &OwnedFd, operation: &MountOperation) -> Result<()> {
    if operation.attributes != Attributes::default() {
        mount::set_attributes(tree, operation.attributes, false)
            .on("set the mount options of", &operation.destination)?;
    }
    dress_further(tree, operation)
}

pub(super) fn dress_further(tree: &OwnedFd, operation: &MountOperation) -> Result<()> {
    if operation.recursive != Attributes::default() {
        mount::set_attributes(tree, operation.recursive, true)
            .on("set the recursive mount options of", &operation.destination)?;
    }
    for (propagation, recursive) in &operation.propagation {
        let attributes = Attributes { propagation: *propagation, ..Attributes::default() };
        mount::set_attributes(tree, attributes, *recursive).on("set the propagation of", &operation.destination)?;
    }
    Ok(())
}

fn attach(tree: &OwnedFd, target: &OwnedFd, directory: bool) -> Result<()> {
    match mount::attach(tree, target) {
        // What mount(2) calls "not a directory" is an invalid argument here.
        Err(Errno::EINVAL | Errno::ENOTDIR) if is_directory(target) == Ok(!directory) => {
            let (source, destination) = if directory { ("a directory", "none") } else { ("no directory", "one") };
            bail!("not a directory: what is mounted is {source}, the destination is {destination}")
        }
        other => Ok(other.on("attach", "")?),
    }
}

/// Refuses what would let a mount stand in for /proc, or inside it. Without a source the mount is of another type.
fn protect_proc(destination: &str, target: impl AsFd, source: Option<BorrowedFd>) -> Result<()> {
    let is_proc = |fd: BorrowedFd| Ok::<_, Errno>(fstatfs(fd)?.filesystem_type() == PROC_SUPER_MAGIC);
    let source_is_proc = || source.map_or(Ok(false), is_proc).on("statfs", "the source");
    if destination == "proc" {
        if !source_is_proc()? {
            bail!("/proc cannot be mounted because it is not of type proc");
        }
        return Ok(());
    }
    if is_proc(target.as_fd()).on("statfs", format_args!("/{destination}"))?
        && !REPLACEABLE_IN_PROC.contains(&destination)
        && !source_is_proc()?
    {
        bail!("/{destination} cannot be mounted because it is inside /proc");
    }
    Ok(())
}

fn remount(root: &Root, operation: &MountOperation, flags: u64, data: &str, bind: bool) -> Result<()> {
    let Some(target) = root.find(&operation.destination)? else {
        return Err(Errno::ENOENT).on("remount", format_args!("/{}", operation.destination))?;
    };
    // Where nothing is to be set mount_setattr(2) does not look.
    if is_mount_root(&target) == Some(false) {
        return Err(Errno::EINVAL)
            .on("remount", format_args!("/{}", operation.destination))
            .context("nothing is mounted there that could be changed");
    }
    if !bind {
        let path = format!("/proc/self/fd/{}", target.as_raw_fd());
        let flags = MsFlags::MS_REMOUNT | MsFlags::from_bits_truncate(flags as libc::c_ulong);
        let data = Some(data).filter(|data| !data.is_empty());
        nix::mount::mount(None::<&str>, path.as_str(), None::<&str>, flags, data)
            .on("remount", format_args!("/{}", operation.destination))?;
    }
    dress(&target, operation)
}
