//! Which namespaces are made, which are joined, and in what order (runtime-spec config-linux.md, Namespaces).
//!
//! As a rule one clone3(2) makes all of them. Some stage2 makes itself: a cgroup namespace shows the cgroup that its maker is
//! in, so that comes when it has joined its own; a time namespace has its offsets before it is entered; and beside a new user
//! namespace those of IPC and of the network, what is in which is root's as the ids are mapped by then. And where a user namespace is joined, or one is made while others are joined, order decides over privileges: stage2 then
//! starts in the host's namespaces, joins, and goes on as a new process in the new ones. So it does where a pid namespace
//! is joined: a process that is there already could look into what is born there before it has executed, and find this
//! program's file. And so it does where root makes a user namespace: of what has executed in one, prctl(2)'s
//! PR_SET_DUMPABLE keeps nobody out who has its maker's user id, and of root's processes those of other containers may,
//! which have lost their capabilities (`ptrace_may_access` of the kernel asks for them in the namespace of the execution).

use crate::rpc::client::Batch;
use crate::rpc::operation::Operation;
use crate::sys::process::Program;
use crate::sys::{On, fd};
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The plan for the namespaces of one container.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// `CLONE_NEW*` of all that are made.
    pub new: i32,
    /// What is joined: `CLONE_NEW*` and the path.
    pub joined: Vec<(i32, PathBuf)>,
    pub uid_mappings: Vec<LinuxIdMapping>,
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// Lines of /proc/self/timens_offsets.
    pub time_offsets: Option<String>,
    /// Root writes the maps, whoever the process then belongs to.
    by_root: bool,
}

/// Made by stage2 itself.
const LATE: i32 = libc::CLONE_NEWCGROUP | CLONE_NEWTIME;
const CLONE_NEWTIME: i32 = 0x80;

/// `CLONE_NEW*` of a namespace type.
pub fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

