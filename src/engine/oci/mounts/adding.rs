//! What smaster tells stage2 of each mount, when the container is made.

use super::{Kind, Plan};
use crate::engine::oci::cgroup::{ContainerMount, Placement};
use crate::engine::oci::file_system;
use crate::engine::oci::idmap::UserNamespaces;
use crate::engine::oci::namespaces;
use crate::engine::oci::sources::{Source, clone_cgroup, is_block_device, make_room, source_of};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{
    FileSystem, HierarchiesOperation, HierarchyOperation, MountOperation, MountSource, Operation,
};
use crate::sys::mount::{Attributes, attr};
use crate::sys::process::is_initial_cgroup_namespace;
use crate::sys::{Errno, On};
use anyhow::{Context, Result};

/// Where cgroup v2 is on a host that has nothing else.
pub const UNIFIED: &str = "/sys/fs/cgroup";
/// No program, device or set-id file belongs into a cgroup file system, whatever the options say.
const CGROUP_ATTRIBUTES: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// What the mounts of one container depend on beside themselves.
pub struct Surroundings {
    /// smaster may clone mounts of its own mount namespace.
    pub privileged: bool,
    /// And there are detached mounts to clone into.
    pub clones: bool,
    pub cgroup_namespace: bool,
    pub unified: Unified,
    /// Known when they are made, as is the next.
    pub cgroups: Vec<ContainerMount>,
    /// Propagation that a clone of a host's mount gets (`MS_*`), 0 to leave it in the host's peer group.
    pub propagation: u64,
    /// No v1 hierarchy is mounted.
    pub pure_v2: bool,
    /// Where idmapped mounts take their maps from.
    pub user_namespaces: UserNamespaces,
}

/// How a container gets cgroup v2.
#[derive(Debug, Clone, Copy)]
pub struct Unified {
    /// stage2 may mount it, which the owner of a cgroup namespace may (cgroup_namespaces(7)).
    may_mount: bool,
    /// A mount may set the options of the host's, nsdelegate and its kin, to those that it names: so it is in the host's first
    /// cgroup namespace (`apply_cgroup_root_flags` of the kernel).
    sets_options: bool,
}

impl Unified {
    pub fn new(namespaces: &namespaces::Plan, privileged: bool) -> Self {
        let cgroup = libc::CLONE_NEWCGROUP;
        Self {
            may_mount: namespaces.has(cgroup) || privileged && !namespaces.has(libc::CLONE_NEWUSER),
            sets_options: !namespaces.makes(cgroup)
                && namespaces.path(cgroup).is_none_or(|path| is_initial_cgroup_namespace(path)),
        }
    }
}

impl Surroundings {
    /// With the cgroups that are shown.
    pub fn show(&mut self, membership: &Placement) {
        self.cgroups = membership.container_mounts();
        self.pure_v2 = membership.is_pure_v2();
    }
}

impl Plan {
    fn operation(&self, source: MountSource) -> Operation {
        Operation::Mount(Box::new(self.mount_operation(source)))
    }

    fn attributes(&self) -> Attributes {
        Attributes { set: self.options.attr_set, clear: self.options.attr_clear, propagation: 0 }
    }

    fn mount_operation(&self, source: MountSource) -> MountOperation {
        let options = &self.options;
        let mut attributes = self.attributes();
        if self.is_late_readonly() {
            attributes.set &= !attr::RDONLY;
        }
        MountOperation {
            pointer: self.pointer.clone(),
            destination: self.destination.clone(),
            nofollow: options.dest_nofollow,
            source,
            attributes,
            recursive: Attributes { set: options.rec_set, clear: options.rec_clear, propagation: 0 },
            propagation: options.propagation.clone(),
        }
    }

    fn file_system(&self, kind: &str, source: Option<&str>) -> FileSystem {
        let late = self.is_late_readonly();
        FileSystem {
            kind: kind.to_owned(),
            source: source.map(str::to_owned),
            flags: self
                .options
                .sb_flags
                .iter()
                .filter(|flag| !(late && **flag == "ro"))
                .map(|flag| (*flag).to_owned())
                .collect(),
            data: self.data(kind),
            copy_up: self.options.tmpcopyup && kind == "tmpfs",
            label: self.label.clone().filter(|_| kind == "mqueue"),
        }
    }

    /// The options for the file system itself, with the SELinux context that linux.mountLabel gives all that is in it.
    fn data(&self, kind: &str) -> Vec<(String, Option<String>)> {
        let mut data = self.options.data.clone();
        for (key, value) in &mut data {
            // Quotes keep the commas of a context together in the one string of mount(2); fsconfig(2) has a value each.
            if let Some(value) = value.as_mut().filter(|_| key.ends_with("context")) {
                *value = value.trim_matches('"').to_owned();
            }
        }
        // What the kernel labels by itself takes no context; message queues are labelled once they are mounted.
        let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        if let Some(label) = self.label.as_ref().filter(|_| labelled && !data.iter().any(|(key, _)| key == "context")) {
            data.push(("context".to_owned(), Some(label.clone())));
        }
        data
    }

