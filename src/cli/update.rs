//! `rtx update`: limits from flags or from JSON.

use super::args::UpdateArgs;
use super::values::Optional;
use super::{Context, report};
use crate::config::{json as document, resctrl};
use crate::stages::update;
use anyhow::{Context as _, Result, anyhow, bail};
use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Each limit that a flag gives: its place in `linux.resources`, and the flag.
const FLAGS: &[(&str, &str, &str)] = &[
    ("cpu", "shares", "--cpu-share"),
    ("cpu", "quota", "--cpu-quota"),
    ("cpu", "period", "--cpu-period"),
    ("cpu", "burst", "--cpu-burst"),
    ("cpu", "idle", "--cpu-idle"),
    ("cpu", "realtimePeriod", "--cpu-rt-period"),
    ("cpu", "realtimeRuntime", "--cpu-rt-runtime"),
    ("cpu", "cpus", "--cpuset-cpus"),
    ("cpu", "mems", "--cpuset-mems"),
    ("memory", "limit", "--memory"),
    ("memory", "reservation", "--memory-reservation"),
    ("memory", "swap", "--memory-swap"),
    ("memory", "kernel", "--kernel-memory"),
    ("memory", "kernelTCP", "--kernel-memory-tcp"),
    ("pids", "limit", "--pids-limit"),
    ("blockIO", "weight", "--blkio-weight"),
];

pub fn update(context: &Context, args: UpdateArgs) -> Result<i32> {
    let rdt = rdt(&args)?;
    let request = match &args.resources {
        Some(path) => read(path)?,
        None => from_flags(&args),
    };
    let name = |text: &str| if args.resources.is_some() { by_pointers(text) } else { by_flags(text) };
    match update::update(&context.root, &args.id, &request, rdt.as_ref()) {
        Ok(warnings) => {
            let warnings: Vec<String> = warnings.iter().map(|warning| name(warning)).collect();
            report::warn(&format!("rtx update {}", args.id), &warnings);
            Ok(0)
        }
        Err(error) => {
            let text = report::explain(&error);
            let named = name(&text);
            // What names no limit keeps its type.
            if named == text { Err(error) } else { Err(anyhow!(named)) }
        }
    }
}

/// The limits that the flags give, as the `linux.resources` object that says the same.
fn from_flags(args: &UpdateArgs) -> Value {
    fn number<T: Copy + Into<Value>>(given: &Option<Optional<T>>) -> Option<Value> {
        given.as_ref().and_then(|Optional(value)| *value).map(Into::into)
    }
    let value = |flag: &str| match flag {
        "--cpu-share" => number(&args.cpu_share),
        "--cpu-quota" => number(&args.cpu_quota),
        "--cpu-period" => number(&args.cpu_period),
        "--cpu-burst" => number(&args.cpu_burst),
        "--cpu-idle" => number(&args.cpu_idle),
        "--cpu-rt-period" => number(&args.cpu_rt_period),
        "--cpu-rt-runtime" => number(&args.cpu_rt_runtime),
        "--cpuset-cpus" => args.cpuset_cpus.clone().map(Value::from),
        "--cpuset-mems" => args.cpuset_mems.clone().map(Value::from),
        "--memory" => number(&args.memory),
        "--memory-reservation" => number(&args.memory_reservation),
        "--memory-swap" => number(&args.memory_swap),
        "--kernel-memory" => number(&args.kernel_memory),
        "--kernel-memory-tcp" => number(&args.kernel_memory_tcp),
        "--pids-limit" => args.pids_limit.map(Value::from),
        "--blkio-weight" => args.blkio_weight.map(Value::from),
        _ => None,
    };
    let mut request = Map::new();
    for (section, name, flag) in FLAGS {
        if let Some(value) = value(flag) {
            // A section that nothing was given for stays away: an empty `pids` would be one that lacks its limit.
            let section = request.entry(*section).or_insert_with(|| json!({}));
            section[*name] = value;
        }
    }
    Value::Object(request)
}

/// Where limits are in a config.json; in a file for `--resources` they are at its top.
const RESOURCES: &str = "/linux/resources";

/// A message with pointers into the file, not into the container's configuration.
fn by_pointers(message: &str) -> String {
    message.replace(&format!("{RESOURCES}/"), "/")
}

/// A message with flags in place of the pointers that mean the same.
fn by_flags(message: &str) -> String {
    let is_of_a_name = |letter: char| letter.is_alphanumeric() || letter == '/';
    let mut message = by_pointers(message);
    for (section, name, flag) in FLAGS {
        let pointer = format!("/{section}/{name}");
        let mut at = 0;
        while let Some(found) = message[at..].find(&pointer).map(|found| at + found) {
            let end = found + pointer.len();
            let is_whole = !message[..found].ends_with(|letter: char| is_of_a_name(letter) || letter == '.')
                && !message[end..].starts_with(is_of_a_name);
            if is_whole {
                message.replace_range(found..end, flag);
            }
            at = if is_whole { found + flag.len() } else { end };
        }
    }
    message
}

/// Reads `--resources`: `-` is standard input.
fn read(path: &Path) -> Result<Value> {
    let (name, bytes) = match path.to_str() {
        Some("-") => ("standard input".to_owned(), document::read_from(std::io::stdin(), 0, "standard input")),
        _ => (path.display().to_string(), document::read_stream(path)),
    };
    let bytes = bytes.context("--resources")?;
    document::parse(&bytes).map_err(|error| anyhow!("--resources: {name} is not valid JSON: {error}"))
}

/// The schemata that the flags give; `None` where they give none.
fn rdt(args: &UpdateArgs) -> Result<Option<LinuxIntelRdt>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (cache, bandwidth) = (given(&args.l3_cache_schema), given(&args.mem_bw_schema));
    if cache.is_none() && bandwidth.is_none() {
        return Ok(None);
    }
    let flag = if cache.is_some() { "--l3-cache-schema" } else { "--mem-bw-schema" };
    let Some(root) = resctrl::mount_point() else {
        bail!("{flag}: Intel RDT is not enabled: this host has no resctrl file system mounted");
    };
    if cache.is_some() && !["L3", "L3CODE"].iter().any(|name| resctrl::has(&root, name)) {
        bail!("--l3-cache-schema: Intel RDT/CAT is not enabled: the processors do not divide the L3 cache");
    }
    if bandwidth.is_some() && !resctrl::has(&root, "MB") {
        bail!("--mem-bw-schema: Intel RDT/MBA is not enabled: the processors do not divide the memory's bandwidth");
    }
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_l3_cache_schema(cache).set_mem_bw_schema(bandwidth);
    Ok(Some(rdt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_what_was_typed() {
        let text = "/linux/resources/memory/limit: write \"5\" to /sys/fs/cgroup/memory/limit: no, and /cpu/quota: bad";
        assert_eq!(by_flags(text), "--memory: write \"5\" to /sys/fs/cgroup/memory/limit: no, and --cpu-quota: bad");
        assert_eq!(
            by_pointers(text),
            "/memory/limit: write \"5\" to /sys/fs/cgroup/memory/limit: no, and /cpu/quota: bad"
        );
    }
}
