//! What is outside of the kernel: the directory of state, rtx's own file, devices, programs, the ids of users.

use super::{Check, Subject};
use crate::config::envelope::Sealed;
use crate::config::resctrl;
use crate::engine::oci;
use crate::stages::sealed;
use crate::state;
use crate::sys::{caps, describe, errno_of};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, faccessat};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const AREA: &str = "host";

/// `SYSFS_MAGIC` (linux/magic.h).
const SYSFS: FsType = FsType(0x6265_6572);
/// File systems on which root may write everywhere, and nobody can make anything.
const IN_NAME_ONLY: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];

pub fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = vec![proc(), state_root(subject), room(subject), executable()];
    checks.extend(id_maps(subject));
    checks.extend(devices());
    checks.push(criu(subject));
    checks.push(resctrl());
    checks
}

fn proc() -> Check {
    match std::fs::metadata("/proc/self/ns") {
        Ok(_) => Check::ok(AREA, "/proc", "mounted"),
        Err(error) => {
            let mend = "mount -t proc proc /proc";
            Check::missing(AREA, "/proc", describe(errno_of(&error)), ("no container can be made", mend)).fatal()
        }
    }
}

/// The nearest directory that is there: what is missing below it is made by the first container.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

fn state_root(subject: &Subject<'_>) -> Check {
    let name = format!("state directory {}", subject.root.display());
    let cost = "no container can be made";
    if let Err(error) = state::check_root(subject.root) {
        return Check::missing(AREA, name, format!("{error:#}"), (cost, "choose another with --root")).fatal();
    }
    let there = nearest(subject.root);
    let flags = statvfs(there).map_or(FsFlags::empty(), |stat| stat.flags());
    let may = faccessat(AT_FDCWD, there, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS);
    if flags.contains(FsFlags::ST_RDONLY) {
        let mend = format!("choose another with --root, or mount -o remount,rw what {} is on", there.display());
        return Check::missing(AREA, name, "on a read-only file system", (cost, mend)).fatal();
    }
    if statfs(there).is_ok_and(|stat| IN_NAME_ONLY.contains(&stat.filesystem_type())) {
        let found = format!("{} is no place for files", there.display());
        return Check::missing(AREA, name, found, (cost, "choose another with --root")).fatal();
    }
    if let Err(errno) = may {
        let mend = "choose another with --root, or set XDG_RUNTIME_DIR to a directory of this user's";
        return Check::missing(AREA, name, format!("write {}: {}", there.display(), describe(errno)), (cost, mend))
            .fatal();
    }
    if flags.contains(FsFlags::ST_NOEXEC) {
        // Nothing of rtx's is executed there; a root file system may lie beside it all the same.
        return Check::ok(AREA, name, "can be written to; noexec, which rtx does not mind: it executes nothing there");
    }
    Check::ok(AREA, name, "can be written to")
}

fn room(subject: &Subject<'_>) -> Check {
    let name = "room for state";
    let cost = "containers cannot be created, and changes of limits not recorded";
    match statvfs(nearest(subject.root)) {
        Ok(stat) if stat.blocks() > 0 && stat.blocks_available() == 0 => {
            Check::missing(AREA, name, "the file system is full", (cost, "free space, or choose another with --root"))
        }
        Ok(stat) if stat.files() > 0 && stat.files_available() == 0 => Check::missing(
            AREA,
            name,
            "the file system has no more inodes",
            (cost, "remove files, or choose another with --root"),
        ),
        Ok(stat) if stat.blocks() == 0 => Check::ok(AREA, name, "as much as there is memory"),
        Ok(stat) => Check::ok(AREA, name, format!("{} KiB", stat.blocks_available() * stat.fragment_size() / 1024)),
        Err(errno) => Check::missing(AREA, name, describe(errno), (cost, "choose another with --root")),
    }
}

