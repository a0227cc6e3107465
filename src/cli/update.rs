//! `rtx update`: limits from flags or from JSON.

use super::Context;
use super::args::UpdateArgs;
use crate::config::resctrl;
use crate::stages::update;
use crate::sys::{On, errno_of};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

pub fn update(context: &Context, args: UpdateArgs) -> Result<i32> {
    refuse_rdt(&args)?;
    let request = match &args.resources {
        Some(path) => read(path)?,
        None => from_flags(&args),
    };
    update::update(&context.root, &args.id, &request)?;
    Ok(0)
}

/// The limits that the flags give, as the `linux.resources` object that says the same.
fn from_flags(args: &UpdateArgs) -> Value {
    let section = |limits: &[(&str, Option<Value>)]| {
        let given = limits.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        Value::Object(given.collect::<Map<_, _>>())
    };
    let cpu = section(&[
        ("shares", args.cpu_share.map(Value::from)),
        ("quota", args.cpu_quota.map(Value::from)),
        ("period", args.cpu_period.map(Value::from)),
        ("burst", args.cpu_burst.map(Value::from)),
        ("idle", args.cpu_idle.map(Value::from)),
        ("realtimePeriod", args.cpu_rt_period.map(Value::from)),
        ("realtimeRuntime", args.cpu_rt_runtime.map(Value::from)),
        ("cpus", args.cpuset_cpus.clone().map(Value::from)),
        ("mems", args.cpuset_mems.clone().map(Value::from)),
    ]);
    let memory = section(&[
        ("limit", args.memory.map(Value::from)),
        ("reservation", args.memory_reservation.map(Value::from)),
        ("swap", args.memory_swap.map(Value::from)),
    ]);
    let pids = section(&[("limit", args.pids_limit.map(Value::from))]);
    let block_io = section(&[("weight", args.blkio_weight.map(Value::from))]);
    let mut request = json!({ "cpu": cpu, "memory": memory, "pids": pids, "blockIO": block_io });
    if let Some(sections) = request.as_object_mut() {
        // An empty `pids` would be one that lacks its limit.
        sections.retain(|_, limits| *limits != json!({}));
    }
    request
}

/// Reads `--resources`: `-` is standard input.
fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    let (name, result) = match path.to_str() {
        Some("-") => ("standard input".to_owned(), std::io::stdin().read_to_end(&mut text)),
        _ => {
            let result = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text));
            (path.display().to_string(), result)
        }
    };
    result.map_err(|error| errno_of(&error)).on("read", &name).context("--resources")?;
    serde_json::from_slice(&text)
        .map_err(|error| anyhow!("--resources: {name} is not valid JSON: {}", explain(&text, &error)))
}

/// What is wrong with JSON, with the character that does not belong there, as runc names it.
fn explain(text: &[u8], error: &serde_json::Error) -> String {
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    match line.and_then(|line| line.get(error.column().checked_sub(1)?)) {
        Some(byte) if error.is_syntax() && byte.is_ascii_graphic() => {
            format!("invalid character {:?}: {error}", char::from(*byte))
        }
        _ => error.to_string(),
    }
}

/// The schemata of a container are set when it is made.
fn refuse_rdt(args: &UpdateArgs) -> Result<()> {
    let given = [("--l3-cache-schema", &args.l3_cache_schema), ("--mem-bw-schema", &args.mem_bw_schema)];
    let Some((flag, _)) = given.into_iter().find(|(_, schema)| schema.as_ref().is_some_and(|text| !text.is_empty()))
    else {
        return Ok(());
    };
    match resctrl::mount_point() {
        Some(root) => {
            bail!("{flag}: rtx does not change Intel RDT schemata; write to the group's file below {}", root.display())
        }
        None => bail!("{flag}: Intel RDT is not enabled: this host has no resctrl file system mounted"),
    }
}
