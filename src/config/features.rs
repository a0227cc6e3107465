//! `rtx features` (runtime-spec features.md, features-linux.md): what this program, as built and linked, can do.

use std::str::FromStr;

use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::{Value, json};

use super::check::names;
use super::mount_options;

/// Annotations by which the author of a bundle could reach beyond the container (features.md
/// `potentiallyUnsafeConfigAnnotations`); one that ends in a dot is a prefix.
const POTENTIALLY_UNSAFE: &[&str] = &["org.rtx.engine", "org.systemd.property.", "org.criu.config"];

/// The document that `rtx features` prints.
pub fn features() -> Value {
    let mut mount_options = mount_options::NAMES.to_vec();
    // The spec reports these two under linux.mountExtensions.
    mount_options.retain(|name| !matches!(*name, "idmap" | "ridmap"));
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::OCI_VERSION,
        "hooks": names::HOOKS,
        "mountOptions": mount_options,
        "linux": linux(),
        "annotations": annotations(),
        "potentiallyUnsafeConfigAnnotations": POTENTIALLY_UNSAFE,
    })
}

fn linux() -> Value {
    let supports = |pointer: &str| !super::check::is_unsupported(pointer);
    let mut namespaces: Vec<_> = names::NAMESPACES.to_vec();
    namespaces.retain(|name| *name != "time" || supports("/linux/timeOffsets"));
    let mut linux = json!({
        "namespaces": namespaces,
        "capabilities": names::CAPABILITIES,
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
        "seccomp": seccomp(),
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": supports("/linux/intelRdt") },
        "mountExtensions": { "idmap": { "enabled": supports("/mounts/*/uidMappings") } },
        "netDevices": { "enabled": supports("/linux/netDevices") },
    });
    if supports("/linux/intelRdt") {
        linux["intelRdt"] = json!({ "enabled": true, "schemata": true, "monitoring": true });
    }
    if supports("/linux/memoryPolicy") {
        linux["memoryPolicy"] = json!({
            "modes": names::sorted(names::MEMORY_POLICY_MODES),
            "flags": names::sorted(names::MEMORY_POLICY_FLAGS),
        });
    }
    linux
}

fn seccomp() -> Value {
    let mut actions = names::sorted(names::SECCOMP_ACTIONS);
    if super::check::is_unsupported("/linux/seccomp/listenerPath") {
        actions.retain(|action| *action != "SCMP_ACT_NOTIFY");
    }
    let mut archs = names::sorted(names::SECCOMP_ARCHS);
    archs.retain(|arch| ScmpArch::from_str(arch).is_ok_and(library_knows));
    json!({
        "enabled": true,
        "actions": actions,
        "operators": names::sorted(names::SECCOMP_OPERATORS),
        "archs": archs,
        "knownFlags": names::SECCOMP_FLAGS,
        "supportedFlags": supported_flags(),
    })
}

/// Resolving a name for an architecture that the linked libseccomp has no table for fails; `read` exists on all.
fn library_knows(arch: ScmpArch) -> bool {
    ScmpSyscall::from_name_by_arch("read", arch).is_ok()
}

/// libseccomp's API level says what library and kernel can do together: seccomp_api_get(3).
fn supported_flags() -> Vec<&'static str> {
    let level = libseccomp::get_api();
    let needed = |flag: &str| match flag {
        "SECCOMP_FILTER_FLAG_LOG" => 3,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 7,
        _ => 2,
    };
    names::SECCOMP_FLAGS.iter().copied().filter(|flag| level >= needed(flag)).collect()
}

fn annotations() -> Value {
    let mut annotations = json!({
        "org.rtx.version": env!("CARGO_PKG_VERSION"),
        "org.rtx.checkpoint.enabled": "true",
    });
    if let Ok(version) = libseccomp::ScmpVersion::current() {
        annotations["io.github.seccomp.libseccomp.version"] =
            format!("{}.{}.{}", version.major, version.minor, version.micro).into();
    }
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_spec_asks_for() {
        let features = features();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
        assert_eq!(features["mountOptions"].as_array().unwrap().len(), 63);
        assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
        assert!(features["linux"]["seccomp"]["archs"].as_array().unwrap().contains(&"SCMP_ARCH_X86_64".into()));
        assert!(features["linux"]["namespaces"].as_array().unwrap().len() >= 7);
        serde_json::from_value::<oci_spec::runtime::Features>(features).unwrap();
    }
}
