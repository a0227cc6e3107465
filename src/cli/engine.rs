//! `rtx engine`: the engines there are, and how the configuration file is written.

use super::args::{EngineArgs, EngineCommand};
use super::output::{self, Table};
use crate::config::rtx_config;
use crate::engine::PROVIDERS;
use crate::engine::table::Capabilities;
use anyhow::Result;
use serde_json::{Map, Value};

pub fn engine(args: EngineArgs) -> Result<i32> {
    match args.command {
        EngineCommand::List => output::print(&list())?,
        EngineCommand::Schema => output::print_pretty(&schema())?,
    }
    Ok(0)
}

fn list() -> String {
    let mut table = Table::new(["ENGINE", "AVAILABLE", "CAPABILITIES", "ABOUT"]);
    for provider in PROVIDERS {
        let why_not = (provider.unavailable)();
        let available = if why_not.is_none() { "yes" } else { "no" };
        let about = match why_not {
            Some(why) => format!("{} (not here: {why})", provider.about),
            None => provider.about.to_owned(),
        };
        table.row(&[provider.name, available, &words(provider.capabilities), &about]);
    }
    table.text(0, 3)
}

fn words(capabilities: Capabilities) -> String {
    let all = [
        ("isolates", capabilities.isolates),
        ("exec", capabilities.exec),
        ("pause", capabilities.pause),
        ("update", capabilities.update),
        ("stats", capabilities.stats),
        ("terminal", capabilities.terminal),
    ];
    let words: Vec<_> = all.iter().filter(|(_, can)| *can).map(|(word, _)| *word).collect();
    words.join(",")
}

/// The schema of the configuration file, with each engine's own part.
fn schema() -> Value {
    let mut schema = rtx_config::schema();
    let engines: Map<String, Value> =
        PROVIDERS.iter().map(|provider| (provider.name.to_owned(), (provider.schema)())).collect();
    if let Some(object) = schema.pointer_mut("/properties/engines").and_then(Value::as_object_mut) {
        object.insert("properties".into(), Value::Object(engines));
        object.insert("additionalProperties".into(), Value::Bool(false));
    }
    schema
}
