//! Where cgroups are mounted is found by a look at /sys/fs/cgroup, or in the first lines of the table of mounts: in every
//! layout the same as by the whole table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rtx::engine::oci::cgroup::{Request, plan};

use crate::fallbacks::{ENOSYS, EPERM, runtime_without};
use crate::support::runtime::{Invocation, find_program, next_number, read_lossy};
use crate::support::tracer::{Tracer, name, result};
use crate::support::{Bundle, Container, Runtime, needs_root, own_engine, skip};

/// Says to `inside` that it was started in a layout, and what it has to find there if not what the table says.
const LAYOUT: &str = "RTX_TEST_LAYOUT";
const BY_THE_TABLE: &str = "by the table";
const ID: &str = "c1";
/// Of one call, on a busy machine and by a tracer.
const LIMIT: Duration = Duration::from_secs(120);

/// A shell's functions for what is below. `$one` is where a hierarchy of v1 is mounted; `$dir` is a directory of this test's,
/// and `$own` the name of its cgroups; the hierarchy of v2 keeps the options that the host gave it. After `alone` /proc/self/cgroup says that there is v2 and nothing else.
const PRELUDE: &str = r#"
set -e
dir=$1 own=$2 layout=$3
shift 3
one=$(awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == "cgroup") { print $5; exit } }' /proc/self/mountinfo)
options=$(awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == "cgroup2") { print $(i + 3); exit } }' /proc/self/mountinfo)
nothing() { umount -l -R /sys/fs/cgroup; }
version2() { mkdir -p "$1"; mount -t cgroup2 -o "${options:-rw}" none "$1"; }
alone() { echo "0::${1-/}" > "$dir/membership"; mount --bind "$dir/membership" /proc/$$/cgroup; }
eval "$layout"
exec "$@"
"#;

/// On a host with cgroup v1.
const V1: &[&str] = &[
    ":",
    "umount -l \"$one\"",
    "mkdir \"$dir/a b\"; mount --bind \"$one\" \"$dir/a b\"; umount -l \"$one\"",
    "mkdir \"$dir/a b\"; mount --bind \"$one\" \"$dir/a b\"; nothing; mount -t tmpfs none /sys/fs/cgroup;
     mkdir '/sys/fs/cgroup/c d'; mount --bind \"$dir/a b\" '/sys/fs/cgroup/c d'",
    "mkdir \"$one/$own\" \"$dir/a\"; mount --bind \"$one/$own\" \"$dir/a\"; umount -l \"$one\"; mount --move \"$dir/a\" \"$one\"",
    "mount -t tmpfs none \"$one\"",
    "mount --bind \"$one\" \"$one\"",
    "mkdir \"$one/$own\"; mount --bind \"$one/$own\" \"$one\"",
    "mkdir \"$dir/a\"; mount --rbind /sys/fs/cgroup \"$dir/a\"",
    "mount -t tmpfs none /sys/fs/cgroup/unified || nothing",
    "version2 /sys/fs/cgroup",
    "nothing",
];

/// On every host with cgroup v2, as if it had no other.
const ALONE: &[&str] = &[
    "nothing; version2 /sys/fs/cgroup; alone",
    "nothing; version2 /sys/fs/cgroup; alone /a:b/c",
    "nothing; version2 \"$dir/a b\"; alone",
    "nothing; version2 /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; alone",
    "nothing; version2 /sys/fs/cgroup; mount --bind /sys/fs/cgroup /sys/fs/cgroup; alone /a/b",
    "nothing; version2 \"$dir/a\"; mkdir \"$dir/a/$own\"; mount --bind \"$dir/a/$own\" /sys/fs/cgroup; alone \"/$own/a/b\"",
    "nothing; version2 \"$dir/a\"; mkdir \"$dir/a/$own\"; mount --bind \"$dir/a/$own\" /sys/fs/cgroup; alone /a/b",
    "nothing; alone",
];

/// A name for cgroups, which are removed with it.
struct Own(String);

