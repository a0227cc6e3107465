//! config.md: version, root file system, host names, annotations.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::{Report, escape, present, text};
use crate::config::supervision::{HEALTH_ANNOTATION, HealthCheck};
use crate::sys::path::clean;

/// sethostname(2), setdomainname(2): __NEW_UTS_LEN.
const UTS_NAME_MAX: usize = 64;

pub(super) fn check(report: &mut Report, config: &Value, bundle: Option<&Path>) {
    if let Some(version) = text(config, "ociVersion") {
        check_version(report, version);
    }
    check_root(report, config, bundle);
    for name in ["hostname", "domainname"] {
        if text(config, name).is_some_and(|value| value.len() > UTS_NAME_MAX) {
            report.error(
                format!("/{name}"),
                format!("{name} is longer than {UTS_NAME_MAX} bytes"),
                "shorten it: Linux takes no more",
            );
        }
    }
    let Some(annotations) = config.get("annotations").and_then(Value::as_object) else { return };
    if annotations.contains_key("") {
        report.warning("/annotations/", "an annotation's key must not be empty", "name it in reverse domain notation");
    }
    if let Some(health) = annotations.get(HEALTH_ANNOTATION).and_then(Value::as_str)
        && let Err(error) = HealthCheck::parse(health)
    {
        report.warning(
            format!("/annotations/{HEALTH_ANNOTATION}"),
            format!("{error:#}"),
            "mend it: --supervise refuses it, and without --supervise nobody looks after the container's health",
        );
    }
}

/// config.md "Specification version". Other runtimes never look at it, and bundles exist that depend on that, so nothing
/// here is an error.
fn check_version(report: &mut Report, version: &str) {
    let Some((major, minor)) = parse_version(version) else {
        return report.warning(
            "/ociVersion",
            format!("{version:?} is no version in SemVer form"),
            format!("write a version as in {:?}", crate::OCI_VERSION),
        );
    };
    if major != 1 {
        report.warning(
            "/ociVersion",
            format!("version {version} of the runtime-spec is not one that rtx knows"),
            format!("use a version from 1.0.0 to {}", crate::OCI_VERSION),
        );
    } else if minor > 3 {
        report.warning(
            "/ociVersion",
            format!("version {version} is newer than {}, which rtx implements", crate::OCI_VERSION),
            "check that nothing newer is needed: unknown properties are ignored",
        );
    }
}

/// Major and minor of `major.minor.patch[-pre][+build]`.
pub(super) fn parse_version(version: &str) -> Option<(u64, u64)> {
    let core = version.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|number| {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| number.parse::<u64>().ok()).flatten()
    });
    let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some((major, minor))
}

fn check_root(report: &mut Report, config: &Value, bundle: Option<&Path>) {
    let Some(root) = present(config, "root") else {
        return report.error("/root", "root must be specified", "add \"root\": {\"path\": \"rootfs\"}");
    };
    let Some(path) = text(root, "path") else { return };
    if path.is_empty() {
        return report.error(
            "/root/path",
            "root.path must be specified: it is empty",
            "name the directory, relative to the bundle or absolute",
        );
    }
    let Some(bundle) = bundle.filter(|_| !path.contains('\0')) else { return };
    let rootfs = clean(&bundle.join(path));
    match std::fs::metadata(&rootfs) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => report.error(
            "/root/path",
            format!("invalid rootfs: {}: not a directory", rootfs.display()),
            "name a directory",
        ),
        Err(error) => {
            let cause = match error.kind() {
                ErrorKind::NotFound => "no such file or directory".to_owned(),
                ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            report.error(
                "/root/path",
                format!("invalid rootfs: stat {}: {cause}", rootfs.display()),
                "name a directory, relative to the bundle or absolute",
            );
        }
    }
}

/// For rules about the keys of a map.
pub(super) fn keyed(at: &str, key: &str) -> String {
    format!("{at}/{}", escape(key))
}
