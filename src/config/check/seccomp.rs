//! config-linux.md "Seccomp". A system call that the host does not know is no finding: profiles are written for all
//! hosts.

use serde_json::Value;

use super::names::SECCOMP_ARCHS;
use super::{Report, list, present, text};

const AT: &str = "/linux/seccomp";

/// The largest that libseccomp takes.
const LARGEST_ERRNO: u64 = 4094;
/// What a tracer gets is 16 bits wide (`SECCOMP_RET_DATA`, seccomp(2)).
const LARGEST_TRACE: u64 = 0xffff;

const BIG_ENDIAN: [&str; 11] = [
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SHEB",
];

pub(super) fn check(report: &mut Report, linux: &Value) {
    let Some(seccomp) = present(linux, "seccomp") else { return };
    check_notify(report, seccomp);
    check_architectures(report, seccomp);
    let default = text(seccomp, "defaultAction").unwrap_or("");
    check_errno(report, seccomp, "defaultErrnoRet", default, || format!("{AT}/defaultErrnoRet"));
    for (index, call) in list(seccomp, "syscalls").iter().enumerate() {
        let action = text(call, "action").unwrap_or("");
        let at = |name: &str| format!("{AT}/syscalls/{index}/{name}");
        check_errno(report, call, "errnoRet", action, || at("errnoRet"));
        if let Some([]) = call.get("names").and_then(Value::as_array).map(Vec::as_slice) {
            report.error(at("names"), "a rule without system calls does nothing", "name some, or remove the rule");
        }
        for (position, name) in list(call, "names").iter().enumerate() {
            if name.as_str() == Some("") {
                report.error(format!("{}/{position}", at("names")), "empty string is not a valid syscall", "remove it");
            }
        }
        let same = default == action && !action.is_empty() && list(call, "args").is_empty();
        if same && present(call, "errnoRet").is_none() && present(seccomp, "defaultErrnoRet").is_none() {
            report.note(at("action"), "the same as the default action", "the rule has no effect");
        }
    }
}

/// libseccomp makes programs of one byte order.
fn check_architectures(report: &mut Report, seccomp: &Value) {
    for (index, name) in list(seccomp, "architectures").iter().enumerate() {
        // What is no name at all has been told.
        let Some(name) = name.as_str().filter(|name| SECCOMP_ARCHS.contains(name)) else { continue };
        if BIG_ENDIAN.contains(&name) != cfg!(target_endian = "big") {
            report.error(
                format!("{AT}/architectures/{index}"),
                format!("{name} has another byte order than this host"),
                "remove it: no program of that architecture can run here",
            );
        }
    }
}

/// The listener would have to allow its own notification to be sent; and someone has to listen.
fn check_notify(report: &mut Report, seccomp: &Value) {
    const NOTIFY: &str = "SCMP_ACT_NOTIFY";
    if text(seccomp, "defaultAction") == Some(NOTIFY) {
        report.error(
            format!("{AT}/defaultAction"),
            "SCMP_ACT_NOTIFY cannot be used as default action",
            "name the system calls to be notified of",
        );
    }
    let listener = text(seccomp, "listenerPath").unwrap_or("");
    for (index, call) in list(seccomp, "syscalls").iter().enumerate() {
        if text(call, "action") != Some(NOTIFY) {
            continue;
        }
        if list(call, "names").iter().any(|name| name.as_str() == Some("write")) {
            report.error(
                format!("{AT}/syscalls/{index}/names"),
                "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                "remove write",
            );
        }
        if listener.is_empty() {
            report.error(
                format!("{AT}/syscalls/{index}/action"),
                "seccomp listenerPath is not set",
                "add \"listenerPath\", or use another action",
            );
        }
    }
    let notifies = list(seccomp, "syscalls").iter().any(|call| text(call, "action") == Some(NOTIFY));
    let killable = |flag: &Value| flag.as_str() == Some("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    if !notifies && let Some(index) = list(seccomp, "flags").iter().position(killable) {
        report.note(
            format!("{AT}/flags/{index}"),
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is about notifications, and no action is SCMP_ACT_NOTIFY",
            "the flag has no effect",
        );
    }
    if listener.is_empty() && text(seccomp, "listenerMetadata").is_some_and(|metadata| !metadata.is_empty()) {
        report.warning(
            format!("{AT}/listenerMetadata"),
            "listenerMetadata is set, but there is no listenerPath to send it to",
            "add \"listenerPath\", or remove it",
        );
    }
}

fn check_errno(report: &mut Report, object: &Value, name: &str, action: &str, at: impl Fn() -> String) {
    if present(object, name).is_some() && !action.is_empty() && !matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
        report.warning(at(), format!("{action} returns no errno; {name} is ignored"), "remove it");
    }
    let value = present(object, name).and_then(Value::as_u64).unwrap_or(0);
    match action {
        "SCMP_ACT_ERRNO" if value > LARGEST_ERRNO => report.error(
            at(),
            format!("{value} is no error of a system call; the largest that libseccomp takes is {LARGEST_ERRNO}"),
            "give the number of an error, such as 1 for EPERM",
        ),
        "SCMP_ACT_TRACE" if value > LARGEST_TRACE => report.error(
            at(),
            format!("{value} is more than a tracer can be told, which is {LARGEST_TRACE} at most"),
            "give a smaller number",
        ),
        _ => {}
    }
}
