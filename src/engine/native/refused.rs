//! What a plain process cannot have.

use super::PROVIDER;
use crate::engine::{FeatureNotSupported, LaunchConfig};
use anyhow::{Result, bail};
use oci_spec::runtime::Spec;

/// Refuses a launch that nobody has allowed to be unconfined, and one that asks for what needs namespaces.
///
/// # Errors
/// How to allow it; every property that is refused, by its JSON pointer.
pub fn check(launch: &LaunchConfig) -> Result<()> {
    if !launch.options.allow_unconfined {
        bail!(
            "engine \"native\" confines nothing, its containers are ordinary processes of the host: \
             allow that with --allow-unconfined, or with \"allowUnconfined\": true in the configuration file"
        );
    }
    let pointers = pointers(&launch.bundle.spec);
    if pointers.is_empty() {
        return Ok(());
    }
    let feature = format!("{}, which a process without namespaces cannot have", pointers.join(", "));
    Err(FeatureNotSupported { engine: PROVIDER.name, feature: feature.into() }.into())
}

/// The properties of a configuration that need a namespace or a root of their own.
fn pointers(spec: &Spec) -> Vec<&'static str> {
    fn is_filled<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    let is_named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    let readonly = spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
    let mut refused = vec![
        ("/root/readonly", readonly),
        ("/mounts", is_filled(spec.mounts())),
        ("/hostname", is_named(spec.hostname())),
        ("/domainname", is_named(spec.domainname())),
    ];
    if let Some(linux) = spec.linux() {
        refused.extend([
            ("/linux/namespaces", is_filled(linux.namespaces())),
            ("/linux/uidMappings", is_filled(linux.uid_mappings())),
            ("/linux/gidMappings", is_filled(linux.gid_mappings())),
            ("/linux/timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
            ("/linux/netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
            ("/linux/devices", is_filled(linux.devices())),
            ("/linux/maskedPaths", is_filled(linux.masked_paths())),
            ("/linux/readonlyPaths", is_filled(linux.readonly_paths())),
            ("/linux/sysctl", linux.sysctl().as_ref().is_some_and(|sysctl| !sysctl.is_empty())),
            ("/linux/rootfsPropagation", is_named(linux.rootfs_propagation())),
            ("/linux/mountLabel", is_named(linux.mount_label())),
        ]);
    }
    refused.into_iter().filter_map(|(pointer, is_refused)| is_refused.then_some(pointer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_namespaces_is_named_and_the_rest_is_not() {
        let spec = |text: &str| serde_json::from_str::<Spec>(text).unwrap();
        let plain = r#"{ "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "mounts": [],
            "linux": { "namespaces": [], "resources": { "pids": { "limit": 5 } } } }"#;
        assert!(pointers(&spec(plain)).is_empty(), "{:?}", pointers(&spec(plain)));
        let isolated = r#"{ "ociVersion": "1.0.2", "root": { "path": "rootfs", "readonly": true }, "hostname": "box",
            "linux": { "namespaces": [{ "type": "pid" }], "sysctl": { "kernel.msgmax": "1" } } }"#;
        assert_eq!(pointers(&spec(isolated)), ["/root/readonly", "/hostname", "/linux/namespaces", "/linux/sysctl"]);
    }
}
