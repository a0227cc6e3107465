//! Giving a container's cgroup v2 directory to the user who runs in it, who can then make cgroups below. config-linux.md,
//! "Cgroup ownership"; cgroups(7), "Cgroups v2 delegation".

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use super::Created;

/// What a kernel without a list of them lets a delegate have.
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The host's user who is the container's process, if it is to own its cgroup: where it sees no other cgroups and may
/// write to its own.
pub fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespace = |kind| linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == kind);
    let is_alone = namespace(LinuxNamespaceType::Cgroup)?.path().is_none();
    if !is_alone || !spec.mounts().iter().flatten().any(is_writable_cgroup) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    if namespace(LinuxNamespaceType::User).is_none() {
        return Some(uid);
    }
    linux.uid_mappings().iter().flatten().find_map(|map| {
        let offset = uid.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
        map.host_id().checked_add(offset)
    })
}

fn is_writable_cgroup(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten().rev();
    let is_readonly = options.map(String::as_str).find(|option| matches!(*option, "ro" | "rw")) == Some("ro");
    let is_cgroup = mount.source().as_ref().is_some_and(|source| source.as_os_str() == "cgroup");
    is_cgroup && mount.destination().as_path() == "/sys/fs/cgroup" && !is_readonly
}

impl Created {
    /// Gives the directory, and the files in it that decide over nothing but what is below, to that user of the host. Not
    /// on a host with cgroup v1, where that is not safe.
    ///
    /// # Errors
    /// The kernel's, by file.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(open) = self.open.first().filter(|_| self.placement.is_pure_v2()) else { return Ok(()) };
        let place = &open.place;
        let dir = open.dir()?;
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
        let names = if listed.is_empty() { FILES } else { &listed };
        for name in names.lines().chain(["."]) {
            match fchownat(dir, name, Some(Uid::from_raw(uid)), None, AtFlags::empty()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // It is the caller's already, who may give it to nobody else.
                Err(Errno::EPERM) if self.placement.rootless => {}
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("chown {}/{name} to {uid}", place.directory().display()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn owner_with(change: impl Fn(&mut Value)) -> Option<u32> {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": { "cwd": "/", "user": { "uid": 5, "gid": 0 } },
            "mounts": [{ "destination": "/sys/fs/cgroup", "source": "cgroup", "type": "cgroup", "options": ["nosuid"] }],
            "linux": {
                "namespaces": [{ "type": "cgroup" }, { "type": "user" }],
                "uidMappings": [
                    { "containerID": 0, "hostID": 1000, "size": 1 },
                    { "containerID": 1, "hostID": 100_000, "size": 10 },
                ],
            },
        });
        change(&mut spec);
        owner(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn who_owns_the_cgroup() {
        assert_eq!(owner_with(|_| {}), Some(100_004));
        assert_eq!(owner_with(|spec| spec["process"]["user"]["uid"] = json!(0)), Some(1000));
        assert_eq!(owner_with(|spec| spec["process"]["user"]["uid"] = json!(11)), None);
        assert_eq!(owner_with(|spec| spec["linux"]["namespaces"] = json!([{ "type": "cgroup" }])), Some(5));
        assert_eq!(owner_with(|spec| spec["linux"]["namespaces"] = json!([{ "type": "user" }])), None);
        assert_eq!(owner_with(|spec| spec["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/cgroup")), None);
        assert_eq!(owner_with(|spec| spec["mounts"][0]["options"] = json!(["ro"])), None);
        assert_eq!(owner_with(|spec| spec["mounts"][0]["options"] = json!(["ro", "rw"])), Some(100_004));
        assert_eq!(owner_with(|spec| spec["mounts"][0]["source"] = json!("/sys/fs/cgroup")), None);
    }
}
