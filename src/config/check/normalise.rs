//! Brings a checked document into the form that oci-spec's types take: what was only warned about is taken away or
//! written out. A document without [`super::Severity::Error`] deserialises into `oci_spec::runtime::Spec` afterwards.

use serde_json::{Map, Value, json};

use super::schema::{Kind, Needed};
use super::{names, tables};

/// oci-spec's names for flags that the runtime-spec writes differently: its enum derives them from its own spelling.
const SCHEDULER_FLAGS: &[(&str, &str)] =
    &[("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// For a config.json that [`super::check`] found no error in.
pub fn normalise(config: &mut Value) {
    prune(&tables::SPEC, config);
    let Some(config) = config.as_object_mut() else { return };
    config.entry("ociVersion").or_insert_with(|| "1.0.0".into());
    if let Some(process) = config.get_mut("process") {
        fit_process(process);
    }
    for mount in elements(config, "mounts") {
        if let Some(destination) = mount.get_mut("destination") {
            make_absolute(destination);
        }
    }
    let zero_is_none = !has_limits_of_zero(config);
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        fit_linux(linux);
        if let Some(limit) =
            linux.get_mut("resources").and_then(|resources| resources.get_mut("pids")?.get_mut("limit"))
            && zero_is_none
            && limit.as_i64() == Some(0)
        {
            *limit = (-1).into();
        }
    }
}

/// Whether a limit of 0 processes is one: specification 1.3 says so. Who writes for an older one, as podman does, means
/// no limit.
fn has_limits_of_zero(config: &Map<String, Value>) -> bool {
    let version = config.get("ociVersion").and_then(Value::as_str).and_then(super::document::parse_version);
    version.is_some_and(|version| version >= (1, 3))
}

/// For a process document that [`super::check_process`] found no error in.
pub fn normalise_process(process: &mut Value) {
    prune(&tables::PROCESS, process);
    fit_process(process);
}

/// Takes away nulls, properties that the schema does not know (oci-spec has types for some of them) and empty strings
/// that stand for no value; adds what is assumed where a required number is absent.
fn prune(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::List(element), Value::Array(list)) => list.iter_mut().for_each(|value| prune(element, value)),
        (Kind::Map(element), Value::Object(map)) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(|value| prune(element, value));
        }
        (Kind::Object(properties), Value::Object(object)) => {
            object.retain(|key, value| {
                let Some(property) = properties.iter().find(|property| property.name == key) else { return false };
                let empty = matches!(property.kind, Kind::OneOf(_)) && value.as_str() == Some("");
                if value.is_null() || empty || matches!(property.kind, Kind::Foreign(_)) {
                    return false;
                }
                prune(&property.kind, value);
                true
            });
            for property in properties.iter().filter(|property| matches!(property.needed, Needed::Assumed(_))) {
                if !object.contains_key(property.name)
                    && let Some(assumed) = assumed(property.name, &property.kind)
                {
                    object.insert(property.name.to_owned(), assumed);
                }
            }
        }
        _ => {}
    }
}

fn assumed(name: &str, kind: &Kind) -> Option<Value> {
    match kind {
        // No limit, and not a limit of none.
        Kind::Integer(..) if name == "limit" => Some((-1).into()),
        Kind::Integer(..) => Some(0.into()),
        Kind::Boolean => Some(false.into()),
        Kind::List(_) => Some(json!([])),
        _ => None,
    }
}

fn fit_process(process: &mut Value) {
    let Some(process) = process.as_object_mut() else { return };
    process.entry("user").or_insert_with(|| json!({}));
    if let Some(capabilities) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for set in names::CAPABILITY_SETS {
            if let Some(Value::Array(list)) = capabilities.get_mut(*set) {
                list.retain(is_capability);
            }
        }
    }
    if let Some(scheduler) = process.get_mut("scheduler").and_then(Value::as_object_mut) {
        for flag in elements(scheduler, "flags") {
            if let Some((_, theirs)) = SCHEDULER_FLAGS.iter().find(|(ours, _)| flag.as_str() == Some(ours)) {
                *flag = (*theirs).into();
            }
        }
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        affinity.retain(|_, cpus| cpus.as_str() != Some(""));
    }
}

/// False for a name that is no capability.
fn is_capability(name: &Value) -> bool {
    name.as_str().is_some_and(|name| names::CAPABILITIES.contains(&name))
}

fn fit_linux(linux: &mut Map<String, Value>) {
    for list in ["maskedPaths", "readonlyPaths"] {
        elements(linux, list).for_each(make_absolute);
    }
    let Some(resources) = linux.get_mut("resources").and_then(Value::as_object_mut) else { return };
    for rule in elements(resources, "devices") {
        let Some(rule) = rule.as_object_mut() else { continue };
        // -1 says "every", which oci-spec says by absence.
        rule.retain(|name, value| !(matches!(name.as_str(), "major" | "minor") && value.as_i64() == Some(-1)));
    }
    for limit in elements(resources, "hugepageLimits") {
        // uint64 in the spec, i64 in oci-spec. Either is more memory than there is.
        if let Some(bytes) = limit.get_mut("limit").filter(|bytes| bytes.as_i64().is_none_or(|bytes| bytes < 0)) {
            *bytes = if bytes.as_u64().is_some() { i64::MAX.into() } else { 0.into() };
        }
    }
}

fn elements<'a>(object: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn make_absolute(path: &mut Value) {
    if let Some(relative) = path.as_str().filter(|path| !path.starts_with('/')) {
        *path = format!("/{relative}").into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_no_processes_is_one_since_1_3() {
        for (version, limit) in [("1.0.2-dev", -1), ("1.2.1", -1), ("rubbish", -1), ("1.3.0", 0), ("2.0.0", 0)] {
            let mut config = json!({ "ociVersion": version, "linux": { "resources": { "pids": { "limit": 0 } } } });
            normalise(&mut config);
            assert_eq!(config.pointer("/linux/resources/pids/limit"), Some(&json!(limit)), "{version}");
        }
    }
}
