//! `update`: changes the limits of a container that runs, and its configuration with them.

use super::lifecycle::Live;
use super::supervisor::view::tell;
use crate::config::update;
use crate::engine::live;
use crate::state::Status;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Value, json};
use std::path::Path;

/// Changes the limits that `request`, a part of a `linux.resources` object, gives, and the schemata of `rdt`. Either all of them change or, as far
/// as it is in rtx's hands, none.
///
/// Returns what of it changes nothing.
///
/// # Errors
/// Where the container is stopped; what is wrong with the request; what the kernel refused, by file and value.
pub fn update(root: &Path, id: &str, request: &Value, rdt: Option<&LinuxIntelRdt>) -> Result<Vec<String>> {
    let mut live = Live::open_locked(root, id)?;
    if live.status()? == Status::Stopped {
        bail!("container not running");
    }
    let damaged = || format!("the configuration of container {id:?} is damaged");
    let mut config: Value = serde_json::from_slice(&live.container.state.config()?).with_context(damaged)?;
    let current = config.pointer("/linux/resources").filter(|value| value.is_object()).cloned();
    let swap_is_apart = live::swap_is_apart(&live.container);
    let update = update::plan(&current.unwrap_or_else(|| json!({})), request, swap_is_apart)?;
    let take_back = live.engine.update(&mut live.container, &update.change)?;
    let rest = || -> Result<()> {
        if let Some(rdt) = rdt {
            live.engine.update_schemata(&mut live.container, rdt)?;
        }
        let config_object = config.as_object_mut().with_context(damaged)?;
        let linux = config_object.entry("linux").or_insert(Value::Null);
        if linux.is_null() {
            *linux = json!({});
        }
        let linux = linux.as_object_mut().with_context(damaged)?;
        linux.insert("resources".into(), update.resources);
        if let Some(rdt) = rdt {
            let known = linux.entry("intelRdt").or_insert_with(|| json!({}));
            if let (Some(known), Value::Object(given)) = (known.as_object_mut(), serde_json::to_value(rdt)?) {
                known.extend(given);
            }
        }
        live.container.state.replace_config(&serde_json::to_vec(&config)?)
    };
    if let Err(error) = { rest }() {
        take_back();
        return Err(error);
    }
    tell(&live.container, "updated", request);
    Ok(update.warnings)
}