    /// Adds what makes this mount to the batch.
    ///
    /// # Errors
    /// Where the source is missing or may not be cloned.
    pub fn add(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &mut Surroundings) -> Result<()> {
        match &self.kind {
            Kind::New { kind, source } => {
                let file_system = self.file_system(kind, source.as_deref());
                if around.privileged && source.as_deref().is_some_and(is_block_device) {
                    return self.add_block_device(batch, rpc, &file_system);
                }
                batch.push(self.operation(MountSource::FileSystem(file_system)));
                Ok(())
            }
            Kind::Remount => {
                let data: Vec<String> = self
                    .options
                    .data
                    .iter()
                    .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
                    .collect();
                batch.push(self.operation(MountSource::Existing {
                    superblock_flags: self.options.sb_ms_flags,
                    data: data.join(","),
                    bind: self.options.bind.is_some(),
                }));
                Ok(())
            }
            Kind::Bind(source) => {
                if let Some(target) = self.copied_link(source)? {
                    let (pointer, path) = (self.pointer.clone(), self.destination.clone());
                    batch.push(Operation::CopySymlink { pointer, target, path });
                    return Ok(());
                }
                let source = source_of(batch, rpc, source, around)
                    .with_context(|| format!("{}: failed to fulfil mount request", self.pointer))?;
                batch.push(self.operation(source));
                Ok(())
            }
            Kind::Cgroup { version2, .. } if *version2 || around.pure_v2 => self.add_unified(batch, rpc, around),
            Kind::Cgroup { .. } => self.add_hierarchies(batch, rpc, around),
        }
    }

    fn add_block_device(&self, batch: &mut Batch, rpc: &mut RpcClient, file_system: &FileSystem) -> Result<()> {
        make_room(1, batch, rpc)?;
        let tree = file_system::make(file_system, &file_system.data, self.options.attr_set)
            .with_context(|| format!("error mounting {} at /{}", self.pointer, self.destination))?;
        let source = MountSource::Tree { fd: batch.fd(tree), directory: true };
        batch.push(self.operation(source));
        Ok(())
    }

