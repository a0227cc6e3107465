//! config.md "Process": program, directory, environment, user, capabilities, limits.

use std::path::Path;

use serde_json::Value;

use super::mappings::{maps_of, new_user_namespace};
use super::{Report, integer, list, names, present, scheduling, text};

pub(super) fn check(report: &mut Report, process: &Value, at: &str) {
    check_program(report, process, at);
    check_environment(report, process, at);
    if let Some(user) = present(process, "user") {
        check_user(report, user, &format!("{at}/user"));
    }
    if let Some(capabilities) = present(process, "capabilities") {
        check_capabilities(report, capabilities, &format!("{at}/capabilities"));
    }
    check_rlimits(report, process, at);
    if let Some(score) = integer(process, "oomScoreAdj")
        && !(-1000..=1000).contains(&score)
    {
        report.error(
            format!("{at}/oomScoreAdj"),
            format!("{score} is no oom_score_adj: invalid argument"),
            "use a number from -1000 to 1000",
        );
    }
    check_labels(report, process, at);
    scheduling::check(report, process, at);
}

fn check_program(report: &mut Report, process: &Value, at: &str) {
    let args = process.get("args").filter(|args| !args.is_null());
    match args.and_then(Value::as_array).map(Vec::as_slice) {
        None if args.is_some() => {}
        None | Some([]) => report.error(
            format!("{at}/args"),
            "args must not be empty",
            "name the program and its arguments, as in [\"sh\", \"-c\", \"date\"]",
        ),
        Some([program, ..]) if program.as_str() == Some("") => {
            report.error(format!("{at}/args/0"), "exec: \"\": executable file not found in $PATH", "name the program")
        }
        Some(_) => {}
    }
    match text(process, "cwd") {
        Some("") => report.error(format!("{at}/cwd"), "Cwd property must not be empty", "use \"/\""),
        Some(cwd) if !cwd.starts_with('/') => report.error(
            format!("{at}/cwd"),
            format!("Cwd must be an absolute path, {cwd:?} is not"),
            format!("write {:?}", format!("/{cwd}")),
        ),
        _ => {}
    }
}

/// Also for hooks.
pub(super) fn check_environment(report: &mut Report, object: &Value, at: &str) {
    for (index, variable) in list(object, "env").iter().enumerate() {
        let Some(variable) = variable.as_str() else { continue };
        match variable.find('=') {
            Some(0) => report.error(
                format!("{at}/env/{index}"),
                "invalid environment variable: name cannot be empty",
                "write NAME=VALUE",
            ),
            None => report.error(
                format!("{at}/env/{index}"),
                format!("invalid environment variable: missing '=' in {variable:?}"),
                format!("write {:?} for an empty value", format!("{variable}=")),
            ),
            Some(_) => {}
        }
    }
}

/// Also for flags: setresuid(2) would leave the id as it is, and setgroups(2) refuses it.
pub const NO_ID: &str = "4294967295 means \"no id\" to Linux: invalid argument";

fn check_user(report: &mut Report, user: &Value, at: &str) {
    let is_none = |id: Option<i128>| id == Some(i128::from(u32::MAX));
    let named = ["uid", "gid"].into_iter().filter(|name| is_none(integer(user, name))).map(str::to_owned);
    let groups = list(user, "additionalGids").iter().enumerate();
    let groups =
        groups.filter(|(_, gid)| is_none(super::as_integer(gid))).map(|(index, _)| format!("additionalGids/{index}"));
    for place in named.chain(groups) {
        report.error(format!("{at}/{place}"), NO_ID, "use another id");
    }
    if integer(user, "umask").is_some_and(|umask| umask > 0o777) {
        report.warning(
            format!("{at}/umask"),
            "a umask has nine bits; the others are ignored",
            "use a decimal number up to 511 (octal 777)",
        );
    }
}

/// Ids that a new user namespace does not map: setresuid(2) and setgroups(2) would fail with EINVAL.
pub(super) fn check_mapped(report: &mut Report, config: &Value, process: &Value) {
    let Some(linux) = present(config, "linux").filter(|linux| new_user_namespace(linux)) else { return };
    let user = process.get("user").unwrap_or(&Value::Null);
    for (name, maps) in [("uid", "uidMappings"), ("gid", "gidMappings")] {
        let id = integer(user, name).unwrap_or(0);
        not_mapped(report, linux, maps, id, || format!("/process/user/{name}"));
    }
    for (index, gid) in list(user, "additionalGids").iter().enumerate() {
        if let Some(gid) = super::as_integer(gid) {
            not_mapped(report, linux, "gidMappings", gid, || format!("/process/user/additionalGids/{index}"));
        }
    }
}

