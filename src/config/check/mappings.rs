//! config-linux.md "User namespace mappings" and user_namespaces(7).

use std::ops::Range;

use serde_json::Value;

use super::{Report, integer, linux, list};

/// Lines that /proc/PID/uid_map takes since Linux 4.15.
const MAPPINGS_MAX: usize = 340;

/// One line of a map, as ranges of ids.
pub(super) struct Mapping {
    pub container: Range<i128>,
    pub host: Range<i128>,
}

impl Mapping {
    /// Of the line that it becomes in /proc/PID/uid_map.
    fn line_length(&self) -> usize {
        let Self { container, host } = self;
        format!("{} {} {}\n", container.start, host.start, container.end - container.start).len()
    }
}

/// The well-formed entries of `uidMappings` or `gidMappings`.
pub(super) fn maps_of<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = Mapping> + 'a {
    list(object, name).iter().map(mapping)
}

fn mapping(entry: &Value) -> Mapping {
    let of = |name| integer(entry, name).unwrap_or(0);
    let range = |name| of(name)..of(name) + of("size");
    Mapping { container: range("containerID"), host: range("hostID") }
}

/// Whether the container gets a user namespace of its own, for which the maps are written.
pub(super) fn new_user_namespace(linux: &Value) -> bool {
    linux::namespace(linux, "user").is_some_and(|path| path.is_empty())
}

pub(super) fn check(report: &mut Report, linux: &Value) {
    let user = linux::namespace(linux, "user");
    for (name, id) in [("uidMappings", "uid"), ("gidMappings", "gid")] {
        let at = format!("/linux/{name}");
        let count = list(linux, name).len();
        if user == Some("") && count == 0 {
            report.error(
                at,
                format!("user namespaces enabled, but no {id} mappings found"),
                "add [{\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}], or remove the user namespace",
            );
            continue;
        }
        if user.is_none() && count > 0 {
            report.error(
                at.clone(),
                "user namespace mappings specified, but user namespace isn't enabled in the config",
                "add {\"type\": \"user\"} to linux.namespaces, or remove the mappings",
            );
        }
        if user.is_some_and(|path| !path.is_empty()) && count > 0 {
            report.warning(
                at.clone(),
                "a user namespace that is joined has its maps already; these are ignored",
                "remove them, or the path of the namespace",
            );
        }
        check_list(report, linux, name, &at);
        if user == Some("") && !maps_of(linux, name).any(|map| map.container.contains(&0)) {
            report.warning(
                at,
                format!("{id} 0 of the container is not mapped"),
                "map it, unless the program needs no root inside",
            );
        }
    }
}

/// The rules of the kernel for one map; also for the maps of a mount.
pub(super) fn check_list(report: &mut Report, object: &Value, name: &str, at: &str) {
    let maps: Vec<_> = maps_of(object, name).collect();
    if maps.len() > MAPPINGS_MAX {
        report.error(
            at.to_owned(),
            format!("{} mappings, where Linux takes at most {MAPPINGS_MAX}", maps.len()),
            "join neighbouring ranges",
        );
        // Comparing each with each is for as many as there may be.
        return;
    }
    let bytes: usize = maps.iter().map(Mapping::line_length).sum();
    // The kernel has no smaller pages.
    if bytes >= 4096
        && let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096)
        && bytes >= page as usize
    {
        report.error(
            at.to_owned(),
            format!("{bytes} bytes of mappings, where Linux takes less than a page of {page}"),
            "join neighbouring ranges",
        );
    }
    for (index, map) in maps.iter().enumerate() {
        let entry = &list(object, name)[index];
        let at = || format!("{at}/{index}");
        if integer(entry, "size") == Some(0) {
            report.error(format!("{}/size", at()), "a mapping of no ids: invalid argument", "use a size of 1 or more");
        }
        if map.container.end > 1 << 32 || map.host.end > 1 << 32 {
            report.error(at(), "the mapping goes beyond the last id, 4294967295", "lower the size");
        }
        if let Some(other) = maps[..index].iter().position(|earlier| overlap(&earlier.container, &map.container)) {
            report.error(at(), format!("overlaps with mapping {other} inside the container"), "separate the ranges");
        }
        if let Some(other) = maps[..index].iter().position(|earlier| overlap(&earlier.host, &map.host)) {
            report.error(at(), format!("overlaps with mapping {other} on the host"), "separate the ranges");
        }
    }
}

fn overlap(a: &Range<i128>, b: &Range<i128>) -> bool {
    a.start < b.end && b.start < a.end
}
