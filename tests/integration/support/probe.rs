//! The payload of the differential tests: prints, as one JSON object, what a process sees from inside its container.
//!
//! It is compiled on its own (see `payload.rs`), static and with nothing but std, so that it runs in any root file
//! system. Everything is read from /proc and /dev: what cannot be seen there is not reported. Values that differ between
//! two runs of the same bundle by their nature (inode numbers, mount ids, minor numbers of anonymous devices) are left out.
//!
//! Arguments: `--ns NAME=INODE` compares a namespace with the host's, `--write PATH`, `--exec PATH`, `--read PATH`,
//! `--list DIR`, `--notify TEXT` (to NOTIFY_SOCKET) try these and report the result; everything else is reported as argv.

use std::ffi::c_long;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

const UNKNOWN_CALL: c_long = 1000;

/// An object under construction: the text between the braces.
#[derive(Default)]
struct Object(String);

impl Object {
    fn raw(&mut self, key: &str, json: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let _ = write!(self.0, "{}:{json}", quote(key));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &quote(value));
    }

    fn object(&mut self, key: &str, value: Object) {
        self.raw(key, &value.close());
    }

    fn list<S: AsRef<str>>(&mut self, key: &str, items: impl IntoIterator<Item = S>) {
        let items: Vec<String> = items.into_iter().map(|s| quote(s.as_ref())).collect();
        self.raw(key, &format!("[{}]", items.join(",")));
    }

    fn close(self) -> String {
        format!("{{{}}}", self.0)
    }
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn read(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The content of `path` without its last newline, or the error in words.
fn read_or_error(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned(),
        Err(e) => error_name(&e),
    }
}

fn error_name(error: &std::io::Error) -> String {
    format!("error {}", error.raw_os_error().unwrap_or(0))
}

fn sorted(options: &str) -> String {
    let mut parts: Vec<&str> = options.split(',').collect();
    parts.sort_unstable();
    parts.join(",")
}

/// The mount table by mount point; a second mount on the same point gets "#2" and so on. Ids and peer group numbers are
/// dropped; whether there is a peer group, and of what kind, stays.
fn mounts(out: &mut Object) {
    let table = read("/proc/self/mountinfo").unwrap_or_default();
    let mut by_point = Object::default();
    let mut order: Vec<String> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let mut key = left[4].to_owned();
        let again = order.iter().filter(|k| **k == key || k.starts_with(&format!("{key}#"))).count();
        if again > 0 {
            key = format!("{key}#{}", again + 1);
        }
        let kinds: Vec<&str> = left[6..].iter().map(|f| f.split(':').next().unwrap_or("")).collect();
        let mut mount = Object::default();
        mount.text("root", left[3]);
        mount.text("options", &sorted(left[5]));
        mount.text("propagation", &kinds.join(","));
        mount.text("type", right[0]);
        mount.text("source", right.get(1).unwrap_or(&""));
        mount.text("super", &sorted(right.get(2).unwrap_or(&"")));
        by_point.object(&key, mount);
        order.push(key);
    }
    out.object("mounts", by_point);
}

fn status(out: &mut Object) {
    const FIELDS: &[&str] = &[
        "Umask",
        "State",
        "NSpid",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "TracerPid",
        "Threads",
        "CoreDumping",
        "THP_enabled",
    ];
    let text = read("/proc/self/status").unwrap_or_default();
    let mut fields = Object::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if FIELDS.contains(&name) {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            let value = if name.starts_with("Sig") { &value[8..] } else { &value };
            fields.text(name, if name == "NSpid" { pid(value) } else { value });
        }
    }
    out.object("status", fields);
}

/// Only init's pid, 1, is the same each time, and 0, which stands for a process of another namespace.
fn pid(value: &str) -> &str {
    if value == "0" || value == "1" { value } else { "N" }
}