fn not_mapped(report: &mut Report, linux: &Value, maps: &str, id: i128, at: impl Fn() -> String) {
    let mut ranges = maps_of(linux, maps).peekable();
    if ranges.peek().is_some() && !ranges.any(|map| map.container.contains(&id)) {
        report.error(
            at(),
            format!("id {id} is not mapped into the user namespace: invalid argument"),
            format!("add it to linux.{maps}, or use an id that is mapped"),
        );
    }
}

fn check_capabilities(report: &mut Report, capabilities: &Value, at: &str) {
    let mut sets = [0u64; 5];
    for (set, mask) in names::CAPABILITY_SETS.iter().zip(&mut sets) {
        for (index, name) in list(capabilities, set).iter().enumerate() {
            let Some(name) = name.as_str() else { continue };
            let at = || format!("{at}/{set}/{index}");
            match names::CAPABILITIES.iter().position(|known| *known == name) {
                Some(bit) => *mask |= 1 << bit,
                None => report.warning(
                    at(),
                    format!("ignoring unknown or unavailable capabilities: [{}]", name.escape_debug()),
                    "remove it, or write a name of capabilities(7) as in CAP_NET_RAW",
                ),
            }
        }
    }
    let [bounding, effective, inheritable, permitted, ambient] = sets;
    if effective & !permitted != 0 {
        report.error(
            format!("{at}/effective"),
            format!("{} not in the permitted set: capset: operation not permitted", named(effective & !permitted)),
            "add to \"permitted\" what is in \"effective\"",
        );
    }
    if inheritable & !bounding != 0 {
        report.warning(
            format!("{at}/inheritable"),
            format!("{} not in the bounding set, from which Linux inherits", named(inheritable & !bounding)),
            "add to \"bounding\" what is in \"inheritable\"",
        );
    }
    let lost = ambient & !(permitted & inheritable);
    if lost != 0 {
        // A note only: what `runc spec` and `crun spec` of Debian 12 write is like this, and runs.
        report.note(
            format!("{at}/ambient"),
            format!("{} not permitted and inheritable; as ambient it is ignored", named(lost)),
            "add to \"permitted\" and to \"inheritable\" what is in \"ambient\"",
        );
    }
}

fn named(mask: u64) -> String {
    let bits = names::CAPABILITIES.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
    let names: Vec<_> = bits.map(|(_, name)| *name).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn check_rlimits(report: &mut Report, process: &Value, at: &str) {
    let rlimits = list(process, "rlimits");
    for (index, rlimit) in rlimits.iter().enumerate() {
        let Some(kind) = text(rlimit, "type") else { continue };
        if rlimits[..index].iter().any(|earlier| text(earlier, "type") == Some(kind)) {
            report.error(
                format!("{at}/rlimits/{index}/type"),
                format!("rlimit {kind} is given more than once"),
                "keep one of the two",
            );
        }
        let of = |name| integer(rlimit, name).unwrap_or(0);
        if of("soft") > of("hard") {
            report.error(
                format!("{at}/rlimits/{index}/soft"),
                format!("{kind}: soft limit {} is over hard limit {}: invalid argument", of("soft"), of("hard")),
                "lower \"soft\" or raise \"hard\"",
            );
        }
    }
}

/// Whether AppArmor is there and was not turned off on the kernel's command line.
pub fn apparmor_is_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether SELinux is there with a policy. Without one there are its file system and one label for all, by which every
/// runtime knows that.
pub fn selinux_is_enabled() -> bool {
    let has_policy = || std::fs::read("/proc/self/attr/current").is_ok_and(|own| !own.starts_with(b"kernel\0"));
    Path::new("/sys/fs/selinux").exists() && has_policy()
}

pub const NO_SELINUX: &str = "selinux label is specified in config, but selinux is disabled or not supported";

/// Labels that no security module of this host would understand. The host is looked at only if there is a label.
fn check_labels(report: &mut Report, process: &Value, at: &str) {
    if let Some(profile) = text(process, "apparmorProfile")
        && !matches!(profile, "" | "unconfined")
        && !apparmor_is_enabled()
    {
        report.error(
            format!("{at}/apparmorProfile"),
            format!("apparmor failed to apply profile {profile:?}: AppArmor is not enabled on this host"),
            "remove it, or boot with AppArmor",
        );
    }
    check_selinux(report, text(process, "selinuxLabel"), || format!("{at}/selinuxLabel"));
}

/// Also for `linux.mountLabel`.
pub(super) fn check_selinux(report: &mut Report, label: Option<&str>, at: impl Fn() -> String) {
    if label.is_some_and(|label| !label.is_empty()) && !selinux_is_enabled() {
        report.error(at(), NO_SELINUX, "remove it, or boot with SELinux");
    }
}