/// CVE-2019-5736.
fn executable() -> Check {
    let name = "protection of rtx's own file";
    match sealed::open_executable().map(|executable| executable.sealed) {
        Ok(Sealed::ReadonlyMount) => Check::ok(AREA, name, "a read-only mount that nobody else has"),
        Ok(Sealed::NotWritable) => Check::ok(AREA, name, "the file is another user's, and cannot be written to"),
        Ok(Sealed::Memory) => {
            let cost = "every create and exec copies rtx into memory, which takes milliseconds";
            let mend = "as root: boot Linux 5.12 or later; otherwise install rtx so that root owns it";
            Check::missing(AREA, name, "a copy in memory", (cost, mend))
        }
        Err(error) => {
            let mend = "sysctl -w vm.memfd_noexec=1, or boot Linux 5.12 or later, or install rtx so that root owns it";
            Check::missing(AREA, name, format!("{error:#}"), ("no container can be made", mend)).fatal()
        }
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Of an ordinary user; root maps what it likes.
fn id_maps(subject: &Subject<'_>) -> Vec<Check> {
    if nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let cost = "a user namespace maps this user's own id alone, and images with files of other users do not work";
    let mut checks = Vec::new();
    for program in ["newuidmap", "newgidmap"] {
        checks.push(match find_program(program).map(|path| (is_privileged(&path), path)) {
            Some((true, path)) => Check::ok(AREA, program, path.display().to_string()),
            Some((false, path)) => {
                let mend = format!("chmod u+s {}, or setcap cap_setuid,cap_setgid+ep on it", path.display());
                Check::missing(AREA, program, "has no privileges", (cost, mend))
            }
            None => Check::missing(AREA, program, "not installed", (cost, "install the package uidmap (shadow-utils)")),
        });
    }
    let uid = nix::unistd::geteuid().as_raw();
    let user = user_name(uid).unwrap_or_else(|| uid.to_string());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let is_ours = |line: &&str| line.split(':').next().is_some_and(|who| who == user || who == uid.to_string());
        checks.push(match text.lines().find(is_ours) {
            Some(line) => Check::ok(AREA, file, line),
            None => {
                let flag = if file == "/etc/subuid" { "--add-subuids" } else { "--add-subgids" };
                let mend = format!("usermod {flag} 100000-165535 {user}");
                Check::missing(AREA, file, format!("no line for {user}"), (cost, mend))
            }
        });
    }
    if subject.rootless && std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|directory| directory.is_empty()) {
        let cost = format!("state is kept in {}, where it outlives the session", subject.root.display());
        let mend = "log in through a session (pam_systemd), or export XDG_RUNTIME_DIR";
        checks.push(Check::missing(AREA, "XDG_RUNTIME_DIR", "not set", (cost, mend)));
    }
    checks
}

/// setuid, or with capabilities of its own.
fn is_privileged(path: &Path) -> bool {
    let setuid = path.metadata().is_ok_and(|stat| stat.mode() & 0o4000 != 0 && stat.uid() == 0);
    setuid || caps::has_from_file(path)
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn devices() -> Vec<Check> {
    let is_device = |path: &str| std::fs::metadata(path).is_ok_and(|stat| stat.file_type().is_char_device());
    let mut checks = Vec::new();
    // As rtx makes them where it may, and binds the host's where it may not.
    let may_make =
        nix::unistd::geteuid().is_root() && caps::get().is_ok_and(|(effective, _)| effective & (1 << 27) != 0);
    let needed = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let missing: Vec<&str> = needed.into_iter().filter(|path| !is_device(path)).collect();
    checks.push(if may_make {
        Check::ok(AREA, "devices", "they can be made")
    } else if missing.is_empty() {
        Check::ok(AREA, "devices", "they cannot be made (CAP_MKNOD), and are bound from the host")
    } else {
        let cost = "containers get their /dev from the host's, and miss these";
        Check::missing(
            AREA,
            "devices",
            format!("no {}", missing.join(", ")),
            (cost, "mount devtmpfs on /dev, or run rtx with CAP_MKNOD"),
        )
    });
    checks.push(match is_device("/dev/ptmx") {
        true => Check::ok(AREA, "consoles", "/dev/ptmx"),
        false => {
            let mend = "mount -t devpts devpts /dev/pts, and link /dev/ptmx to pts/ptmx";
            Check::missing(AREA, "consoles", "no /dev/ptmx", ("terminal of the foreground cannot be relayed", mend))
        }
    });
    checks.push(match is_device("/dev/net/tun") {
        true => Check::ok(AREA, "/dev/net/tun", "there"),
        false => {
            let cost = "slirp4netns and pasta, which give rootless containers a network, do not work, nor do VPNs in containers";
            Check::missing(AREA, "/dev/net/tun", "not there", (cost, "modprobe tun"))
        }
    });
    checks
}

fn criu(subject: &Subject<'_>) -> Check {
    match oci::checkpoint::criu_version(subject.criu) {
        Ok(version) => Check::ok(AREA, "CRIU", version),
        Err(error) => {
            let mend = "install the package criu, 3.11 or later";
            Check::missing(AREA, "CRIU", format!("{error:#}"), ("checkpoint and restore are refused", mend))
        }
    }
}

fn resctrl() -> Check {
    match resctrl::mount_point() {
        Some(path) => Check::ok(AREA, "resctrl", path.display().to_string()),
        None => {
            let mend = "where the processor has it: mount -t resctrl resctrl /sys/fs/resctrl";
            Check::missing(AREA, "resctrl", "not mounted", ("/linux/intelRdt is refused", mend))
        }
    }
}
