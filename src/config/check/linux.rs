//! config-linux.md: namespaces and what needs them, devices, masked paths, cgroup path, and the smaller sections.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::document::keyed;
use super::{Report, as_integer, integer, list, names, present, process, scheduling, text};

/// Longest name of a network interface: IFNAMSIZ without the NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// The path of a namespace, empty for a new one, or None if the container shares the host's.
pub(super) fn namespace<'a>(linux: &'a Value, kind: &str) -> Option<&'a str> {
    let entry = list(linux, "namespaces").iter().find(|entry| text(entry, "type") == Some(kind))?;
    Some(text(entry, "path").unwrap_or(""))
}

pub(super) fn check(report: &mut Report, linux: &Value) {
    check_namespaces(report, linux);
    check_needs(report, linux);
    check_paths(report, linux);
    check_devices(report, linux);
    process::check_selinux(report, text(linux, "mountLabel"), || "/linux/mountLabel".to_owned());
    check_net_devices(report, linux);
    check_time_offsets(report, linux);
    check_small_sections(report, linux);
}

fn check_namespaces(report: &mut Report, linux: &Value) {
    let namespaces = list(linux, "namespaces");
    for (index, entry) in namespaces.iter().enumerate() {
        let Some(kind) = text(entry, "type") else { continue };
        let path = text(entry, "path").unwrap_or("");
        if namespaces[..index].iter().any(|earlier| text(earlier, "type") == Some(kind)) {
            report.error(
                format!("/linux/namespaces/{index}"),
                format!(
                    "malformed spec file: duplicated ns {{\"{}\" \"{}\"}}",
                    kind.escape_debug(),
                    path.escape_debug()
                ),
                "name each type once",
            );
        }
        if !path.is_empty() && !path.starts_with('/') {
            report.error(
                format!("/linux/namespaces/{index}/path"),
                format!("namespace path {path:?} must be absolute"),
                "write it as in /proc/1234/ns/net",
            );
        }
    }
}

/// The names, which are at the top of the document: without a section `linux` they would be the host's.
pub(super) fn check_names(report: &mut Report, config: &Value) {
    let linux = present(config, "linux").unwrap_or(&Value::Null);
    for name in ["hostname", "domainname"] {
        if text(config, name).is_some_and(|value| !value.is_empty()) && namespace(linux, "uts").is_none() {
            report.error(
                format!("/{name}"),
                format!("unable to set {name} without a private UTS namespace"),
                "add {\"type\": \"uts\"} to linux.namespaces, or remove it",
            );
        }
    }
}

/// What only makes sense in a namespace of the container's own.
fn check_needs(report: &mut Report, linux: &Value) {
    for name in ["maskedPaths", "readonlyPaths"] {
        if !list(linux, name).is_empty() && namespace(linux, "mount").is_none() {
            report.error(
                format!("/linux/{name}"),
                "unable to restrict sys entries without a private MNT namespace",
                "add {\"type\": \"mount\"} to linux.namespaces, or remove it",
            );
        }
    }
}

fn check_paths(report: &mut Report, linux: &Value) {
    for name in ["maskedPaths", "readonlyPaths"] {
        for (index, path) in list(linux, name).iter().enumerate() {
            let at = || format!("/linux/{name}/{index}");
            match path.as_str() {
                Some("") => report.error(at(), "the path is empty", "remove it, or name an absolute path"),
                Some(path) if name == "maskedPaths" && path.split('/').all(|part| matches!(part, "" | ".")) => {
                    report.error(at(), "the root itself cannot be masked", "name what is to be hidden in it");
                }
                Some(path) if !path.starts_with('/') => report.warning(
                    at(),
                    format!("{path:?} is not absolute; it is taken as relative to /"),
                    format!("write {:?}", format!("/{path}")),
                ),
                _ => {}
            }
        }
    }
    if let Some(path) = text(linux, "cgroupsPath")
        && path.split('/').any(|component| component == "..")
    {
        report.warning(
            "/linux/cgroupsPath",
            format!("{path:?} contains \"..\", which cannot lead above the runtime's cgroup"),
            "write the path without \"..\"",
        );
    }
}

fn check_devices(report: &mut Report, linux: &Value) {
    let mut paths = HashSet::new();
    for (index, device) in list(linux, "devices").iter().enumerate() {
        let at = |name: &str| format!("/linux/devices/{index}/{name}");
        if let Some(path) = text(device, "path") {
            if !path.starts_with('/') {
                report.error(
                    at("path"),
                    format!("device path {path:?} must be absolute"),
                    "write the full path in the container, as in /dev/fuse",
                );
            } else if !paths.insert(path) {
                report.warning(
                    at("path"),
                    format!("{path} is given twice; the first one holds"),
                    "keep one of the two",
                );
            }
        }
        check_file_mode(report, device, &at("fileMode"));
        if text(device, "type").is_none_or(|kind| kind == "p" || !names::DEVICE_TYPES.contains(&kind)) {
            continue;
        }
        // makedev(3): twelve bits and twenty.
        for (name, most) in [("major", (1 << 12) - 1), ("minor", (1 << 20) - 1)] {
            match integer(device, name) {
                None if present(device, name).is_none() => {
                    report.warning(at(name), format!("a device of this type needs \"{name}\"; 0 is assumed"), "add it");
                }
                Some(number) if !(0..=most).contains(&number) => report.error(
                    at(name),
                    format!("{number} is no {name} number of a device"),
                    format!("use a number from 0 to {most}"),
                ),
                _ => {}
            }
        }
    }
}

