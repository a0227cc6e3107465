//! What `update` changes: requested limits laid over those that a container has. runtime-spec config-linux.md, "Control
//! groups".

use super::check::{self, Finding, Severity};
use anyhow::{Result, bail};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

/// Where limits are in a config.json.
const POINTER: &str = "/linux/resources";

/// Values that mean "leave it as it is", which is how callers written in Go say that they give none.
const ZERO_IS_ABSENT: [(&str, &[&str]); 4] = [
    ("memory", &["limit", "reservation", "swap", "kernel", "kernelTCP"]),
    ("cpu", &["shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"]),
    ("blockIO", &["weight", "leafWeight"]),
    ("pids", &["limit"]),
];

/// Values that mean something only beside others: where one of the first is given, the others are written with it, as
/// the container has them. cgroup v2 has one file for quota and period, and takes the memory limit off that of memory
/// and swap; a group that is no longer idle has lost its shares.
const TOGETHER: [(&str, &[&str], &[&str]); 3] = [
    ("memory", &["swap"], &["limit"]),
    ("cpu", &["quota", "period", "burst"], &["quota", "period"]),
    ("cpu", &["idle"], &["shares"]),
];

/// One change of a container's limits.
#[derive(Debug)]
pub struct Update {
    /// All limits of the container from now on: `linux.resources` of its configuration.
    pub resources: Value,
    /// What has to be written.
    pub change: LinuxResources,
    /// What was asked for and changes nothing.
    pub warnings: Vec<String>,
}

/// Plans a change: `request` is the part of a `linux.resources` object that is to be different, `current` the one that
/// the container has. Device rules are not changed, as in every runtime: callers pass the whole object.
///
/// `swap_is_apart` on cgroup v2, where the limit of swap is one of its own and not, as here, of memory and swap.
///
/// # Errors
/// Everything that is wrong with the outcome, by JSON pointers into `request`.
pub fn plan(current: &Value, request: &Value, swap_is_apart: bool) -> Result<Update> {
    let Some(request) = request.as_object() else {
        bail!("the limits must be a JSON object like linux.resources of config.json: it is {request}");
    };
    let mut change = given(request);
    let mut resources = current.clone();
    lay_over(&mut resources, &Value::Object(change.clone()));
    if swap_is_apart {
        keep_swap(current, &change, &mut resources);
    }
    let is_unlimited = change.get("memory").is_some_and(|memory| memory.get("limit") == Some(&json!(-1)));
    if is_unlimited && change["memory"].get("swap").is_none() {
        // The old limit of both together would still hold.
        if let Some(memory) = resources["memory"].as_object_mut() {
            memory.remove("swap");
        }
    }
    let warnings = refuse(&resources, &change)?;
    let stays_idle = change.get("cpu").and_then(|cpu| cpu.get("idle")).is_some_and(|idle| idle != 0);
    for (section, given, companions) in TOGETHER {
        // The kernel takes no shares for a group that is idle.
        if stays_idle && given == ["idle"] {
            continue;
        }
        let Some(limits) = change.get_mut(section).and_then(Value::as_object_mut) else { continue };
        if given.iter().any(|name| limits.contains_key(*name)) {
            for name in companions {
                if let Some(value) = resources[section].get(*name) {
                    limits.entry(*name).or_insert_with(|| value.clone());
                }
            }
        }
    }
    Ok(Update { resources, change: parse(Value::Object(change))?, warnings })
}

/// Another limit of memory alone leaves that of swap as it is; the sum of both is another one then.
fn keep_swap(current: &Value, change: &Map<String, Value>, resources: &mut Value) {
    let of = |memory: Option<&Value>, name: &str| memory?.get(name)?.as_i64().filter(|bytes| *bytes > 0);
    let (memory, asked) = (current.get("memory"), change.get("memory"));
    if let (Some(limit), Some(swap), Some(next)) = (of(memory, "limit"), of(memory, "swap"), of(asked, "limit"))
        && asked.is_some_and(|asked| asked.get("swap").is_none())
    {
        resources["memory"]["swap"] = next.saturating_add(swap.saturating_sub(limit)).into();
    }
}

/// A request without what stands for nothing.
fn given(request: &Map<String, Value>) -> Map<String, Value> {
    let mut given = request.clone();
    given.remove("devices");
    given.retain(|_, value| !value.is_null());
    for (section, value) in &mut given {
        let Some(limits) = value.as_object_mut() else { continue };
        let names = ZERO_IS_ABSENT.iter().find(|(name, _)| name == section).map_or(&[][..], |(_, names)| names);
        limits.retain(|name, value| {
            let is_zero = *value == json!(0) || *value == json!("");
            !(value.is_null() || is_zero && names.contains(&name.as_str()))
        });
    }
    // `pids` without its limit would be one of none.
    given.retain(|_, value| value.as_object().is_none_or(|limits| !limits.is_empty()));
    given
}

/// What tells the elements of a list from each other: devices, sizes of huge pages, interfaces.
const IDENTITY: [&str; 4] = ["major", "minor", "pageSize", "name"];

