//! What smaster asks stage2 to do. A target is always a path relative to the container's root; descriptors travel
//! beside the message and are named by their index in it.

use crate::sys::mount::Attributes;
use serde::{Deserialize, Serialize};

/// Index of a descriptor in the message that carries the operation.
pub type FdIndex = usize;

/// One step of a container's construction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Operation {
    /// Writes `0` to each cgroup v1 `tasks` file. Since Linux 6.2 the caller's CPU affinity outlives the move into a
    /// cpuset; unless it is to be kept, the process gets what the cpuset has.
    JoinCgroups {
        tasks: Vec<FdIndex>,
        keep_affinity: bool,
    },
    /// setns(2) of a namespace that exists already.
    JoinNamespace {
        fd: FdIndex,
        kind: i32,
        path: String,
    },
    /// unshare(2): namespaces that cannot be made by the clone, because they depend on what was joined before.
    Unshare {
        kinds: i32,
    },
    /// Goes on as a new process, a sibling of this one, in new namespaces: for a pid namespace below a user namespace
    /// that had to be joined first.
    MoveToNamespaces {
        kinds: i32,
        /// Without the host's /proc, which whoever has CAP_SYS_PTRACE in the namespaces would see open there.
        without_proc: bool,
    },
    /// Enters the time namespace that was made for children (time_namespaces(7)), with these lines in
    /// /proc/self/timens_offsets.
    EnterTimeNamespace {
        offsets: String,
    },
    /// User and group 0 of the user namespace, whose maps smaster has written.
    BecomeRoot,
    LoopbackUp,
    Hostname {
        name: String,
    },
    Domainname {
        name: String,
    },
    /// Propagation of every mount of this mount namespace, so that nothing done here is seen outside.
    Isolate {
        propagation: u64,
    },
    /// The root file system becomes a mount of its own; what follows is relative to it.
    OpenRoot(RootOperation),
    Mount(Box<MountOperation>),
    Hierarchies(Box<HierarchiesOperation>),
    /// A symbolic link in place of a mount (`copy-symlink`); anything else in its place is an error.
    CopySymlink {
        pointer: String,
        target: String,
        path: String,
    },
    /// A directory, with its parents, where it is missing.
    Directory {
        path: String,
        mode: u32,
    },
    Devices {
        devices: Vec<DeviceOperation>,
    },
    /// /dev/ptmx, /dev/fd, /dev/std*.
    StandardLinks,
    /// A pseudoterminal of the container's own devpts becomes standard input, output and error; the reply carries its
    /// master.
    OpenConsole(ConsoleOperation),
    /// Runs hooks in the container's namespaces; `state` goes to their standard input.
    RunHooks {
        point: String,
        hooks: Vec<HookOperation>,
        state: String,
    },
    /// The root file system becomes `/`.
    EnterRoot {
        how: EnterRoot,
        propagation: Option<u64>,
    },
    /// Makes mounts read-only that had to be writable until now: "" is the root itself.
    MakeReadonly {
        paths: Vec<String>,
        attributes: Attributes,
    },
    MaskPaths {
        paths: Vec<String>,
        label: Option<String>,
    },
    /// Of each whether nothing can be mounted below it.
    ReadonlyPaths {
        paths: Vec<(String, bool)>,
    },
    /// The compiled seccomp program, to be read from the descriptor and loaded last.
    SeccompProgram {
        fd: FdIndex,
        /// Bytes of it; what follows in the file is not for the kernel.
        length: u64,
    },
    /// Writes below /proc/sys.
    Sysctl {
        entries: Vec<(String, String)>,
    },
}

impl Operation {
    /// Whether the kernel may forget by which signal the process hears of its parent's death (PR_SET_PDEATHSIG(2const)), as it
    /// does of one that has another user or user namespace; or whether another process goes on.
    pub fn changes_identity(&self) -> bool {
        matches!(
            self,
            Self::BecomeRoot | Self::JoinNamespace { .. } | Self::Unshare { .. } | Self::MoveToNamespaces { .. }
        )
    }

