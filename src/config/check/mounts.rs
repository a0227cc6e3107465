//! config.md "Mounts".

use std::fmt;

use serde_json::Value;

use super::{Report, list, mappings, present, text};
use crate::config::idmap_option;
use crate::config::mount_options::{self, MountOptions};

/// What podman before 5.7 hands on with a named volume, though it has seen to it itself. No bind can mean anything by it.
const VOLUME_OPTIONS: [&str; 3] = ["copy", "nocopy", "volume-opt"];

/// Options of which the later one undoes the earlier.
#[rustfmt::skip]
const OPPOSITES: &[(&str, &str)] = &[
    ("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nosymfollow", "symfollow"),
    ("sync", "async"), ("noatime", "atime"), ("noatime", "strictatime"), ("rro", "rrw"),
];

/// The pointer of a mount, put together where there is something to tell.
#[derive(Clone, Copy)]
struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/mounts/{}", self.0)
    }
}

impl From<At> for String {
    fn from(at: At) -> Self {
        at.to_string()
    }
}

pub(super) fn check(report: &mut Report, config: &Value) {
    for (index, mount) in list(config, "mounts").iter().enumerate() {
        let at = At(index);
        check_destination(report, mount, at);
        let options: Vec<&str> = list(mount, "options").iter().filter_map(|option| option.as_str()).collect();
        let parsed = mount_options::parse(options.iter().copied());
        check_type(report, mount, &parsed, at);
        check_options(report, mount, &options, &parsed, at);
        check_links(report, &parsed, at);
        check_idmap(report, config, mount, &parsed, at);
        for name in ["uidMappings", "gidMappings"].into_iter().filter(|name| !list(mount, name).is_empty()) {
            mappings::check_list(report, mount, name, &format!("{at}/{name}"));
        }
        if list(mount, "uidMappings").is_empty() != list(mount, "gidMappings").is_empty() {
            report.error(at, "an idmapped mount needs both uidMappings and gidMappings", "add the missing one");
        }
    }
}

/// Maps for the ids of a mount, by its own properties or by its options.
fn check_idmap(report: &mut Report, config: &Value, mount: &Value, options: &MountOptions, at: At) {
    let has_maps = !list(mount, "uidMappings").is_empty();
    if !has_maps && options.idmap.is_none() {
        return;
    }
    if options.bind.is_none() {
        report.error(
            at,
            "id-mapped mounts are only supported for bind-mounts",
            "add \"bind\" or \"rbind\" to the options, or remove the maps",
        );
    }
    let linux = present(config, "linux");
    let user = linux.and_then(|linux| super::linux::namespace(linux, "user"));
    match &options.idmap_ranges {
        Some(_) if has_maps => report.error(
            format!("{at}/options"),
            "idmap= gives maps, and so do uidMappings and gidMappings",
            "keep one of the two",
        ),
        // Ranges of ids of the container are translated by its maps, which are known only later.
        Some(ranges) => {
            if let Err(wrong) = idmap_option::parse(&ranges.replace('@', ""), &[], &[]) {
                report.error(
                    format!("{at}/options"),
                    format!("idmap={ranges}: {wrong}"),
                    "write it as in idmap=uids=0-100000-65536;gids=0-100000-65536",
                );
            }
        }
        None if !has_maps && user.is_none() => report.error(
            format!("{at}/options"),
            "idmap without maps takes those of the container's user namespace, and it has none",
            "add uidMappings and gidMappings to the mount, or {\"type\": \"user\"} to linux.namespaces",
        ),
        None => {}
    }
}

/// crun's options for symbolic links.
fn check_links(report: &mut Report, options: &MountOptions, at: At) {
    let asked = options.copy_symlink || options.src_nofollow || options.dest_nofollow;
    if options.copy_symlink && (options.src_nofollow || options.dest_nofollow) {
        report.error(
            format!("{at}/options"),
            "copy-symlink is mutually exclusive with src-nofollow and dest-nofollow",
            "remove one of them",
        );
    }
    if asked && options.bind.is_none() {
        report.error(
            format!("{at}/options"),
            "copy-symlink, src-nofollow and dest-nofollow are options of bind mounts",
            "add \"bind\" or \"rbind\", or remove them",
        );
    }
}

