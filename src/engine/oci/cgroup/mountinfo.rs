//! Where hierarchies are mounted, by the table of all mounts: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io::{BufRead, ErrorKind, Read, Result};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::sys::classic::unescape;

/// What is asked for at a time: the kernel puts no more lines together than that takes.
const PORTION: usize = 2048;

/// Where a hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub root: PathBuf,
    is_settled: bool,
}

/// A line of mountinfo that concerns cgroups.
struct Line<'a> {
    root: &'a [u8],
    point: &'a [u8],
    unified: bool,
    super_options: &'a [u8],
}

/// Finds the mount of each hierarchy, all of which are given as /proc/self/cgroup calls them; `None` for one that is not
/// mounted. Where one is mounted more than once, the first mount under /sys/fs/cgroup counts: others are bind mounts made
/// for containers.
///
/// The table is in the order in which mounts were made, and those of cgroups are made when a host boots. What comes after the
/// last of them changes nothing and is not read, for there may be thousands of mounts, and the kernel holds up whoever wants
/// to mount something while it writes them down.
pub fn find(hierarchies: &[&str], mut table: impl Read) -> Result<Vec<Option<Mount>>> {
    let mut found = vec![None; hierarchies.len()];
    let (mut buffer, mut text) = ([0; PORTION], Vec::new());
    while !found.iter().all(is_settled) {
        let count = match table.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        text.extend_from_slice(&buffer[..count]);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut rest = &text[..whole];
        while let line = rest
            && let length @ 1.. = rest.skip_until(b'\n')?
        {
            if let Some(line) = Line::parse(&line[..length - 1]) {
                line.offer(hierarchies, &mut found);
            }
        }
        text.drain(..whole);
    }
    Ok(found)
}

fn is_settled(mount: &Option<Mount>) -> bool {
    mount.as_ref().is_some_and(|mount| mount.is_settled)
}

impl<'a> Line<'a> {
    /// `36 35 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`: the three fields after the lone hyphen, of which the last is
    /// that of the line, and fields 4 and 5.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.rsplit(|byte| *byte == b' ');
        let super_options = fields.next()?;
        let unified = match fields.nth(1)? {
            b"cgroup" => false,
            b"cgroup2" => true,
            _ => return None,
        };
        if fields.next()? != b"-" {
            return None;
        }
        let mut fields = line.split(|byte| *byte == b' ');
        Some(Self { root: fields.nth(3)?, point: fields.next()?, unified, super_options })
    }

    /// Takes the mount for those hierarchies of which it is one, and of which no better one is known.
    fn offer(&self, hierarchies: &[&str], found: &mut [Option<Mount>]) {
        let counts = self.point.starts_with(b"/sys/fs/cgroup");
        let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
        for (controllers, mount) in hierarchies.iter().zip(found) {
            let is_better = if counts { !is_settled(mount) } else { mount.is_none() };
            if is_better && self.holds(controllers) {
                *mount = Some(Mount { point: path(self.point), root: path(self.root), is_settled: counts });
            }
        }
    }

    /// True when this is a mount of the hierarchy that /proc/self/cgroup calls `controllers`.
    fn holds(&self, controllers: &str) -> bool {
        if controllers.is_empty() || self.unified {
            return controllers.is_empty() && self.unified;
        }
        names(controllers.as_bytes()).all(|wanted| names(self.super_options).any(|one| one == wanted))
    }
}

fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        90 31 0:29 /pod /run/ct/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:31 /docker/a /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,xattr,name=systemd\n\
        91 31 0:32 /pod /run/ct/freezer rw - cgroup cgroup rw,freezer\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
        42 32 0:29 /above /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        43 23 0:29 /a\\011b /mnt rw - cgroup cgroup rw,cpu,cpuacct\n";

    /// A table that the kernel hands out a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let part = &self.0[..self.1.min(self.0.len())];
            self.0 = &self.0[part.len()..];
            Ok((&mut &*part).read(buffer).expect("a copy"))
        }
    }

    fn found(hierarchies: &[&str], table: impl Read) -> Vec<Option<(String, String)>> {
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let mounts = find(hierarchies, table).unwrap();
        mounts.into_iter().map(|mount| mount.map(|mount| (text(mount.point), text(mount.root)))).collect()
    }

    #[test]
    fn the_first_mount_below_sys_fs_cgroup_counts() {
        let wanted = ["name=systemd", "", "cpu,cpuacct", "memory", "freezer", "cpuacct"];
        let expected = [
            Some(("/sys/fs/cgroup/with space", "/docker/a")),
            Some(("/sys/fs/cgroup/unified", "/")),
            Some(("/sys/fs/cgroup/cpu,cpuacct", "/")),
            None,
            Some(("/run/ct/freezer", "/pod")),
            Some(("/sys/fs/cgroup/cpu,cpuacct", "/")),
        ];
        let expected = expected.map(|mount| mount.map(|(point, root)| (point.to_owned(), root.to_owned())));
        for portion in 1..=TABLE.len() {
            assert_eq!(found(&wanted, Slow(TABLE.as_bytes(), portion)), expected, "{portion} bytes at a time");
        }
    }

    #[test]
    fn what_follows_the_last_mount_that_counts_is_not_read() {
        let mut table = Slow(TABLE.as_bytes(), 64);
        let expected = Some(("/sys/fs/cgroup/cpu,cpuacct".to_owned(), "/".to_owned()));
        assert_eq!(found(&["cpu,cpuacct"], &mut table), [expected]);
        let rest = std::str::from_utf8(table.0).unwrap();
        assert!(rest.contains("/sys/fs/cgroup/unified"), "left: {rest}");
    }
}
