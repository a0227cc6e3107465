//! Which cgroup hierarchies this host has, where they are mounted, and where this process sits in each: as /proc/self/cgroup
//! and /proc/self/mountinfo say, or the kernel about /sys/fs/cgroup. See cgroups(7), proc_pid_cgroup(5).

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::mountinfo;
use crate::sys::fd;
use crate::sys::mount::{Shown, shown_at};

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
///
/// # Errors
/// Where /proc does not tell.
pub fn discover() -> Result<Vec<Hierarchy>> {
    let lines = fd::open("/proc/self/cgroup", OFlag::O_RDONLY).and_then(fd::read_lines);
    let lines = lines.map_err(std::io::Error::from).context("read /proc/self/cgroup")?;
    let membership = parse(str::from_utf8(&lines).context("/proc/self/cgroup: a path that is no UTF-8")?)?;
    if let [("", own)] = membership[..]
        && let Some(unified) = alone(own)
    {
        return Ok(vec![unified]);
    }
    let table = fd::open("/proc/self/mountinfo", OFlag::O_RDONLY).map_err(std::io::Error::from);
    let names: Vec<&str> = membership.iter().map(|(controllers, _)| *controllers).collect();
    let mounts = table.and_then(|table| mountinfo::find(&names, File::from(table)));
    let mounts = mounts.context("read /proc/self/mountinfo")?;
    let mounted = |((controllers, own), mount): ((&str, &str), Option<mountinfo::Mount>)| {
        let mountinfo::Mount { point, root, .. } = mount?;
        Some(Hierarchy { controllers: controllers.to_owned(), mount: point, root, own: PathBuf::from(own) })
    };
    let mut found: Vec<Hierarchy> = membership.into_iter().zip(mounts).filter_map(mounted).collect();
    found.sort_by_key(Hierarchy::is_unified);
    Ok(found)
}

/// Whether this host has cgroup v2 alone, by what is at /sys/fs/cgroup: systemd and every runtime go by that.
pub fn is_unified_host() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The v2 hierarchy at /sys/fs/cgroup, on a host that has no other: two calls, where the table of mounts takes three, and the
/// kernel's time for each line up to the one that counts. It would be two for each hierarchy of v1 as well, and with ten of
/// them little would be won. `None` where the path leads to something else, and where the kernel is too old to say.
fn alone(own: &str) -> Option<Hierarchy> {
    let Shown { magic, root, point } = shown_at(c"/sys/fs/cgroup").ok()?;
    let is_it = magic == CGROUP2_SUPER_MAGIC.0 as u64 && point == Path::new("/sys/fs/cgroup");
    is_it.then(|| Hierarchy { controllers: String::new(), mount: point, root, own: PathBuf::from(own) })
}

/// The lines of /proc/self/cgroup: a hierarchy's controllers, and the process's cgroup in it.
fn parse(membership: &str) -> Result<Vec<(&str, &str)>> {
    let fields = |line| {
        let mut fields = str::splitn(line, 3, ':').skip(1);
        match (fields.next(), fields.next()) {
            (Some(controllers), Some(own)) => Ok((controllers, own)),
            _ => bail!("/proc/self/cgroup: line {line:?} is not ID:CONTROLLERS:PATH"),
        }
    };
    membership.lines().map(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_colon_stays_whole() {
        assert_eq!(parse("9:name=systemd:/a\n0::/a:b\n").unwrap(), [("name=systemd", "/a"), ("", "/a:b")]);
        assert!(parse("9:cpu\n").is_err());
    }

    #[test]
    fn the_own_cgroup_is_told_from_the_root_of_the_mount() {
        let below = |root: &str, own: &str| {
            let (mount, root, own) = (PathBuf::from("/m"), PathBuf::from(root), PathBuf::from(own));
            Hierarchy { controllers: String::new(), mount, root, own }.own_below_mount().to_owned()
        };
        assert_eq!(below("/docker/a", "/docker/a/b"), Path::new("b"));
        assert_eq!(below("/docker/a", "/elsewhere"), Path::new(""));
        assert_eq!(below("/", "/"), Path::new(""));
    }
}
