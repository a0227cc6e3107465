//! rtx's own configuration file: which engine runs containers and how engines are set up. The file is looked for in
//! `--config`, `$XDG_CONFIG_HOME/rtx/rtx.json` and `/etc/rtx/rtx.json`; the first that exists is the one that counts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::supervision::{Backoff, OutputFormat};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// The system's configuration file.
pub const SYSTEM_FILE: &str = "/etc/rtx/rtx.json";

/// The content of `rtx.json`. A key that is not here is an error.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RtxConfig {
    /// JSON Schema of this file, for editors; not used.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The engine of containers that name none.
    pub engine: Option<String>,
    /// Settings of the engines by name, in each engine's own form.
    pub engines: BTreeMap<String, Value>,
    /// Lets engines run that do not confine what they run (`native`), as `--allow-unconfined` does.
    pub allow_unconfined: bool,
    /// The state directory, where `--root` does not name one. Absolute.
    pub root: Option<PathBuf>,
    /// Whether containers are supervised that no flag says it of.
    pub supervise: Supervise,
    /// How those are supervised that are.
    pub supervision: SupervisionDefaults,
}

/// `supervise`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub enum Supervise {
    /// Only with `--supervise`.
    #[default]
    Never,
    /// Those of `run --detach`, unless the caller is one who watches them himself.
    Auto,
    /// Those of `run --detach` and of `create`.
    Always,
}

impl TryFrom<Value> for Supervise {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::Bool(false) => Ok(Self::Never),
            Value::Bool(true) => Ok(Self::Always),
            Value::String(text) if text == "auto" => Ok(Self::Auto),
            _ => Err(format!("supervise is none of true, false and \"auto\": {value}")),
        }
    }
}

/// `supervision`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SupervisionDefaults {
    pub backoff: Backoff,
    pub output: OutputDefaults,
}

/// `supervision.output`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OutputDefaults {
    pub format: Option<OutputFormat>,
    pub max_size: Option<u64>,
    pub max_files: Option<u32>,
}

/// Reads the configuration. A file named by `--config` must exist; without any file the defaults hold.
pub fn load(explicit: Option<&Path>) -> Result<RtxConfig> {
    if let Some(path) = explicit {
        let text = std::fs::read_to_string(path).with_context(|| format!("read configuration {}", path.display()))?;
        return parse(path, &text);
    }
    for path in default_files(std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from)) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(&path, &text),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error).with_context(|| format!("read configuration {}", path.display())),
        }
    }
    Ok(RtxConfig::default())
}

/// A relative `$XDG_CONFIG_HOME` is ignored, as the XDG base directory specification demands.
fn default_files(config_home: Option<PathBuf>) -> impl Iterator<Item = PathBuf> {
    let user = config_home.filter(|home| home.is_absolute()).map(|home| home.join("rtx/rtx.json"));
    user.into_iter().chain([PathBuf::from(SYSTEM_FILE)])
}

/// serde_json's errors name the key, the line and the column; the file is added here.
fn parse(path: &Path, text: &str) -> Result<RtxConfig> {
    let config: RtxConfig =
        serde_json::from_str(text).with_context(|| format!("parse configuration {}", path.display()))?;
    if let Some((name, _)) = config.engines.iter().find(|(_, settings)| !settings.is_object()) {
        anyhow::bail!("parse configuration {}: engines.{name} must be an object", path.display());
    }
    if let Some(root) = config.root.as_ref().filter(|root| !root.is_absolute()) {
        anyhow::bail!("parse configuration {}: root {root:?} must be an absolute path", path.display());
    }
    config.supervision.backoff.check().with_context(|| format!("parse configuration {}", path.display()))?;
    Ok(config)
}