    /// Its name, with what it is about where there are several of a kind.
    pub fn label(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split([' ', '(']).next().unwrap_or_default();
        match self {
            Self::Mount(mount) => format!("Mount {}", mount.destination),
            Self::CopySymlink { path, .. } | Self::Directory { path, .. } => format!("{name} {path}"),
            Self::RunHooks { point, .. } => format!("RunHooks {point}"),
            _ => name.to_owned(),
        }
    }
}

/// How the new root becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnterRoot {
    Pivot,
    /// `--no-pivot`: for a host whose root is a ramfs, which cannot be pivoted from.
    Move,
    /// Where there is no mount namespace.
    Chroot,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ConsoleOperation {
    /// In characters; 0 and 0 leave the size to whoever gets the master.
    pub rows: u16,
    pub columns: u16,
    /// Whether it becomes the container's /dev/console.
    pub bind: bool,
    /// Whether rtx copies between it and the caller's terminal, which adds the carriage returns then (ONLCR).
    pub relayed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootOperation {
    /// A detached copy of the root file system; absent where smaster may not make one.
    pub tree: Option<FdIndex>,
    /// Where the root is on the host. The new mount is attached there too, as long as stage2 can reach it, because
    /// hooks look for the container's mounts at this path.
    pub path: String,
    /// Propagation that the copy is yet to get (`MS_*`), or 0.
    pub propagation: u64,
    /// Whether anything is mounted at all.
    pub mount: bool,
    /// Whether that happens in a mount namespace which others use.
    pub on_host: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountOperation {
    /// Where in config.json this mount was asked for, as a JSON pointer; errors name it.
    pub pointer: String,
    pub destination: String,
    /// A symbolic link at the end of the destination is covered itself.
    pub nofollow: bool,
    pub source: MountSource,
    /// Of the mount itself.
    pub attributes: Attributes,
    /// Of the mount and everything below it.
    pub recursive: Attributes,
    /// `MS_SHARED` and its kin, each with whether it holds for the mounts below as well, in order.
    pub propagation: Vec<(u64, bool)>,
}

/// The hierarchies of cgroup v1 as a host has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HierarchiesOperation {
    /// The tmpfs that holds them. What it says of the mounts below and of propagation holds for each hierarchy as well.
    pub mount: MountOperation,
    pub hierarchies: Vec<HierarchyOperation>,
    /// Whether the tmpfs is read-only in the end.
    pub readonly: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HierarchyOperation {
    pub name: String,
    pub source: MountSource,
    /// What the tree does not have yet.
    pub attributes: Attributes,
    /// Symbolic links to it: one for each controller where a hierarchy has several.
    pub aliases: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// A detached tree that smaster has made.
    Tree { fd: FdIndex, directory: bool },
    /// A path of the host, still reachable in this mount namespace: for a smaster that may not clone mounts itself.
    HostPath { path: String, recursive: bool, nofollow: bool },
    /// A place in the root, with what has been mounted there; `map` is a user namespace to map its ids by, and whether
    /// that goes for the mounts below it.
    Inside { path: String, recursive: bool, nofollow: bool, map: Option<(FdIndex, bool)> },
    /// A new file system.
    FileSystem(FileSystem),
    /// The mount that is at the destination already, changed (`remount`).
    Existing { superblock_flags: u64, data: String, bind: bool },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileSystem {
    pub kind: String,
    pub source: Option<String>,
    /// Flags of the superblock by their fsconfig(2) names.
    pub flags: Vec<String>,
    pub data: Vec<(String, Option<String>)>,
    /// Copies what the destination held into the new file system (`tmpcopyup`).
    pub copy_up: bool,
    /// SELinux label of its root, for a file system that takes no `context`.
    pub label: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceOperation {
    /// Where in config.json, or empty for a default device.
    pub pointer: String,
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` with the permission bits.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
    /// A detached mount of the host's node, to attach where a node cannot be made: in a user namespace.
    pub tree: Option<FdIndex>,
    /// The host's path of the node, where smaster may not clone mounts itself.
    pub host_path: Option<String>,
}

/// One hook (runtime-spec config.md, POSIX-platform hooks).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookOperation {
    pub path: String,
    /// Argument 0 included, as execve(2) takes them.
    pub args: Vec<String>,
    /// Absent: the environment of the runtime.
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<i64>,
}