    /// What a source that `copy-symlink` makes anew points at; `None` where it is no link or is to be bound.
    fn copied_link(&self, source: &Source) -> Result<Option<String>> {
        if !self.options.copy_symlink {
            return Ok(None);
        }
        match nix::fcntl::readlink(&source.path) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::EINVAL) => Ok(None),
            Err(errno) => Err(errno)
                .on("readlink", source.path.display())
                .with_context(|| format!("{}: failed to fulfil mount request", self.pointer)),
        }
    }

    /// Read-only is the mount and not the file system, which the host has mounted as well.
    fn mount_unified(&self, batch: &mut Batch) {
        let mut file_system = self.file_system("cgroup2", Some("cgroup"));
        file_system.flags.retain(|flag| flag != "ro");
        batch.push(self.unified(MountSource::FileSystem(file_system)));
    }

    /// Read-only at once: a directory in it would be a cgroup.
    fn unified(&self, source: MountSource) -> Operation {
        Operation::Mount(Box::new(MountOperation { attributes: self.attributes(), ..self.mount_operation(source) }))
    }

    /// Whether cgroup v2 is bound from where the host has it: where it cannot be mounted, and where that would take options from the
    /// host's. Where the mount names some, they are what is wanted.
    pub fn binds_unified(&self, unified: Unified) -> bool {
        !unified.may_mount || unified.sets_options && self.options.data.is_empty()
    }

    fn add_unified(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &mut Surroundings) -> Result<()> {
        let on_host = around.cgroups.iter().find(|cgroup| cgroup.controllers.is_empty());
        let on_host = match on_host {
            Some(unified) => Some(unified.mount.clone()),
            None => around.pure_v2.then(|| UNIFIED.into()),
        };
        let Some(place) = on_host.filter(|_| self.binds_unified(around.unified)) else {
            self.mount_unified(batch);
            return Ok(());
        };
        // As a new mount would be: alone, and nothing to whatever is mounted in the host's.
        let source = match (around.unified.may_mount, around.clones) {
            (true, true) => {
                make_room(1, batch, rpc)?;
                let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
                let tree = clone_cgroup(&place, private).with_context(|| format!("{}: cgroup v2", self.pointer))?;
                MountSource::Tree { fd: batch.fd(tree), directory: true }
            }
            (true, false) => {
                MountSource::HostPath { path: place.display().to_string(), recursive: false, nofollow: false }
            }
            (false, _) => source_of(batch, rpc, &Source::plain(&place), around)?,
        };
        batch.push(self.unified(source));
        Ok(())
    }

    /// The layout of a v1 host: a tmpfs with a directory a hierarchy. With a cgroup namespace each is a mount of the
    /// hierarchy, which shows the namespace's part of it; without, a bind of the container's directory.
    fn add_hierarchies(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &mut Surroundings) -> Result<()> {
        let readonly = self.options.attr_set & attr::RDONLY != 0 && !self.is_late_readonly();
        let mut root = self.file_system("tmpfs", Some("tmpfs"));
        root.flags.retain(|flag| flag != "ro");
        root.data.insert(0, ("mode".into(), Some("755".into())));
        let mut mount = self.mount_operation(MountSource::FileSystem(root));
        mount.attributes.set = (mount.attributes.set | CGROUP_ATTRIBUTES) & !attr::RDONLY;
        let shown: Vec<_> = around.cgroups.iter().filter(|cgroup| !cgroup.controllers.is_empty()).collect();
        make_room(shown.len(), batch, rpc)?;
        let hierarchies = shown.iter().map(|cgroup| self.hierarchy(cgroup, batch, around)).collect::<Result<_>>()?;
        batch.push(Operation::Hierarchies(Box::new(HierarchiesOperation { mount, hierarchies, readonly })));
        Ok(())
    }

    fn hierarchy(
        &self,
        cgroup: &ContainerMount,
        batch: &mut Batch,
        around: &Surroundings,
    ) -> Result<HierarchyOperation> {
        let mut attributes = self.attributes();
        let directory = cgroup.mount.join(&cgroup.path);
        let source = if around.cgroup_namespace {
            attributes.set |= CGROUP_ATTRIBUTES;
            MountSource::FileSystem(new_hierarchy(&cgroup.controllers))
        } else if around.clones {
            let all = Attributes { propagation: around.propagation, ..std::mem::take(&mut attributes) };
            let tree = clone_cgroup(&directory, all)
                .with_context(|| format!("{}: the cgroup of {}", self.pointer, cgroup.name))?;
            MountSource::Tree { fd: batch.fd(tree), directory: true }
        } else {
            MountSource::HostPath { path: directory.display().to_string(), recursive: false, nofollow: false }
        };
        let (name, aliases) = (cgroup.name.clone(), cgroup.aliases.clone());
        Ok(HierarchyOperation { name, source, attributes, aliases })
    }
}

/// A cgroup v1 hierarchy as a new file system: its controllers are flags, a name is an option with a value.
fn new_hierarchy(controllers: &str) -> FileSystem {
    let data = match controllers.strip_prefix("name=") {
        Some(name) => vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))],
        None => controllers.split(',').map(|controller| (controller.to_owned(), None)).collect(),
    };
    FileSystem { kind: "cgroup".into(), source: Some("cgroup".into()), data, ..FileSystem::default() }
}

#[cfg(test)]
mod tests {
    use super::super::{Places, plan};
    use std::path::Path;

    /// What linux.mountLabel makes of the data of one mount.
    fn data(kind: &str, options: &[&str]) -> (Vec<String>, Option<String>) {
        let linux = serde_json::json!({ "mountLabel": "u:r:t:s0:c1,c2" });
        let mount = serde_json::json!({ "destination": "/x", "type": kind, "source": kind, "options": options });
        let plans = plan(
            &[serde_json::from_value(mount).unwrap()],
            Places { bundle: Path::new("/"), rootfs: Path::new("/rootfs") },
            &serde_json::from_value(linux).unwrap(),
            true,
        );
        let file_system = plans.unwrap()[0].file_system(kind, None);
        let word = |(key, value): &(String, Option<String>)| format!("{key}={}", value.as_deref().unwrap_or_default());
        (file_system.data.iter().map(word).collect(), file_system.label)
    }

    #[test]
    fn the_mount_label_is_the_context_of_new_file_systems() {
        let label = "u:r:t:s0:c1,c2".to_owned();
        let context = format!("context={label}");
        assert_eq!(data("tmpfs", &["size=1m"]), (vec!["size=1m".to_owned(), context.clone()], None));
        assert_eq!(data("overlay", &["lowerdir=/a:/b"]).0, ["lowerdir=/a:/b".to_owned(), context]);
        assert_eq!(data("proc", &[]), (vec![], None));
        assert_eq!(data("sysfs", &[]), (vec![], None));
        assert_eq!(data("mqueue", &[]), (vec![], Some(label)));
        // The mount's own holds, without the quotes that mount(2) would want.
        assert_eq!(data("tmpfs", &["context=\"a:b:c:s0:c3,c4\""]).0, ["context=a:b:c:s0:c3,c4"]);
    }
}
