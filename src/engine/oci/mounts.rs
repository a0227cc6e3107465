//! The mounts of a configuration (runtime-spec config.md, Mounts), as smaster sees them: options become numbers in
//! stage1; sources, which are paths of the host, become detached trees before stage2 hears of them. How each is then
//! attached stands in `stage2/mounts.rs`.

use super::cgroup::ContainerMount;
use crate::config::mount_options::{self, MountOptions};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{FileSystem, MountOperation, MountSource, Operation};
use crate::sys::mount::{Attributes, attr, clone_tree, set_attributes};
use crate::sys::{Errno, On};
use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat};
use oci_spec::runtime::Mount;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One mount, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    pointer: String,
    /// Relative to the root.
    pub destination: String,
    kind: Kind,
    options: MountOptions,
}

#[derive(Debug, Clone)]
enum Kind {
    Bind { source: PathBuf, recursive: bool },
    Remount,
    Cgroup,
    New { kind: String, source: Option<String> },
}

/// No program, device or set-id file belongs into a cgroup file system, whatever the options say.
const CGROUP_ATTRIBUTES: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// What the mounts of one container depend on beside themselves.
pub struct Surroundings<'a> {
    /// smaster may clone mounts of its own mount namespace.
    pub privileged: bool,
    pub cgroup_namespace: bool,
    pub cgroups: &'a [ContainerMount],
    /// Propagation that a clone of a host's mount gets (`MS_*`), 0 to leave it in the host's peer group.
    pub propagation: u64,
    /// No v1 hierarchy is mounted.
    pub pure_v2: bool,
}

/// Decides all mounts, in order.
pub fn plan(mounts: &[Mount], bundle: &Path) -> Vec<Plan> {
    mounts.iter().enumerate().map(|(index, mount)| plan_one(index, mount, bundle)).collect()
}

/// The directory of the container's socket for sd_notify(3), where it looks for it.
pub fn notify_directory(source: PathBuf) -> Plan {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    Plan {
        pointer: "NOTIFY_SOCKET".into(),
        destination: "run/notify".into(),
        kind: Kind::Bind { source, recursive: false },
        options: mount_options::parse(&options),
    }
}

fn plan_one(index: usize, mount: &Mount, bundle: &Path) -> Plan {
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let kind = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone();
    let kind = if options.remount {
        Kind::Remount
    } else if options.bind.is_some() || kind == "bind" {
        let recursive = options.bind.as_ref().is_some_and(|bind| bind.recursive);
        Kind::Bind { source: bundle.join(source.unwrap_or_default()), recursive }
    } else if kind == "cgroup" || kind == "cgroup2" {
        Kind::Cgroup
    } else {
        Kind::New { kind: kind.to_owned(), source: source.map(|source| source.to_string_lossy().into_owned()) }
    };
    Plan { pointer: format!("/mounts/{index}"), destination: relative(mount.destination()), kind, options }
}

