//! The kernel: its version, the calls that older ones lack, namespaces, filters, labels.

use super::{Check, Subject};
use crate::config::check::apparmor_is_enabled;
use crate::engine::oci::idmap::{IdMap, Maps, UserNamespaces};
use crate::sys::available::{Call, look};
use crate::sys::mount::clone_tree;
use crate::sys::{Errno, clone, describe};
use anyhow::Result;
use nix::fcntl::AT_FDCWD;
use nix::sys::utsname::uname;
use oci_spec::runtime::LinuxIdMappingBuilder;
use std::path::Path;

const AREA: &str = "kernel";
/// The oldest that rtx runs on.
const OLDEST: (u32, u32) = (4, 18);

/// Calls that newer kernels have, since when, and what it costs to do without.
const CALLS: [(Call, &str, &str, &str); 12] = [
    (Call::Clone3, "clone3", "5.3", "the cgroup v2 of a container is joined after its process is made"),
    (
        Call::CloneIntoCgroup,
        "clone3 with CLONE_INTO_CGROUP",
        "5.7",
        "the cgroup v2 of a container is joined by a write, which is slower",
    ),
    (Call::Openat2, "openat2", "5.6", "paths in a container are followed component by component, which is slower"),
    (Call::OpenTree, "open_tree", "5.2", "idmapped mounts are refused, and rtx protects itself by a copy in memory"),
    (Call::MoveMount, "move_mount", "5.2", "mounts are made by path under the container's root"),
    (Call::Fsopen, "fsopen", "5.2", "new file systems are mounted by path under the container's root"),
    (
        Call::MountSetattr,
        "mount_setattr",
        "5.12",
        "idmapped mounts are refused, recursive options are set mount by mount",
    ),
    (Call::PidfdOpen, "pidfd_open", "5.3", "--pidfd-socket is refused, the end of processes is polled for"),
    (Call::PidfdSendSignal, "pidfd_send_signal", "5.1", "signals go to a pid that was checked just before"),
    (Call::PidfdGetfd, "pidfd_getfd", "5.6", "a listener of seccomp may not reach its agent"),
    (Call::CloseRange, "close_range", "5.9", "descriptors are closed one by one"),
    (Call::Faccessat2, "faccessat2", "5.8", "permissions are looked at as the real user"),
];

pub fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = vec![version()];
    checks.extend(CALLS.map(|(call, name, since, cost)| of_call(call, name, since, cost)));
    checks.extend(namespaces(subject));
    checks.push(idmapped_mounts(subject));
    checks.extend(seccomp());
    checks.extend(labels());
    checks
}

fn version() -> Check {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Check::ok(AREA, "version", format!("Linux {release}"));
    }
    let cost = "rtx is not tested on anything older than 4.18, and containers may fail to start";
    Check::missing(AREA, "version", format!("Linux {release}"), (cost, "boot Linux 4.18 or later, better 5.12"))
}

fn of_call(call: Call, name: &str, since: &str, cost: &str) -> Check {
    match look(call) {
        Ok(()) => Check::ok(AREA, name, "there"),
        Err(Errno::ENOSYS) => {
            Check::missing(AREA, name, "not in this kernel", (cost, format!("boot Linux {since} or later")))
        }
        Err(errno) => {
            let mend = "let the seccomp profile that rtx runs under allow it";
            Check::missing(AREA, name, format!("refused: {}", describe(errno)), (cost, mend))
        }
    }
}

/// What a container of the default configuration has.
const COMMON: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

fn can_make(kinds: i32) -> nix::Result<()> {
    clone::hold_namespaces(kinds as u64).map(drop)
}