impl Own {
    fn new() -> Self {
        Self(format!("rtx-test-layout-{}-{}", std::process::id(), next_number()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for line in read_lossy(Path::new("/proc/self/mountinfo")).lines().filter(|line| line.contains(" - cgroup")) {
            let point = Path::new(line.split(' ').nth(4).unwrap_or_default());
            let _ = std::fs::remove_dir(point.join(&self.0));
        }
    }
}

fn has(kind: &str) -> bool {
    read_lossy(Path::new("/proc/self/mountinfo")).lines().any(|line| line.contains(&format!(" - {kind} ")))
}

/// A call in a mount namespace of its own, with cgroups mounted as the script has it.
fn laid_out(call: Invocation, layout: &str, own: &Own, dir: &Path) -> Invocation {
    let dir = dir.display().to_string();
    call.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", PRELUDE, "sh", &dir, &own.0, layout])
}

/// Has `inside` look at a layout, through a wrapper.
fn look(wrapper: &[&str], layout: &str, expected: &str) {
    let (own, dir) = (Own::new(), tempfile::tempdir().expect("make a directory"));
    let program = std::env::current_exe().expect("the path of the tests").display().to_string();
    let words = [wrapper, &[&program, "--exact", "hierarchies::inside", "--nocapture"]].concat();
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let call = Invocation::new(words, dir.path().to_path_buf()).env(LAYOUT, &expected.replace("OWN", &own.0));
    let output = laid_out(call, layout, &own, dir.path()).within(LIMIT).run();
    assert_eq!(output.code, 0, "{layout}\n{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("looked"), "{layout}\n{}{}", output.stdout, output.stderr);
}

/// What the others start again in a layout; by itself it does nothing.
#[test]
fn inside() {
    let Ok(expected) = std::env::var(LAYOUT) else { return };
    let request = Request {
        id: ID,
        cgroups_path: None,
        own_pids: true,
        resources: None,
        systemd: false,
        state: Path::new("/run/rtx"),
        annotations: None,
        rootless: true,
    };
    let places = plan(&request).expect("plan").places;
    let found: BTreeMap<String, PathBuf> =
        places.iter().map(|place| (place.controllers.clone(), place.directory())).collect();
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    match expected.as_str() {
        BY_THE_TABLE => assert_eq!(found, by(&table, &read_lossy(Path::new("/proc/self/cgroup"))), "{table}"),
        path => assert_eq!(found, BTreeMap::from([(String::new(), PathBuf::from(path))]), "{table}"),
    }
    println!("looked");
}

/// The place of the container in each hierarchy, by the whole table.
fn by(table: &str, membership: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in membership.lines() {
        let fields: Vec<&str> = line.splitn(3, ':').collect();
        let [_, controllers, own] = fields[..] else { panic!("{line}") };
        let mounts = table.lines().filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let (kind, options) = (tail.split(' ').next()?, tail.split(' ').nth(2)?);
            let holds = controllers.split(',').all(|wanted| options.split(',').any(|option| option == wanted));
            let is_it = if controllers.is_empty() { kind == "cgroup2" } else { kind == "cgroup" && holds };
            let path = |field| Some(PathBuf::from(head.split(' ').nth(field)?.replace("\\040", " ")));
            is_it.then_some((path(4)?, path(3)?))
        });
        let mounts: Vec<(PathBuf, PathBuf)> = mounts.collect();
        let usual = mounts.iter().find(|(point, _)| point.starts_with("/sys/fs/cgroup"));
        if let Some((point, root)) = usual.or(mounts.first()) {
            let own = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
            found.insert(controllers.to_owned(), (point.clone(), own.to_path_buf()));
        }
    }
    let alone = found.keys().all(String::is_empty);
    let place = |(point, own): (PathBuf, PathBuf)| {
        point.join(if alone { own.parent().unwrap_or(Path::new("")) } else { &own }).join(ID)
    };
    found.into_iter().map(|(controllers, mount)| (controllers, place(mount))).collect()
}

fn without_statmount(errno: i32) -> Vec<String> {
    let program = crate::support::payload::without().display().to_string();
    vec![program, errno.to_string(), "457".to_owned()]
}

#[test]
fn layouts_of_cgroup_v1() {
    needs_root!();
    if !has("cgroup") {
        skip!("this host has no cgroup v1");
    }
    for layout in V1 {
        look(&[], layout, BY_THE_TABLE);
    }
}

#[test]
fn layouts_of_cgroup_v2_alone() {
    needs_root!();
    if !has("cgroup2") {
        skip!("this host has no cgroup v2");
    }
    let mut wrappers = vec![Vec::new()];
    if has_statmount() {
        wrappers.extend([ENOSYS, EPERM].map(without_statmount));
    }
    for wrapper in wrappers {
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        for layout in ALONE {
            look(&wrapper, layout, BY_THE_TABLE);
        }
    }
}

/// The table begins with the lower one. What counts is where the path leads.
#[test]
fn of_mounts_on_each_other_the_upper_one_counts() {
    needs_root!();
    if !has("cgroup2") || !has_statmount() {
        skip!("needs cgroup v2 and Linux 6.8");
    }
    let layout = "nothing; version2 /sys/fs/cgroup; mkdir \"/sys/fs/cgroup/$own\";
        mount --bind \"/sys/fs/cgroup/$own\" /sys/fs/cgroup; alone \"/$own/a/b\"";
    look(&[], layout, "/sys/fs/cgroup/a/c1");
}

fn has_statmount() -> bool {
    let release = read_lossy(Path::new("/proc/sys/kernel/osrelease"));
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(8))
}