/// Whether nothing is left of a path when each `..` has taken a part away.
fn leads_to_root(path: &str) -> bool {
    let depth = |depth: usize, part| match part {
        "" | "." => depth,
        ".." => depth.saturating_sub(1),
        _ => depth + 1,
    };
    path.split('/').fold(0, depth) == 0
}

fn check_destination(report: &mut Report, mount: &Value, at: At) {
    match text(mount, "destination") {
        Some("") => report.error(
            format!("{at}/destination"),
            "mount destination must not be empty",
            "name an absolute path in the container",
        ),
        Some(destination) if leads_to_root(destination) => report.error(
            format!("{at}/destination"),
            "the destination is the container's root, which root.path gives",
            "name a path below /",
        ),
        Some(destination) if !destination.starts_with('/') => report.warning(
            format!("{at}/destination"),
            format!("mount destination {destination} is not absolute; it is taken as relative to /"),
            format!("write {:?}", format!("/{destination}")),
        ),
        _ => {}
    }
}

fn check_type(report: &mut Report, mount: &Value, options: &MountOptions, at: At) {
    let kind = text(mount, "type").unwrap_or("");
    // What is there already has its source and its type.
    if options.remount {
        return;
    }
    if options.bind.is_some() {
        if text(mount, "source").unwrap_or("").is_empty() {
            report.error(
                format!("{at}/source"),
                "a bind mount needs a source",
                "name the file or directory of the host to bind",
            );
        }
        return;
    }
    if kind == "bind" {
        report.error(
            format!("{at}/options"),
            "mount type is bind, but there is no bind option: no such device",
            "add \"bind\" or \"rbind\" to the options",
        );
    } else if matches!(kind, "" | "none") && !is_propagation_only(mount, options) {
        report.error(
            format!("{at}/type"),
            "the mount has neither a file system type nor a bind option: no such device",
            "add \"type\", or \"bind\" or \"rbind\" to the options",
        );
    }
}

/// Changing the propagation of a mount that is there already needs no type.
fn is_propagation_only(mount: &Value, options: &MountOptions) -> bool {
    !options.propagation.is_empty() && options.propagation.len() == list(mount, "options").len()
}

fn check_options(report: &mut Report, mount: &Value, options: &[&str], parsed: &MountOptions, at: At) {
    let position = |name: &str| options.iter().rposition(|option| *option == name);
    for (one, other) in OPPOSITES {
        if let (Some(one_at), Some(other_at)) = (position(one), position(other)) {
            let later = one_at.max(other_at);
            report.warning(
                format!("{at}/options/{later}"),
                format!(
                    "\"{one}\" and \"{other}\" contradict each other; the later one, \"{}\", holds",
                    options[later]
                ),
                "remove one of the two",
            );
        }
    }
    if parsed.bind.is_some()
        && let Some((key, _)) = parsed.data.iter().find(|(key, _)| !VOLUME_OPTIONS.contains(&key.as_str()))
    {
        let index = options.iter().position(|option| option.contains(key.as_str())).unwrap_or(0);
        report.error(
            format!("{at}/options/{index}"),
            format!("bind mounts cannot have any filesystem-specific options applied: {key:?}"),
            "remove it: the kernel would ignore it without a word",
        );
    }
    if parsed.tmpcopyup && text(mount, "type") != Some("tmpfs") {
        report.warning(format!("{at}/options"), "tmpcopyup does something only on a tmpfs", "remove it");
    }
    if options.contains(&"") && present(mount, "options").is_some() {
        report.warning(format!("{at}/options"), "an empty option is ignored", "remove it");
    }
}
