//! What a container must not leave behind: processes, mounts, cgroups, state.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs};

use super::children::is_alive;
use super::runtime::read_lossy;

/// Where cgroup hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Everything that still belongs to container `id` of a bundle and a state directory, in words.
pub fn of(id: &str, bundle: &Path, root: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        processes(id).into_iter().map(|(pid, command)| format!("process {pid} {command}")).collect();
    let bundle = bundle.display().to_string();
    found.extend(mounts_below(&bundle).into_iter().map(|m| format!("mount {m}")));
    found.extend(cgroups(id).into_iter().map(|c| format!("cgroup {}", c.display())));
    if root.join(id).exists() {
        found.push(format!("state directory {}", root.join(id).display()));
    }
    found
}

/// The live processes that are in a cgroup of container `id` or have the id in their command line.
pub fn processes(id: &str) -> Vec<(i32, String)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else { continue };
        let command = read_lossy(&entry.path().join("cmdline")).replace('\0', " ");
        let belongs = command.contains(id) || read_lossy(&entry.path().join("cgroup")).contains(id);
        if belongs && name != own && is_alive(pid) {
            found.push((pid, command));
        }
    }
    found
}

/// The mounts of this mount namespace at or below `dir`.
pub fn mounts_below(dir: &str) -> Vec<String> {
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|p| p.starts_with(dir)).map(str::to_owned).collect()
}

/// Not a directory that a runtime made where it expected a hierarchy.
fn is_cgroup(path: &Path) -> bool {
    const CGROUP: FsWord = 0x27_e0eb;
    const CGROUP2: FsWord = 0x6367_7270;
    statfs(path).is_ok_and(|at| matches!(at.f_type, CGROUP | CGROUP2))
}

/// The cgroup directories whose path contains `id`, in every hierarchy, parents before children.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(CGROUPS)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            // Symbolic links (cpu -> cpu,cpuacct) would be seen twice.
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.path().to_string_lossy().contains(id) && is_cgroup(&entry.path()) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}
