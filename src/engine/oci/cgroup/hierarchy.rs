//! Which cgroup hierarchies this host has, where they are mounted, and where this process sits in each: one read of
//! /proc/self/cgroup and one of /proc/self/mountinfo. See cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5).

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;

use super::file;

/// One mounted cgroup hierarchy, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The v1 controllers, as /proc/self/cgroup spells them (`cpu,cpuacct`, `name=systemd`); empty for cgroup v2.
    pub controllers: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory of the hierarchy that is visible at the mount point (`/` unless bind-mounted from below).
    pub root: PathBuf,
    /// The cgroup of this process, as /proc/self/cgroup gives it.
    pub own: PathBuf,
}

impl Hierarchy {
    /// True for the cgroup v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// This process's cgroup as a path below the mount point; the mount point itself when it lies outside of it.
    pub fn own_below_mount(&self) -> &Path {
        self.own.strip_prefix(&self.root).unwrap_or(Path::new(""))
    }
}

/// Reads the hierarchies of this host, v1 ones in the order of /proc/self/cgroup and the v2 one last. A hierarchy that
/// is not mounted here is left out.
pub fn discover() -> Result<Vec<Hierarchy>> {
    let membership = file::read(AT_FDCWD, "/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let mounts = file::read_bytes(AT_FDCWD, "/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    parse(&membership, &mounts)
}

/// A line of mountinfo that concerns cgroups.
struct CgroupMount<'a> {
    root: &'a [u8],
    point: &'a [u8],
    unified: bool,
    super_options: &'a [u8],
}

/// Joins the two files. Where a hierarchy is mounted more than once, the mount under /sys/fs/cgroup counts: others are
/// bind mounts made for containers.
pub fn parse(membership: &str, mountinfo: &[u8]) -> Result<Vec<Hierarchy>> {
    let mounts: Vec<CgroupMount> = mountinfo.split(|b| *b == b'\n').filter_map(cgroup_mount).collect();
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else {
            bail!("/proc/self/cgroup: line {line:?} is not ID:CONTROLLERS:PATH");
        };
        let candidates = || mounts.iter().filter(|mount| mount.holds(controllers));
        let mount =
            candidates().find(|mount| mount.point.starts_with(b"/sys/fs/cgroup")).or_else(|| candidates().next());
        if let Some(mount) = mount {
            found.push(Hierarchy {
                controllers: controllers.to_owned(),
                mount: unescape(mount.point),
                root: unescape(mount.root),
                own: PathBuf::from(own),
            });
        }
    }
    found.sort_by_key(Hierarchy::is_unified);
    Ok(found)
}

impl CgroupMount<'_> {
    /// True when this is a mount of the hierarchy that /proc/self/cgroup calls `controllers`.
    fn holds(&self, controllers: &str) -> bool {
        if controllers.is_empty() || self.unified {
            return controllers.is_empty() && self.unified;
        }
        let options: Vec<&[u8]> = self.super_options.split(|b| *b == b',').collect();
        controllers.split(',').all(|wanted| options.contains(&wanted.as_bytes()))
    }
}

/// `36 35 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`: fields 4 and 5, and those after the lone hyphen.
fn cgroup_mount(line: &[u8]) -> Option<CgroupMount<'_>> {
    let mut fields = line.split(|b| *b == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let unified = match fields.next()? {
        b"cgroup" => false,
        b"cgroup2" => true,
        _ => return None,
    };
    Some(CgroupMount { root, point, unified, super_options: fields.nth(1)? })
}

/// Undoes mountinfo's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\').then(|| tail.get(..3)).flatten().and_then(octal);
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        90 31 0:29 /pod /run/ct/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:31 /docker/a /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn joins_membership_and_mounts() {
        let found =
            parse("9:name=systemd:/docker/a/b\n0::/x\n1:cpu,cpuacct:/\n4:memory:/not-mounted\n", MOUNTS).unwrap();
        let mounts: Vec<_> = found.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(mounts, ["/sys/fs/cgroup/with space", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"]);
        assert_eq!(found[0].own_below_mount(), Path::new("b"));
        assert_eq!(found[1].own_below_mount(), Path::new(""));
        assert!(found[2].is_unified());
    }

    #[test]
    fn a_name_with_a_colon_stays_whole() {
        let found = parse("0::/a:b\n", MOUNTS).unwrap();
        assert_eq!(found[0].own, Path::new("/a:b"));
    }
}
