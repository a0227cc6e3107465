//! What the host sees of a container: its process and the files of its cgroups; and what its root file system became.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::support::runtime::read_lossy;

/// The cgroup files that hold what a configuration asks for. Counters and events are not among them.
const CGROUP_FILES: &[&str] = &[
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.swappiness",
    "memory.oom_control",
    "memory.use_hierarchy",
    "memory.kmem.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.cfs_burst_us",
    "cpu.idle",
    "cpu.rt_runtime_us",
    "cpu.rt_period_us",
    "cpuset.cpus",
    "cpuset.mems",
    "cpuset.cpu_exclusive",
    "cpuset.mem_exclusive",
    "pids.max",
    "blkio.weight",
    "blkio.bfq.weight",
    "blkio.leaf_weight",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
    "devices.list",
    "freezer.state",
    "hugetlb.2MB.max",
    "hugetlb.1GB.max",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "cpu.weight",
    "cpu.max",
    "io.max",
    "io.weight",
    "cgroup.freeze",
    "cgroup.type",
    "net_cls.classid",
    "net_prio.ifpriomap",
];

/// What /proc and the cgroup files say about the process.
pub fn look(pid: i32) -> Value {
    let file = |name: &str| read_lossy(&PathBuf::from(format!("/proc/{pid}/{name}"))).trim().to_owned();
    let squeezed = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    json!({
        "oom_score_adj": file("oom_score_adj"),
        "uid_map": squeezed(file("uid_map")),
        "gid_map": squeezed(file("gid_map")),
        "setgroups": file("setgroups"),
        "parent_is_caller": file("status").contains(&format!("PPid:\t{}\n", std::process::id())),
        "cgroups": cgroups(&file("cgroup")),
    })
}

/// Path and files of each hierarchy's cgroup, by controller.
fn cgroups(table: &str) -> Value {
    let mut all = Map::new();
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controller), Some(path)) = (parts.next(), parts.next()) else { continue };
        let name = if controller.is_empty() { "unified" } else { controller.trim_start_matches("name=") };
        // A host with cgroup v2 alone has no directory per hierarchy.
        let mount = Path::new("/sys/fs/cgroup").join(name);
        let mount = if mount.is_dir() { mount } else { PathBuf::from("/sys/fs/cgroup") };
        let dir = mount.join(path.trim_start_matches('/'));
        let mut files = Map::new();
        files.insert("path".to_owned(), json!(path));
        for file in CGROUP_FILES.iter().filter(|f| dir.join(f).exists()) {
            let mut lines: Vec<String> = read_lossy(&dir.join(file)).lines().map(str::to_owned).collect();
            // The other lines of memory.oom_control count events.
            lines.retain(|l| *file != "memory.oom_control" || l.starts_with("oom_kill_disable"));
            // Whether the v2 half of a hybrid host has its files changes with what other programs enable there.
            if file.starts_with("hugetlb.") && lines.iter().any(|l| l == "max" || l.len() > 18) {
                continue;
            }
            files.insert((*file).to_owned(), json!(lines));
        }
        all.insert(name.to_owned(), Value::Object(files));
    }
    Value::Object(all)
}

/// Every file below `root` with type, mode and owner; /bin is left out, its hundreds of links are the test's own.
pub fn tree(root: &Path) -> Value {
    let mut found = Map::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if name == "bin" {
                continue;
            }
            if meta.is_dir() {
                open.push(path);
            }
            found.insert(name, json!(describe(&meta)));
        }
    }
    Value::Object(found)
}

fn describe(meta: &fs::Metadata) -> String {
    let kind = meta.file_type();
    let name = if kind.is_symlink() {
        "link"
    } else if kind.is_dir() {
        "dir"
    } else if kind.is_char_device() || kind.is_block_device() {
        "device"
    } else {
        "file"
    };
    format!("{name} {:o} {}:{}", meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
}