/// A path of the container, relative to its root and without `.` and empty components. `..` is left to the kernel,
/// which does not let it leave the root.
pub fn relative(path: &Path) -> String {
    use std::path::Component;
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

impl Plan {
    /// Whether this is a bind onto `/dev`: then the host's devices are there, and none are made.
    pub fn is_bind_on_dev(&self) -> bool {
        self.destination == "dev" && matches!(self.kind, Kind::Bind { .. })
    }

    /// Whether this mount shows the container its cgroups.
    pub fn is_cgroup(&self) -> bool {
        matches!(self.kind, Kind::Cgroup)
    }

    /// Whether the mount may become read-only only when the devices have been made.
    fn is_late_readonly(&self) -> bool {
        let writable_until_late = match &self.kind {
            Kind::New { kind, .. } => kind == "tmpfs" || self.destination == "dev",
            Kind::Cgroup | Kind::Bind { .. } | Kind::Remount => false,
        };
        writable_until_late && self.options.attr_set & attr::RDONLY != 0
    }

    /// The destination, if the mount has to be made read-only at the end.
    pub fn late_readonly(&self) -> Option<String> {
        self.is_late_readonly().then(|| self.destination.clone())
    }

    fn operation(&self, source: MountSource) -> Operation {
        let options = &self.options;
        let mut attributes = Attributes { set: options.attr_set, clear: options.attr_clear, propagation: 0 };
        if self.is_late_readonly() {
            attributes.set &= !attr::RDONLY;
        }
        Operation::Mount(MountOperation {
            pointer: self.pointer.clone(),
            destination: self.destination.clone(),
            source,
            attributes,
            recursive: Attributes { set: options.rec_set, clear: options.rec_clear, propagation: 0 },
            propagation: options.propagation.clone(),
        })
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
            data: self.options.data.clone(),
            copy_up: self.options.tmpcopyup && kind == "tmpfs",
        }
    }

    /// Adds what makes this mount to the batch.
    ///
    /// # Errors
    /// Where the source is missing or may not be cloned.
    pub fn add(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &Surroundings) -> Result<()> {
        match &self.kind {
            Kind::New { kind, source } => {
                let file_system = self.file_system(kind, source.as_deref());
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
            Kind::Bind { source, recursive } => {
                let source = source_of(batch, rpc, source, *recursive, around)
                    .with_context(|| format!("{}: failed to fulfil mount request", self.pointer))?;
                batch.push(self.operation(source));
                Ok(())
            }
            Kind::Cgroup if around.pure_v2 => self.add_unified(batch, rpc, around),
            Kind::Cgroup => self.add_hierarchies(batch, rpc, around),
        }
    }

    fn add_unified(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &Surroundings) -> Result<()> {
        if around.privileged || around.cgroup_namespace {
            let mut file_system = self.file_system("cgroup2", Some("cgroup"));
            file_system.flags.retain(|flag| flag != "ro");
            batch.push(self.operation(MountSource::FileSystem(file_system)));
            return Ok(());
        }
        let source = source_of(batch, rpc, Path::new("/sys/fs/cgroup"), true, around)?;
        batch.push(self.operation(source));
        Ok(())
    }

    /// The layout of a v1 host: a tmpfs with a directory a hierarchy. With a cgroup namespace each is a mount of the
    /// hierarchy, which shows the namespace's part of it; without, a bind of the container's directory.
    fn add_hierarchies(&self, batch: &mut Batch, rpc: &mut RpcClient, around: &Surroundings) -> Result<()> {
        let readonly = self.options.attr_set & attr::RDONLY != 0;
        let mut root = self.file_system("tmpfs", Some("tmpfs"));
        root.flags.retain(|flag| flag != "ro");
        root.data.insert(0, ("mode".into(), Some("755".into())));
        let mut operation = self.operation(MountSource::FileSystem(root));
        if let Operation::Mount(mount) = &mut operation {
            mount.attributes.set = (mount.attributes.set | CGROUP_ATTRIBUTES) & !attr::RDONLY;
        }
        batch.push(operation);
        for cgroup in around.cgroups.iter().filter(|cgroup| !cgroup.controllers.is_empty()) {
            let destination = format!("{}/{}", self.destination, cgroup.name);
            let source = if around.cgroup_namespace {
                MountSource::FileSystem(hierarchy(&cgroup.controllers))
            } else {
                let directory = cgroup.mount.join(&cgroup.path);
                source_of(batch, rpc, &directory, true, around)
                    .with_context(|| format!("{}: the cgroup of {}", self.pointer, cgroup.name))?
            };
            let mut operation = self.operation(source);
            if let Operation::Mount(mount) = &mut operation {
                mount.destination.clone_from(&destination);
                if around.cgroup_namespace {
                    mount.attributes.set |= CGROUP_ATTRIBUTES;
                }
            }
            batch.push(operation);
            for alias in &cgroup.aliases {
                batch.push(Operation::Symlink {
                    target: cgroup.name.clone(),
                    path: format!("{}/{alias}", self.destination),
                });
            }
        }
        if readonly {
            batch.push(Operation::MakeReadonly {
                paths: vec![self.destination.clone()],
                attributes: Attributes { set: attr::RDONLY, ..Attributes::default() },
            });
        }
        Ok(())
    }
}

/// A cgroup v1 hierarchy as a new file system: its controllers are flags, a name is an option with a value.
fn hierarchy(controllers: &str) -> FileSystem {
    let data = match controllers.strip_prefix("name=") {
        Some(name) => vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))],
        None => controllers.split(',').map(|controller| (controller.to_owned(), None)).collect(),
    };
    FileSystem { kind: "cgroup".into(), source: Some("cgroup".into()), data, ..FileSystem::default() }
}

/// A source of the host: a detached tree where smaster may clone one, otherwise the path for stage2.
fn source_of(
    batch: &mut Batch,
    rpc: &mut RpcClient,
    path: &Path,
    recursive: bool,
    around: &Surroundings,
) -> Result<MountSource> {
    if !around.privileged {
        return Ok(MountSource::HostPath { path: path.display().to_string(), recursive });
    }
    if batch.is_full(1) {
        // Descriptors in flight are limited: let stage2 take these before more are made.
        rpc.send(std::mem::take(batch))?;
        rpc.drain()?;
    }
    let tree = clone_path(path, recursive)?;
    if around.propagation != 0 {
        // In the peer group of the host's mount, what the container mounts below would appear on the host.
        let propagation = Attributes { propagation: around.propagation, ..Attributes::default() };
        set_attributes(&tree, propagation, true).on("set the propagation of", path.display())?;
    }
    let stat = fstat(&tree).on("stat", path.display())?;
    let directory = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    Ok(MountSource::Tree { fd: batch.fd(tree), directory })
}

/// A detached clone of what is at a path of the host.
///
/// # Errors
/// The kernel's, as `open PATH: …`.
pub fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL).on("open", path.display())?;
    Ok(clone_tree(AT_FDCWD, &c_path, recursive).on("open", path.display())?)
}