/// Nine bits of permission. Callers that copy a node of the host give its type as well, as in stat(2).
fn check_file_mode(report: &mut Report, device: &Value, at: &str) {
    let kind = match text(device, "type") {
        Some("b") => 0o060_000,
        Some("p") => 0o010_000,
        _ => 0o020_000,
    };
    if integer(device, "fileMode").is_some_and(|mode| ![0, kind].contains(&(mode & !0o777))) {
        report.error(
            at,
            "a file mode has nine bits",
            "use a decimal number from 0 to 511, as in 438 for the octal 666",
        );
    }
}

fn check_net_devices(report: &mut Report, linux: &Value) {
    let Some(devices) = linux.get("netDevices").and_then(Value::as_object).filter(|map| !map.is_empty()) else {
        return;
    };
    if namespace(linux, "network").is_none() {
        report.error(
            "/linux/netDevices",
            "unable to move network devices without a private NET namespace",
            "add {\"type\": \"network\"} to linux.namespaces",
        );
    }
    let mut names = HashMap::new();
    for (name, device) in devices {
        let renamed = text(device, "name").filter(|renamed| !renamed.is_empty());
        for wrong in [Some(name.as_str()), renamed].into_iter().flatten().filter(|name| !is_interface(name)) {
            report.error(
                keyed("/linux/netDevices", name),
                format!("invalid network device name {wrong:?}"),
                "use 1 to 15 bytes without white space, '/' and ':', and '%' only in one \"%d\"",
            );
        }
        let own = renamed.unwrap_or(name);
        if own.contains('%') {
            continue;
        }
        if let Some(other) = names.insert(own, name) {
            report.error(
                keyed("/linux/netDevices", name),
                format!("{other:?} is to be named {own:?} in the container as well"),
                "give each a name of its own",
            );
        }
    }
}

/// dev_valid_name() of the kernel.
fn is_interface(name: &str) -> bool {
    let valid = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace();
    let is_template = name.matches('%').count() == 1 && name.contains("%d");
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(valid)
        && (is_template || !name.contains('%'))
}

fn check_time_offsets(report: &mut Report, linux: &Value) {
    let Some(offsets) = linux.get("timeOffsets").and_then(Value::as_object).filter(|map| !map.is_empty()) else {
        return;
    };
    if namespace(linux, "time").is_none() {
        report.error(
            "/linux/timeOffsets",
            "time namespace offsets specified, but time namespace isn't enabled in the config",
            "add {\"type\": \"time\"} to linux.namespaces",
        );
    }
    if namespace(linux, "time").is_some_and(|path| !path.is_empty()) {
        report.warning(
            "/linux/timeOffsets",
            "a time namespace that is joined has its offsets already; these are ignored",
            "remove them, or the path of the namespace",
        );
    }
    for (clock, offset) in offsets {
        if !names::TIME_CLOCKS.contains(&clock.as_str()) {
            report.error(
                keyed("/linux/timeOffsets", clock),
                format!("unknown clock {clock:?}"),
                "use boottime or monotonic",
            );
        }
        if integer(offset, "nanosecs").is_some_and(|nanos| nanos >= 1_000_000_000) {
            report.error(
                format!("{}/nanosecs", keyed("/linux/timeOffsets", clock)),
                "a second has 1000000000 nanoseconds: invalid argument",
                "carry the rest into \"secs\"",
            );
        }
    }
}

fn check_small_sections(report: &mut Report, linux: &Value) {
    if let Some(personality) = present(linux, "personality")
        && !list(personality, "flags").is_empty()
    {
        report.error("/linux/personality/flags", "personality flags are not supported", "remove them");
    }
    if let Some(policy) = present(linux, "memoryPolicy") {
        scheduling::check_memory_policy(report, policy);
    }
    for (index, limit) in present(linux, "resources").map_or(&[][..], |r| list(r, "devices")).iter().enumerate() {
        check_device_rule(report, limit, &format!("/linux/resources/devices/{index}"));
    }
}

/// config-linux.md "IntelRdt": each value becomes one line of a file in resctrl.
/// config-linux.md "Allowed Device list".
fn check_device_rule(report: &mut Report, rule: &Value, at: &str) {
    match text(rule, "access") {
        None if present(rule, "access").is_some() => {}
        None | Some("") => report.error(
            format!("{at}/access"),
            "device access cannot be empty",
            "say which of r (read), w (write) and m (mknod)",
        ),
        Some(access) if !access.chars().all(|letter| "rwm".contains(letter)) => report.error(
            format!("{at}/access"),
            format!("{access:?} is no device access"),
            "use only r (read), w (write) and m (mknod)",
        ),
        Some(_) => {}
    }
    for name in ["major", "minor"] {
        if rule.get(name).and_then(as_integer).is_some_and(|number| number < -1) {
            report.error(
                format!("{at}/{name}"),
                format!("a {name} number cannot be negative"),
                "leave it out, or use -1, for every device",
            );
        }
    }
}