/// How much of the table of mounts rtx reads for a container in a layout, `None` where it does not open it; and what the
/// container prints.
fn read_of_the_table(runtime: &Runtime, bundle: &Bundle, layout: &str) -> (Option<i64>, String) {
    let (tracer, own, dir) = (Tracer::new(), Own::new(), tempfile::tempdir().expect("make a directory"));
    let container = Container::new(runtime, bundle);
    let call = tracer.trace("run", container.background("run", &[]));
    let output = laid_out(call, layout, &own, dir.path()).within(LIMIT).run().ok();
    let of_a_process = |trace: &String| {
        let opens = |line: &&str| name(line) == "openat" && line.contains("\"/proc/self/mountinfo\"");
        let begin = trace.lines().position(|line| opens(&line))?;
        let fd = result(trace.lines().nth(begin)?);
        let rest = trace.lines().skip(begin + 1).take_while(|line| !line.starts_with(&format!("close({fd})")));
        Some(rest.filter(|line| line.starts_with(&format!("read({fd},"))).map(result).sum::<i64>())
    };
    let read = tracer.traces("run").iter().filter_map(of_a_process).max();
    (read, output.stdout.replace(&container.id, ID))
}

#[test]
fn the_table_is_read_no_further_than_to_the_cgroups() {
    let runtime = own_engine!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let places = by(&read_lossy(Path::new("/proc/self/mountinfo")), &read_lossy(Path::new("/proc/self/cgroup")));
    let hierarchies = read_lossy(Path::new("/proc/self/cgroup")).lines().count();
    if places.values().filter(|path| path.starts_with("/sys/fs/cgroup")).count() < hierarchies {
        skip!("not every hierarchy is mounted below /sys/fs/cgroup");
    }
    // Each mount doubles what is there.
    let layout = "mkdir \"$dir/m\"; mount -t tmpfs none \"$dir/m\"; cd \"$dir/m\";
        for i in $(seq 9); do mkdir $i; mount --rbind . $i; done; cd /; test $(wc -c < /proc/self/mountinfo) -gt 24000";
    let (read, _) = read_of_the_table(&runtime, &Bundle::shell("true"), layout);
    assert!(read.is_none_or(|bytes| bytes < 12_000), "{read:?} bytes");
}

#[test]
fn cgroup_v2_alone_needs_no_table() {
    let runtime = own_engine!();
    if find_program("strace").is_none() || !has("cgroup2") {
        skip!("needs strace and cgroup v2");
    }
    let bundle = Bundle::shell("grep ^0:: /proc/self/cgroup");
    let (read, expected) = read_of_the_table(&runtime, &bundle, ALONE[0]);
    assert_eq!(read.is_none(), has_statmount(), "{read:?} bytes of the table are read");
    if !has_statmount() {
        return;
    }
    for errno in [ENOSYS, EPERM] {
        let (read, seen) = read_of_the_table(&runtime_without("statmount", errno), &bundle, ALONE[0]);
        assert!(read.is_some_and(|bytes| bytes > 0), "{read:?}");
        assert_eq!(seen, expected);
    }
}

/// Where the host has mounted cgroup v2, and with what options of the hierarchy.
fn version2() -> Option<(String, String)> {
    let table = read_lossy(Path::new("/proc/self/mountinfo"));
    let (place, rest) = table.lines().find_map(|line| line.split_once(" - cgroup2 "))?;
    Some((place.split(' ').nth(4)?.to_owned(), rest.split(' ').nth(1)?.to_owned()))
}

/// A mount in the host's cgroup namespace would set them.
#[test]
fn the_options_of_cgroup_v2_are_left_to_the_host() {
    let runtime = own_engine!();
    needs_root!();
    if let (Some(_), Some((place, _))) = (std::env::var_os("RTX_TEST_GUEST"), version2()) {
        // A runc that was here before has taken it away.
        let status = Command::new("mount").args(["-o", "remount,nsdelegate", &place]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
    let Some(before) = version2().filter(|(_, options)| options.contains("nsdelegate")) else {
        skip!("this host has no cgroup v2 with an option of its own");
    };
    for (namespace, words) in [
        (None, &[][..]),
        (Some("/proc/self/ns/cgroup"), &[]),
        (Some(""), &[]),
        // Back into the first one.
        (Some("/proc/1/ns/cgroup"), &["unshare", "--cgroup"]),
    ] {
        // As it is asked for, and as a mount of its own: no peer of the host's, and nothing of it.
        let mut bundle = Bundle::shell(
            "cat /tmp/cgroup.procs >/dev/null && grep ' /tmp ' /proc/self/mountinfo | grep -c ' ro,[a-z,]* - cgroup2 '",
        );
        bundle.mount("/tmp", "cgroup2", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        match namespace {
            Some(path) => bundle.namespace("cgroup", path),
            None => bundle.without_namespace("cgroup"),
        };
        let runtime = runtime.copy().wrapped(words);
        // In a cgroup namespace of its own rtx does not find its own cgroup in the mount.
        let runtime = if words.is_empty() { runtime } else { runtime.with_flags(&["--cgroup-manager", "disabled"]) };
        let container = Container::new(&runtime, &bundle);
        assert_eq!(container.run(&[]).ok().stdout.trim(), "1", "{namespace:?}");
        assert_eq!(version2().as_ref(), Some(&before), "{namespace:?}");
    }
}
