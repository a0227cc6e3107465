//! Where this host has the resctrl file system, and what it offers: cache and memory bandwidth by classes of service
//! (Linux: Documentation/filesystems/resctrl.rst). Called Intel RDT by the runtime-spec; other makers' processors have it
//! too.

use std::path::{Path, PathBuf};

/// Where resctrl is mounted, if it is.
pub fn mount_point() -> Option<PathBuf> {
    find_mount_point(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// The first mount of that type in a table of proc_pid_mountinfo(5).
fn find_mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_resctrl = file_system.split(' ').next() == Some("resctrl");
        is_resctrl.then(|| unescape(mount.split(' ').nth(4).unwrap_or_default()).into())
    })
}

/// Blanks and backslashes stand as three octal digits there.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

/// Whether the processors have a resource that is named in the directory `info`: `L3`, `L3CODE`, `MB`, `L3_MON`.
pub fn has(mount_point: &Path, resource: &str) -> bool {
    mount_point.join("info").join(resource).is_dir()
}

#[cfg(test)]
mod tests {
    use super::find_mount_point;

    #[test]
    fn it_is_where_the_mount_table_says() {
        let table = "22 1 0:20 / /sys rw - sysfs sysfs rw\n\
            40 22 0:36 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw,mba_MBps\n";
        assert_eq!(find_mount_point(table), Some("/sys/fs/resctrl".into()));
        assert_eq!(find_mount_point("40 22 0:36 / /my\\040rdt rw - resctrl x rw\n"), Some("/my rdt".into()));
        // The source may be called anything.
        assert_eq!(find_mount_point("40 22 0:36 / /x rw - tmpfs resctrl rw\n"), None);
    }
}