/// The JSON Schema (2020-12) of the file. `engines` is completed by the caller, who knows the engines and their schemas.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rtx.json",
        "description": "The configuration of rtx",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "$schema": { "type": "string", "description": "The schema of this file, for editors" },
            "engine": { "type": "string", "description": "The engine of containers that name none", "default": "oci" },
            "engines": {
                "type": "object",
                "description": "Settings of the engines by name",
                "additionalProperties": { "type": "object" }
            },
            "allowUnconfined": {
                "type": "boolean",
                "description": "Lets engines run that do not confine what they run",
                "default": false
            },
            "root": {
                "type": "string",
                "pattern": "^/",
                "description": "The state directory, where --root does not name one"
            },
            "supervise": {
                "enum": [false, true, "auto"],
                "description": "Whether containers are supervised without --supervise: those of run --detach and create; \"auto\": those of run --detach, but not under conmon or a shim",
                "default": false
            },
            "supervision": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "backoff": {
                        "type": "object",
                        "additionalProperties": false,
                        "description": "The time before a restart; the first in a row does not wait",
                        "properties": {
                            "delay": { "type": "integer", "minimum": 0, "default": 500, "description": "Milliseconds before the second" },
                            "factor": { "type": "number", "minimum": 1, "maximum": 100, "default": 1.5 },
                            "jitter": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.5 },
                            "maxDelay": { "type": "integer", "minimum": 0, "default": 60000 },
                            "resetAfter": { "type": "integer", "minimum": 0, "default": 10000, "description": "Milliseconds of a run after which it begins anew" }
                        }
                    },
                    "output": {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "format": { "enum": ["k8s-file", "json-lines", "plain", "none"], "default": "k8s-file" },
                            "maxSize": { "type": "integer", "minimum": 1, "default": 16777216, "description": "Bytes of a file" },
                            "maxFiles": { "type": "integer", "minimum": 1, "default": 4 }
                        }
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", parse(Path::new("/x/rtx.json"), text).unwrap_err())
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"{"engine":"mock","engines":{"mock":{"a":1}},"allowUnconfined":true,"root":"/r",
            "supervise":"auto","supervision":{"backoff":{"delay":1},"output":{"format":"plain","maxFiles":2}}}"#;
        let config = parse(Path::new("f"), text).unwrap();
        assert_eq!(config.engine.as_deref(), Some("mock"));
        assert_eq!(config.engines["mock"]["a"], 1);
        assert!(config.allow_unconfined);
        assert_eq!(config.root.as_deref(), Some(Path::new("/r")));
        assert_eq!((config.supervise, config.supervision.backoff.delay), (Supervise::Auto, 1));
        assert_eq!(config.supervision.output.format, Some(OutputFormat::Plain));
        assert!(error(r#"{"supervise":"yes"}"#).contains("none of true, false and"));
        assert!(error(r#"{"supervision":{"backoff":{"factor":0}}}"#).contains("factor"));
    }

    #[test]
    fn errors_name_file_place_and_key() {
        let text = error("{\n  \"engin\": \"oci\"\n}");
        assert!(text.contains("/x/rtx.json") && text.contains("engin") && text.contains("line 2"), "{text}");
        assert!(error(r#"{"engines":{"vm":3}}"#).contains("engines.vm must be an object"));
        assert!(error(r#"{"root":"r"}"#).contains("absolute"));
        assert!(error("{").contains("line 1"));
    }

    #[test]
    fn a_named_file_must_exist_and_others_need_not() {
        assert!(load(Some(Path::new("/nonexistent/rtx.json"))).is_err());
        let files: Vec<_> = default_files(Some("/home/u/.config".into())).collect();
        assert_eq!(files, [Path::new("/home/u/.config/rtx/rtx.json"), Path::new(SYSTEM_FILE)]);
        assert_eq!(default_files(Some("relative".into())).count(), 1);
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = schema();
        let known: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let message = error(r#"{"?":0}"#);
        for key in known {
            assert!(message.contains(key), "{key} is in the schema but not in the structure: {message}");
        }
    }
}