fn limits(out: &mut Object) {
    let text = read("/proc/self/limits").unwrap_or_default();
    let mut fields = Object::default();
    for line in text.lines().skip(1) {
        if line.len() > 26 {
            fields.text(line[..26].trim(), &line[26..].split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    out.object("limits", fields);
}

/// What /proc/self/stat says about sessions, terminals and scheduling (proc_pid_stat(5) numbers the fields from 1).
fn stat(out: &mut Object) {
    let text = read("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("");
    let mut stat = Object::default();
    for (name, number) in
        [("ppid", 4), ("pgrp", 5), ("session", 6), ("tpgid", 8), ("nice", 19), ("rt_priority", 40), ("policy", 41)]
    {
        stat.text(name, if number < 9 { pid(field(number)) } else { field(number) });
    }
    stat.text("has_tty", if field(7) == "0" { "no" } else { "yes" });
    stat.text("pid", pid(&std::process::id().to_string()));
    out.object("stat", stat);
}

fn environment(out: &mut Object) {
    let lossy = |s: &std::ffi::OsStr| String::from_utf8_lossy(s.as_bytes()).into_owned();
    out.list("env", std::env::vars_os().map(|(k, v)| format!("{}={}", lossy(&k), lossy(&v))));
    out.list("argv", std::env::args_os().map(|a| lossy(&a)));
    match std::env::current_dir() {
        Ok(dir) => out.text("cwd", &dir.to_string_lossy()),
        Err(e) => out.text("cwd", &error_name(&e)),
    }
}

/// Open descriptors with their targets; numbers in brackets (of pipes and sockets) are dropped.
fn descriptors(out: &mut Object) {
    let mut fds: Vec<(u32, String)> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().parse().unwrap_or(u32::MAX);
        let target = fs::read_link(entry.path()).map_or_else(|e| error_name(&e), |t| t.to_string_lossy().into_owned());
        // The directory that is being read is open as well.
        if !(target.starts_with("/proc/") && target.ends_with("/fd")) {
            fds.push((number, target.split(":[").next().unwrap_or("").to_owned()));
        }
    }
    fds.sort();
    let mut object = Object::default();
    for (number, target) in fds {
        object.text(&number.to_string(), &target);
    }
    out.object("fds", object);
}

/// Type, mode, owner and device number or link target of every entry of `dir`.
fn listing(dir: &str) -> Object {
    let mut object = Object::default();
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        object.text(&name, &describe(&path));
    }
    object
}

fn describe(path: &Path) -> String {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return error_name(&e),
    };
    let kind = meta.file_type();
    if kind.is_symlink() {
        return format!("link {}", fs::read_link(path).unwrap_or_default().display());
    }
    let name = if kind.is_char_device() {
        format!("char {}", device(meta.rdev()))
    } else if kind.is_block_device() {
        format!("block {}", device(meta.rdev()))
    } else if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        "file".to_owned()
    };
    format!("{name} {:o} {}:{}", meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
}

/// "major:minor"; the minor of a pseudo terminal depends on how many others there are.
fn device(rdev: u64) -> String {
    let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
    if (136..144).contains(&major) { format!("{major}:N") } else { format!("{major}:{minor}") }
}

fn namespaces(out: &mut Object, hosts: &[(String, String)]) {
    let mut object = Object::default();
    for (name, host) in hosts {
        let target = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        object.text(name, if target.to_string_lossy().contains(host.as_str()) { "host" } else { "new" });
    }
    out.object("namespaces", object);
}

fn busybox(args: &[&str]) -> String {
    match Command::new("/bin/busybox").args(args).stdin(Stdio::inherit()).output() {
        Ok(done) => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        Err(e) => error_name(&e),
    }
}

fn terminal(out: &mut Object) {
    let stdin = std::io::stdin().is_terminal();
    let all = [stdin, std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    out.text("terminals", &format!("{all:?}"));
    if stdin {
        out.text("terminal_size", &busybox(&["stty", "size"]));
        out.text("terminal_settings", &busybox(&["stty", "-a"]));
        out.text("console", &describe(Path::new("/dev/console")));
    }
}

/// The names of the session keyrings that can be seen: "_ses" and the container's id where the runtime made one. There
/// are those of others as well.
fn keyrings() -> Vec<String> {
    let keys = read_or_error("/proc/keys");
    keys.lines()
        .filter_map(|l| l.split_once("_ses"))
        .map(|(_, name)| format!("_ses{}", name.split(':').next().unwrap_or("")))
        .collect()
}

fn kernel(out: &mut Object) {
    for (key, path) in [
        ("hostname", "/proc/sys/kernel/hostname"),
        ("domainname", "/proc/sys/kernel/domainname"),
        ("uid_map", "/proc/self/uid_map"),
        ("gid_map", "/proc/self/gid_map"),
        ("setgroups", "/proc/self/setgroups"),
        ("cgroup", "/proc/self/cgroup"),
        ("oom_score_adj", "/proc/self/oom_score_adj"),
        ("personality", "/proc/self/personality"),
        ("comm", "/proc/self/comm"),
        ("timerslack", "/proc/self/timerslack_ns"),
        ("coredump_filter", "/proc/self/coredump_filter"),
    ] {
        let value: Vec<String> =
            read_or_error(path).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        out.list(key, value);
    }
    out.list("keyrings", keyrings());
    // A call that no kernel has: what a filter says of calls that are newer than its profile.
    // SAFETY: there is no such call to do anything.
    let unknown = unsafe { syscall(UNKNOWN_CALL) };
    out.text("unknown_call", &format!("{unknown} {:?}", std::io::Error::last_os_error().raw_os_error()));
    out.text("ioprio", &busybox(&["ionice", "-p", &std::process::id().to_string()]));
    let mut proc_owner = Object::default();
    proc_owner.text("self", &describe(Path::new("/proc/self/fd")));
    out.object("dumpable", proc_owner);
    out.text("root", &describe(Path::new("/")));
}

/// Tries what the arguments ask for and reports "ok" or the error number.
fn attempt(kind: &str, path: &str) -> String {
    let result = match kind {
        "--write" if Path::new(path).is_dir() => {
            let file = format!("{path}/.probe");
            fs::write(&file, b"x").and_then(|()| fs::remove_file(&file))
        }
        "--write" => fs::OpenOptions::new().append(true).open(path).map(|_| ()),
        "--notify" => std::os::unix::net::UnixDatagram::unbound()
            .and_then(|s| s.send_to(path.as_bytes(), std::env::var("NOTIFY_SOCKET").unwrap_or_default()))
            .map(|_| ()),
        "--exec" => Command::new(path).arg("true").stdout(Stdio::null()).status().map(|_| ()),
        _ => return read_or_error(path),
    };
    result.map_or_else(|e| error_name(&e), |()| "ok".to_owned())
}

fn main() {
    let mut out = Object::default();
    let (mut tried, mut listed, mut hosts) = (Object::default(), Object::default(), Vec::new());
    descriptors(&mut out);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match flag.as_str() {
            "--ns" => {
                let value = value();
                let (name, inode) = value.split_once('=').unwrap_or((&value, ""));
                hosts.push((name.to_owned(), inode.to_owned()));
            }
            "--list" => {
                let dir = value();
                listed.object(&dir, listing(&dir));
            }
            "--write" | "--exec" | "--read" | "--notify" => {
                let path = value();
                tried.text(&format!("{} {path}", &flag[2..]), &attempt(&flag, &path));
            }
            _ => {}
        }
    }
    environment(&mut out);
    mounts(&mut out);
    status(&mut out);
    limits(&mut out);
    stat(&mut out);
    namespaces(&mut out, &hosts);
    terminal(&mut out);
    kernel(&mut out);
    out.object("dev", listing("/dev"));
    out.object("tried", tried);
    out.object("listed", listed);
    let _ = writeln!(std::io::stdout(), "{}", out.close());
}