impl Plan {
    pub fn new(linux: &Linux) -> Self {
        let mut plan = Self {
            uid_mappings: linux.uid_mappings().clone().unwrap_or_default(),
            gid_mappings: linux.gid_mappings().clone().unwrap_or_default(),
            by_root: nix::unistd::geteuid().is_root(),
            ..Self::default()
        };
        for namespace in linux.namespaces().iter().flatten() {
            let flag = flag(namespace.typ());
            match namespace.path().clone().filter(|path| !path.as_os_str().is_empty()) {
                Some(path) => plan.joined.push((flag, path)),
                None => plan.new |= flag,
            }
        }
        // The user namespace first: it is what gives the right to join the others.
        plan.joined.sort_by_key(|(flag, _)| *flag != libc::CLONE_NEWUSER);
        // Those of a namespace that is joined were fixed by its first process.
        let offsets = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty() && plan.makes(CLONE_NEWTIME));
        plan.time_offsets = offsets.map(|offsets| {
            let line = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
                format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
            };
            offsets.iter().map(line).collect()
        });
        plan
    }

    pub fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    pub fn joins(&self, flag: i32) -> bool {
        self.joined.iter().any(|(kind, _)| *kind == flag)
    }

    pub fn has(&self, flag: i32) -> bool {
        self.makes(flag) || self.joins(flag)
    }

    /// Whether stage2 starts in the host's namespaces and moves.
    pub fn moves(&self) -> bool {
        let user = libc::CLONE_NEWUSER;
        let makes_it_later = self.by_root || !self.joined.is_empty();
        self.joins(user) || self.makes(user) && makes_it_later || self.joins(libc::CLONE_NEWPID)
    }

    /// Whether the maps are written by a user who needs /proc/PID to be that user's for it.
    pub fn maps_as_user(&self) -> bool {
        self.makes(libc::CLONE_NEWUSER) && !self.by_root
    }

    /// What stage2 makes itself. In a new user namespace the IPC and the network namespace too: the root of the message queues,
    /// and what is in /proc/net and /sys/class/net, belong to its root as the ids are mapped when they are made.
    fn late(&self) -> i32 {
        let owned = if self.makes(libc::CLONE_NEWUSER) { libc::CLONE_NEWIPC | libc::CLONE_NEWNET } else { 0 };
        self.new & (LATE | owned)
    }

    /// Whether a namespace is not there as soon as stage2 is.
    pub fn makes_late(&self, flag: i32) -> bool {
        self.late() & flag != 0
    }

    /// `CLONE_NEW*` of the clone itself.
    pub fn clone_flags(&self) -> u64 {
        if self.moves() { 0 } else { (self.new & !self.late()) as u64 }
    }

    /// Joins what is joined. Whether a move follows, whose reply smaster has to read, is [`Self::moves`].
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn join(&self, batch: &mut Batch) -> Result<()> {
        for (kind, path) in &self.joined {
            let fd = batch.fd(open_namespace(path)?);
            batch.push(Operation::JoinNamespace { fd, kind: *kind, path: path.display().to_string() });
        }
        if self.moves() {
            batch.push(Operation::MoveToNamespaces { kinds: self.new & !self.late(), without_proc: false });
        }
        Ok(())
    }

    /// The time namespace, while stage2 still has the user id that its /proc/self belongs to.
    pub fn make_of_clocks(&self, batch: &mut Batch) {
        if self.makes(CLONE_NEWTIME) {
            batch.push(Operation::Unshare { kinds: CLONE_NEWTIME });
            let offsets = self.time_offsets.clone().unwrap_or_default();
            batch.push(Operation::EnterTimeNamespace { offsets });
        }
    }

    /// What is made when stage2 is root of the user namespace.
    pub fn make_late(&self, batch: &mut Batch) {
        let kinds = self.late() & !LATE;
        if kinds != 0 {
            batch.push(Operation::Unshare { kinds });
        }
    }

    /// The cgroup namespace, when the container's cgroups are joined.
    pub fn make_of_cgroups(&self, batch: &mut Batch) {
        if self.makes(libc::CLONE_NEWCGROUP) {
            batch.push(Operation::Unshare { kinds: libc::CLONE_NEWCGROUP });
        }
    }

    /// Writes the maps of a new user namespace (user_namespaces(7)); where this process may not, through
    /// newuidmap(1) and newgidmap(1).
    ///
    /// # Errors
    /// The kernel's or the helper's.
    pub fn write_id_maps(&self, pid: i32) -> Result<()> {
        self.try_write_id_maps(pid)
            .context("map the ids of the user namespace (/linux/uidMappings, /linux/gidMappings)")
    }

    fn try_write_id_maps(&self, pid: i32) -> Result<()> {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if !self.by_root && !is_own(&self.gid_mappings, gid) {
            return id_map_helper("newgidmap", pid, &self.gid_mappings)
                .and_then(|()| id_map_helper("newuidmap", pid, &self.uid_mappings));
        }
        if self.by_root {
            return write_maps(pid, &self.uid_mappings, &self.gid_mappings);
        }
        write(pid, "setgroups", "deny")?;
        write(pid, "gid_map", &lines(&self.gid_mappings))?;
        if is_own(&self.uid_mappings, uid) {
            write(pid, "uid_map", &lines(&self.uid_mappings))
        } else {
            id_map_helper("newuidmap", pid, &self.uid_mappings)
        }
    }

    /// Where the container's user namespace is found, if it has one; `init` is its first process.
    pub fn user_namespace(&self, init: i32) -> Option<PathBuf> {
        let made = || self.makes(libc::CLONE_NEWUSER).then(|| format!("/proc/{init}/ns/user").into());
        self.path(libc::CLONE_NEWUSER).cloned().or_else(made)
    }

    /// Where the container's network namespace is found.
    pub fn network(&self, init: i32) -> PathBuf {
        self.path(libc::CLONE_NEWNET).cloned().unwrap_or_else(|| format!("/proc/{init}/ns/net").into())
    }

    /// The path of a namespace that is joined.
    pub fn path(&self, flag: i32) -> Option<&PathBuf> {
        self.joined.iter().find(|(kind, _)| *kind == flag).map(|(_, path)| path)
    }
}

/// Writes the maps of a user namespace that nobody has written to, as a user who may write any.
///
/// # Errors
/// The kernel's.
pub fn write_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    write(pid, "gid_map", &lines(gids))?;
    write(pid, "uid_map", &lines(uids))
}

/// Whether a map is the one that a user may write by itself: its own id, alone.
fn is_own(mappings: &[LinuxIdMapping], id: u32) -> bool {
    matches!(mappings, [mapping] if mapping.size() == 1 && mapping.host_id() == id)
}

fn lines(mappings: &[LinuxIdMapping]) -> String {
    let line = |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    mappings.iter().map(line).collect()
}

fn write(pid: i32, file: &str, content: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, content)
        .map_err(|error| crate::sys::errno_of(&error))
        .on("write", format_args!("{:?} to {path}", content.trim_end()))
        .map_err(Into::into)
}

fn id_map_helper(program: &str, pid: i32, mappings: &[LinuxIdMapping]) -> Result<()> {
    let numbers = mappings.iter().flat_map(|map| [map.container_id(), map.host_id(), map.size()]);
    let numbers = numbers.map(|number| number.to_string());
    let arguments = [program.to_owned(), pid.to_string()].into_iter().chain(numbers);
    let output = Program::new(program, arguments)
        .and_then(Program::output)
        .on("run", program)
        .context("a user who maps more than the own id needs it: install the package uidmap")?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

fn open_namespace(path: &PathBuf) -> Result<OwnedFd> {
    fd::open(path, OFlag::O_RDONLY | OFlag::O_NOCTTY).on("open the namespace", path.display()).map_err(Into::into)
}
