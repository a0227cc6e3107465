//! Mounts: every option of the specification's table on tmpfs and on binds, what they land on, and special file systems.

use serde_json::json;

use super::cases;
use crate::support::Bundle;

/// A bind of a directory that holds a file, with `options` besides.
fn bind(b: &mut Bundle, options: &[&str]) {
    b.make_file("source/file", "bound");
    b.bind("source", "/tmp", &[&["bind"], options].concat());
    b.probe(&["--list", "/tmp", "--write", "/tmp", "--write", "/tmp/file", "--read", "/tmp/file"]);
}

/// A tmpfs with `options`.
fn tmpfs(b: &mut Bundle, options: &[&str]) {
    b.mount("/tmp", "tmpfs", "tmpfs", options).probe(&["--list", "/", "--write", "/tmp"]);
}

/// A bind of a directory with a program that is tried.
fn executable(b: &mut Bundle, options: &[&str]) {
    let copy = b.make_dir("source").join("busybox");
    std::fs::copy(b.rootfs().join("bin/busybox"), copy).expect("copy busybox");
    b.bind("source", "/tmp", options).probe(&["--exec", "/tmp/busybox"]);
}

cases! {
    "mounts";
    // binds and their options
    probe bind_directory => |b| bind(b, &[]);
    probe rbind_directory => |b| {
        b.make_file("source/file", "bound");
        b.bind("source", "/tmp", &["rbind"]).probe(&["--list", "/tmp"]);
    };
    probe bind_ro => |b| bind(b, &["ro"]);
    probe bind_rw => |b| bind(b, &["rw"]);
    probe bind_nosuid => |b| bind(b, &["nosuid"]);
    probe bind_nodev => |b| bind(b, &["nodev"]);
    probe bind_noexec => |b| executable(b, &["bind", "noexec"]);
    probe bind_exec => |b| executable(b, &["bind", "exec"]);
    probe bind_ro_nosuid_nodev_noexec => |b| bind(b, &["ro", "nosuid", "nodev", "noexec"]);
    probe bind_noatime => |b| bind(b, &["noatime"]);
    probe bind_relatime => |b| bind(b, &["relatime"]);
    probe bind_strictatime => |b| bind(b, &["strictatime"]);
    probe bind_nodiratime => |b| bind(b, &["nodiratime"]);
    probe bind_noatime_nodiratime_ro => |b| bind(b, &["noatime", "nodiratime", "ro"]);
    probe bind_remount => |b| bind(b, &["remount", "ro"]);
    probe bind_later_option_wins => |b| bind(b, &["ro", "rw", "nosuid", "suid"]);
    probe bind_sync => |b| bind(b, &["sync"]);
    probe bind_dirsync => |b| bind(b, &["dirsync"]);
    probe bind_mand => |b| bind(b, &["mand"]);
    probe bind_iversion => |b| bind(b, &["iversion"]);
    probe bind_unknown_option => |b| bind(b, &["nosuchoption"]);
    probe bind_by_type_alone => |b| {
        b.make_file("source/file", "bound");
        b.bind("source", "/tmp", &["ro"]).probe(&["--list", "/tmp"]);
    };
    probe bind_with_type_none => |b| {
        let source = b.make_dir("source").display().to_string();
        b.mount("/tmp", "none", &source, &["rbind", "ro"]);
    };
    probe bind_without_options => |b| {
        let source = b.make_dir("source").display().to_string();
        b.mount("/tmp", "bind", &source, &[]).remove("/mounts/7/options");
    };
    probe bind_file => |b| {
        b.make_file("source/file", "bound");
        b.bind("source/file", "/etc/passwd", &["bind", "ro"]).probe(&["--read", "/etc/passwd", "--write", "/etc/passwd"]);
    };
    probe bind_file_to_missing_target => |b| {
        b.make_file("source/file", "bound");
        b.bind("source/file", "/srv/deep/file", &["bind"]).probe(&["--read", "/srv/deep/file", "--list", "/srv/deep"]);
    };
    probe bind_directory_to_missing_target => |b| {
        b.make_dir("source");
        b.bind("source", "/srv/a/b/c", &["bind"]).probe(&["--list", "/srv/a"]);
    };
    probe bind_file_over_directory => |b| {
        b.make_file("source/file", "x");
        b.bind("source/file", "/tmp", &["bind"]);
    };
    probe bind_directory_over_file => |b| { b.make_dir("source"); b.bind("source", "/etc/passwd", &["bind"]); };
    probe bind_missing_source => |b| { b.bind("nope", "/tmp", &["bind"]); };
    probe bind_relative_source => |b| {
        b.make_file("source/file", "x");
        b.mount("/tmp", "bind", "source", &["bind"]).probe(&["--list", "/tmp"]);
    };
    probe bind_source_through_link => |b| {
        b.make_file("source/file", "bound");
        b.make_link("link", "source");
        b.bind("link", "/tmp", &["bind"]).probe(&["--list", "/tmp"]);
    };
    probe bind_socket_and_device => |b| {
        b.mount("/tmp/null", "bind", "/dev/null", &["bind"]).probe(&["--list", "/tmp", "--write", "/tmp/null"]);
    };
    probe two_binds_on_one_target => |b| {
        b.make_file("one/first", "");
        b.make_file("two/second", "");
        b.bind("one", "/tmp", &["bind"]).bind("two", "/tmp", &["bind"]).probe(&["--list", "/tmp"]);
    };
    probe nested_binds => |b| {
        b.make_dir("outer/inner");
        b.make_file("deep/file", "x");
        b.bind("outer", "/tmp", &["bind", "ro"]).bind("deep", "/tmp/inner", &["bind", "rw"]).probe(&["--list", "/tmp/inner", "--write", "/tmp", "--write", "/tmp/inner"]);
    };
    probe inner_before_outer => |b| {
        b.make_dir("outer/inner");
        b.make_file("deep/file", "x");
        b.bind("deep", "/tmp/inner", &["bind"]).bind("outer", "/tmp", &["bind"]).probe(&["--list", "/tmp/inner"]);
    };
    probe target_is_absolute_link => |b| {
        b.make_link("rootfs/link", "/tmp");
        bind(b, &[]);
        b.set("/mounts/7/destination", json!("/link"));
    };
    probe target_is_relative_link => |b| {
        b.make_link("rootfs/link", "var/run");
        bind(b, &[]);
        b.set("/mounts/7/destination", json!("/link"));
    };
    probe target_link_escapes => |b| {
        b.make_link("rootfs/link", "../../../../tmp");
        bind(b, &[]);
        b.set("/mounts/7/destination", json!("/link"));
    };
    probe target_is_dangling_link => |b| {
        b.make_link("rootfs/link", "/made/by/link");
        bind(b, &[]);
        b.set("/mounts/7/destination", json!("/link"));
    };
    probe target_with_dots => |b| { bind(b, &[]); b.set("/mounts/7/destination", json!("/etc/../tmp/./")); };
    probe target_above_root => |b| { bind(b, &[]); b.set("/mounts/7/destination", json!("/../../tmp")); };
    // tmpfs and its data
    probe tmpfs_plain => |b| tmpfs(b, &[]);
    probe tmpfs_mode_and_size => |b| tmpfs(b, &["mode=0700", "size=1m"]);
    probe tmpfs_uid_gid => |b| tmpfs(b, &["mode=750", "uid=1000", "gid=1001"]);
    probe tmpfs_nr_inodes => |b| tmpfs(b, &["nr_inodes=100", "size=64k"]);
    probe tmpfs_size_percent => |b| tmpfs(b, &["size=1%"]);
    probe tmpfs_ro => |b| tmpfs(b, &["ro"]);
    probe tmpfs_noexec_nosuid_nodev => |b| tmpfs(b, &["noexec", "nosuid", "nodev"]);
    probe tmpfs_noatime => |b| tmpfs(b, &["noatime"]);
    probe tmpfs_relatime => |b| tmpfs(b, &["relatime"]);
    probe tmpfs_sync_dirsync => |b| tmpfs(b, &["sync", "dirsync"]);
    probe tmpfs_lazytime => |b| tmpfs(b, &["lazytime"]);
    probe tmpfs_silent => |b| tmpfs(b, &["silent"]);
    probe tmpfs_defaults => |b| tmpfs(b, &["defaults"]);
    probe tmpfs_copyup => |b| {
        b.make_file("rootfs/tmp/kept", "x");
        tmpfs(b, &["tmpcopyup"]);
        b.probe(&["--list", "/tmp"]);
    };
    probe tmpfs_copyup_ro => |b| {
        b.make_file("rootfs/tmp/kept", "x");
        tmpfs(b, &["tmpcopyup", "ro"]);
        b.probe(&["--list", "/tmp"]);
    };
    probe tmpfs_keeps_mode_of_target => |b| {
        b.mount("/root", "tmpfs", "tmpfs", &["nosuid"]).probe(&["--list", "/"]);
    };
    probe tmpfs_on_nothing => |b| {
        b.mount("/fresh/place", "tmpfs", "tmpfs", &["nosuid"]).probe(&["--list", "/fresh"]);
    };
    probe tmpfs_bad_data => |b| tmpfs(b, &["size=abc"]);
    probe tmpfs_with_other_source => |b| { b.mount("/tmp", "tmpfs", "my-source", &[]); };
    probe tmpfs_without_source => |b| { b.mount("/tmp", "tmpfs", "", &[]).remove("/mounts/7/source"); };
    // special file systems
    probe proc_ro => |b| { b.mount_options("/proc", &["ro", "nosuid"]); };
    probe proc_hidepid => |b| { b.mount_options("/proc", &["hidepid=2"]); };
    probe proc_after_dev => |b| { let mounts = b.spec["mounts"].as_array_mut().expect("mounts"); mounts.swap(0, 1); };
    probe second_proc => |b| { b.mount("/tmp", "proc", "proc", &["nosuid"]); };
    probe bind_over_proc => |b| { b.make_dir("source"); b.bind("source", "/proc", &["bind"]); };
    probe bind_into_proc => |b| {
        b.make_file("file", "x");
        b.bind("file", "/proc/uptime", &["bind"]).probe(&["--read", "/proc/uptime"]);
    };
    probe bind_into_proc_sys => |b| {
        b.make_file("file", "x");
        b.bind("file", "/proc/sys/kernel/hostname", &["bind"]);
    };
    probe tmpfs_over_proc => |b| { b.mount("/proc", "tmpfs", "tmpfs", &[]); };
    probe no_proc => |b| { b.unmount("/proc"); };
    probe proc_is_link => |b| {
        std::fs::remove_dir(b.host("rootfs/proc")).expect("remove /proc");
        b.make_link("rootfs/proc", "/tmp");
    };
    probe sysfs_rw => |b| { b.mount_options("/sys", &["nosuid", "noexec", "nodev"]); };
    probe no_sysfs => |b| { b.unmount("/sys").unmount("/sys/fs/cgroup"); };
    probe no_cgroup_mount => |b| { b.unmount("/sys/fs/cgroup"); };
    probe cgroup_rw => |b| {
        b.mount_options("/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime"])
            .probe(&["--write", "/sys/fs/cgroup"]);
    };
    probe cgroup_elsewhere => |b| {
        b.unmount("/sys/fs/cgroup").mount("/tmp", "cgroup", "cgroup", &["ro"]).probe(&["--list", "/tmp"]);
    };
    probe cgroup_files => |b| { b.probe(&["--list", "/sys/fs/cgroup", "--read", "/sys/fs/cgroup/pids/pids.max"]); };
    probe shm_size => |b| {
        b.mount_options("/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=1m"])
            .probe(&["--write", "/dev/shm"]);
    };
    probe devpts_options => |b| {
        b.mount_options("/dev/pts", &["newinstance", "ptmxmode=0600", "mode=0600", "max=10"])
            .probe(&["--list", "/dev/pts"]);
    };
    probe no_devpts => |b| { b.unmount("/dev/pts"); };
    probe mqueue_rw => |b| { b.mount_options("/dev/mqueue", &["nosuid"]).probe(&["--write", "/dev/mqueue"]); };
    probe ramfs => |b| { b.mount("/tmp", "ramfs", "ramfs", &["nosuid"]); };
    probe overlay => |b| {
        for dir in ["lower", "upper", "work"] { b.make_file(&format!("{dir}/{dir}-file"), ""); }
        let path = |name: &str| b.host(name).display().to_string();
        let data = [format!("lowerdir={}", path("lower")), format!("upperdir={}", path("upper")), format!("workdir={}", path("work"))];
        std::fs::remove_file(b.host("work/work-file")).expect("empty the work directory");
        b.mount("/tmp", "overlay", "overlay", &[&data[0], &data[1], &data[2]]).probe(&["--list", "/tmp", "--write", "/tmp"]);
    };
    probe unknown_type => |b| { b.mount("/tmp", "nosuchfs", "x", &[]); };
    probe relative_destination => |b| { b.mount("srv", "tmpfs", "tmpfs", &[]); };
    probe no_mounts_at_all => |b| {
        b.args(&["/bin/sh", "-c", "ls -ld / /dev /dev/* /proc/self 2>&1; pwd"]).remove("/mounts").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    };
    probe writable_root => |b| {
        b.set("/root/readonly", json!(false)).probe(&["--write", "/", "--write", "/etc/passwd"]);
    };
    probe read_only_root => |b| {
        b.probe(&["--write", "/", "--write", "/etc/passwd", "--write", "/dev", "--write", "/dev/null"]);
    };
    probe read_only_root_with_writable_mounts => |b| {
        bind(b, &["rw"]);
        b.mount("/root", "tmpfs", "tmpfs", &[]).probe(&["--write", "/root"]);
    };
}