/// Objects by their members and lists by what their elements are for, since limits that are not named stay; anything else as a
/// whole.
fn lay_over(base: &mut Value, top: &Value) {
    match (base, top) {
        (Value::Array(base), Value::Array(top)) => {
            for element in top {
                let is_same = |known: &&mut Value| IDENTITY.iter().all(|name| known.get(name) == element.get(name));
                match base.iter_mut().find(is_same) {
                    Some(known) => lay_over(known, element),
                    None => base.push(element.clone()),
                }
            }
        }
        (Value::Object(base), Value::Object(top)) => {
            for (name, value) in top {
                lay_over(base.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (base, top) => *base = top.clone(),
    }
}

fn document(resources: Value) -> Value {
    json!({ "linux": { "resources": resources } })
}

/// Refuses limits with a mistake in them; returns the warnings that concern the change.
fn refuse(resources: &Value, change: &Map<String, Value>) -> Result<Vec<String>> {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for Finding { pointer, problem, remedy, severity } in check::check(&document(resources.clone()), None) {
        let Some(pointer) = pointer.strip_prefix(POINTER) else { continue };
        let text = format!("{pointer}: {problem}; {remedy}");
        match severity {
            Severity::Error => errors.push(text),
            Severity::Warning if Value::Object(change.clone()).pointer(pointer).is_some() => warnings.push(text),
            Severity::Warning | Severity::Note => {}
        }
    }
    match errors.as_slice() {
        [] => Ok(warnings),
        errors => bail!("invalid limits: {}", errors.join(", and ")),
    }
}

fn parse(resources: Value) -> Result<LinuxResources> {
    let mut document = document(resources);
    check::normalise(&mut document);
    Ok(serde_json::from_value(document["linux"]["resources"].take())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn changed(current: Value, request: Value) -> (Value, Value) {
        let update = plan(&current, &request, false).unwrap();
        (update.resources, serde_json::to_value(update.change).unwrap())
    }

    #[test]
    fn only_what_is_given_changes() {
        let current =
            json!({ "pids": { "limit": 9 }, "cpu": { "shares": 5 }, "devices": [{ "allow": false, "access": "rwm" }] });
        let request =
            json!({ "devices": [], "cpu": { "shares": 0, "mems": "" }, "pids": null, "memory": { "limit": 8000 } });
        let (resources, change) = changed(current.clone(), request);
        assert_eq!(resources["cpu"]["shares"], 5);
        assert_eq!(resources["memory"]["limit"], 8000);
        assert_eq!(resources["devices"], current["devices"]);
        assert_eq!(change["memory"]["limit"], 8000);
        assert!(change.get("pids").is_none() && change["cpu"].get("shares").is_none());
    }

    #[test]
    fn what_belongs_together_is_written_together() {
        let current =
            json!({ "memory": { "limit": 10_000, "swap": 20_000 }, "cpu": { "quota": 5000, "period": 10000 } });
        let (_, change) = changed(current.clone(), json!({ "memory": { "swap": 30_000 }, "cpu": { "period": 20000 } }));
        assert_eq!((&change["memory"]["limit"], &change["memory"]["swap"]), (&json!(10_000), &json!(30_000)));
        assert_eq!((&change["cpu"]["quota"], &change["cpu"]["period"]), (&json!(5000), &json!(20000)));
        let (resources, _) = changed(current, json!({ "memory": { "limit": -1 } }));
        assert_eq!(resources["memory"], json!({ "limit": -1 }));
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let current = json!({ "pids": { "limit": 9 } });
        for nothing in [json!({ "limit": 0 }), json!({ "limit": null }), json!({})] {
            let (resources, change) = changed(current.clone(), json!({ "pids": nothing }));
            assert_eq!((&resources, change.get("pids")), (&current, None));
        }
    }

    #[test]
    fn what_a_list_does_not_name_stays() {
        let device = |minor: u32, rate: u32| json!({ "major": 8, "minor": minor, "rate": rate });
        let current = json!({ "blockIO": { "throttleReadBpsDevice": [device(0, 5), device(16, 6)] } });
        let of = |list: Value| changed(current.clone(), json!({ "blockIO": { "throttleReadBpsDevice": list } })).0;
        assert_eq!(of(json!([])), current);
        let expected = json!([device(0, 5), device(16, 7), device(32, 1)]);
        assert_eq!(of(json!([device(16, 7), device(32, 1)]))["blockIO"]["throttleReadBpsDevice"], expected);
    }

    #[test]
    fn swap_that_is_apart_stays() {
        let current = json!({ "memory": { "limit": 10_000, "swap": 30_000 } });
        let request = json!({ "memory": { "limit": 50_000 } });
        assert!(plan(&current, &request, false).is_err());
        let update = plan(&current, &request, true).unwrap();
        assert_eq!(update.resources["memory"], json!({ "limit": 50_000, "swap": 70_000 }));
        assert_eq!(update.change.memory().and_then(|memory| memory.swap()), None);
    }

    #[test]
    fn mistakes_are_named_by_their_place_in_the_request() {
        let problem =
            |request: Value| plan(&json!({ "memory": { "limit": 100_000 } }), &request, false).unwrap_err().to_string();
        assert!(problem(json!({ "memory": { "swap": 50_000 } })).contains("/memory/swap: memory+swap limit should be"));
        assert!(problem(json!({ "cpu": 7 })).starts_with("invalid limits: /cpu: "));
        assert!(problem(json!([])).contains("must be a JSON object"));
    }
}