fn namespaces(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let files = [
        ("mount", "mnt", "CONFIG_NAMESPACES"),
        ("pid", "pid", "CONFIG_PID_NS"),
        ("network", "net", "CONFIG_NET_NS"),
        ("ipc", "ipc", "CONFIG_IPC_NS"),
        ("uts", "uts", "CONFIG_UTS_NS"),
        ("user", "user", "CONFIG_USER_NS"),
        ("cgroup", "cgroup", "CONFIG_CGROUPS"),
        ("time", "time", "CONFIG_TIME_NS, Linux 5.6 or later,"),
    ];
    for (name, file, option) in files {
        let title = format!("{name} namespaces");
        checks.push(if Path::new("/proc/self/ns").join(file).exists() {
            Check::ok(AREA, title, "there")
        } else {
            let cost = format!("a container with {{\"type\": \"{name}\"}} in /linux/namespaces is refused");
            Check::missing(AREA, title, "not in this kernel", (cost, format!("boot a kernel with {option}")))
        });
    }
    let user = can_make(libc::CLONE_NEWUSER | COMMON);
    let direct = if subject.rootless { Err(Errno::EPERM) } else { can_make(COMMON) };
    checks.push(match user {
        Ok(()) => Check::ok(AREA, "making user namespaces", "allowed"),
        Err(errno) => {
            let cost = if subject.rootless {
                "no container can be made"
            } else {
                "containers with mapped ids, and rootless ones, cannot be made"
            };
            let check = Check::missing(AREA, "making user namespaces", describe(errno), (cost, mend_user_namespaces()));
            if direct.is_ok() { check } else { check.fatal() }
        }
    });
    if !subject.rootless {
        checks.push(match direct {
            Ok(()) => Check::ok(AREA, "making other namespaces", "allowed"),
            Err(errno) => {
                let cost = "containers without a user namespace cannot be made";
                let mend = "run rtx with CAP_SYS_ADMIN, and under no seccomp profile that forbids clone";
                let check = Check::missing(AREA, "making other namespaces", describe(errno), (cost, mend));
                if user.is_ok() { check } else { check.fatal() }
            }
        });
    }
    checks
}

/// What forbids it, as far as files say so.
fn mend_user_namespaces() -> String {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "sysctl -w user.max_user_namespaces=15000".to_owned()
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "give rtx an AppArmor profile with `userns,`, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            .to_owned()
    } else {
        "boot a kernel with CONFIG_USER_NS, and run rtx under no seccomp profile or LSM that forbids it".to_owned()
    }
}

fn idmapped_mounts(subject: &Subject<'_>) -> Check {
    let name = "idmapped mounts";
    let cost = "mounts with uidMappings and gidMappings, or idmap, are refused";
    if subject.rootless {
        return Check::missing(AREA, name, "not for an ordinary user", (cost, "run rtx as root"));
    }
    match try_idmap() {
        Ok(()) => Check::ok(AREA, name, "allowed for /"),
        Err(error) => {
            let mend = "boot Linux 5.12 or later, and keep what is mounted on a file system that has them (ext4, xfs, btrfs; tmpfs since 6.3)";
            Check::missing(AREA, name, format!("not for /: {error:#}"), (cost, mend))
        }
    }
}

/// Of a copy of the root mount that is attached nowhere.
fn try_idmap() -> Result<()> {
    let tree = clone_tree(AT_FDCWD, c"/", false)?;
    let map = LinuxIdMappingBuilder::default().container_id(0u32).host_id(100_000u32).size(1u32).build()?;
    let maps = Maps::Own { uids: vec![map], gids: vec![map] };
    UserNamespaces::new(None).apply(&tree, &IdMap { maps, recursive: false }, "/")
}

fn seccomp() -> Vec<Check> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |action: &str| actions.split_whitespace().any(|known| known == action);
    let filters = if has("errno") {
        Check::ok(AREA, "seccomp filters", actions.trim())
    } else {
        let cost = "containers with /linux/seccomp, which callers give to nearly all, are refused";
        Check::missing(
            AREA,
            "seccomp filters",
            "not in this kernel",
            (cost, "boot a kernel with CONFIG_SECCOMP_FILTER"),
        )
    };
    let notify = if has("user_notif") {
        Check::ok(AREA, "seccomp notifications", "there")
    } else {
        let cost = "SCMP_ACT_NOTIFY with /linux/seccomp/listenerPath is refused";
        Check::missing(AREA, "seccomp notifications", "not in this kernel", (cost, "boot Linux 5.0 or later"))
    };
    vec![filters, notify]
}

fn labels() -> Vec<Check> {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let found = |is_there: bool| match (is_there, modules.trim()) {
        (true, _) => "enabled".to_owned(),
        (false, "") => "not enabled".to_owned(),
        (false, modules) => format!("not among the security modules of this kernel ({modules})"),
    };
    let of = |name: &'static str, is_there: bool, property: &str, option: &str| match is_there {
        true => Check::ok(AREA, name, found(true)),
        false => {
            let cost = format!("{property} is refused, and confines nobody");
            let mend = format!("boot with {option} among `lsm=` if this host is to have it, and mount securityfs");
            Check::missing(AREA, name, found(false), (cost, mend))
        }
    };
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    vec![
        of("AppArmor", apparmor_is_enabled(), "/process/apparmorProfile", "apparmor"),
        of("SELinux", selinux, "/process/selinuxLabel", "selinux"),
    ]
}
