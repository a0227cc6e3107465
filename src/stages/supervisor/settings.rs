//! What was asked of a supervised container beside its bundle. It outlives the command, for the restarts.

use super::output::Begin;
use crate::config::supervision::{Backoff, HealthCheck, OutputSettings, RestartPolicy};
use crate::engine::{EngineOperations, LaunchConfig, LaunchOptions};
use serde::{Deserialize, Serialize};

/// The supervision of one container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    pub restart: RestartPolicy,
    #[serde(default)]
    pub backoff: Backoff,
    pub output: OutputSettings,
    /// Where the container's part of files that were there before it begins, in the order of `output::paths`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begin: Vec<Option<Begin>>,
    /// Standard input stays open for `attach`.
    pub stdin: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    #[serde(default)]
    pub launch: SavedLaunch,
}

/// What a restart has to know of the first launch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SavedLaunch {
    pub engine: String,
    pub engine_config: serde_json::Value,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub systemd_cgroup: bool,
    pub no_cgroup: bool,
    pub allow_unconfined: bool,
    pub rootless: bool,
    pub terminal: bool,
}

impl SavedLaunch {
    pub fn of(launch: &LaunchConfig, engine: &dyn EngineOperations) -> Self {
        let options = &launch.options;
        Self {
            engine: engine.name().to_owned(),
            engine_config: launch.engine_config.clone(),
            no_pivot: options.no_pivot,
            no_new_keyring: options.no_new_keyring,
            systemd_cgroup: options.systemd_cgroup,
            no_cgroup: options.no_cgroup,
            allow_unconfined: options.allow_unconfined,
            rootless: options.rootless,
            terminal: launch.oci_config.process.terminal,
        }
    }

    pub fn options(&self) -> LaunchOptions {
        LaunchOptions {
            supervised: true,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            systemd_cgroup: self.systemd_cgroup,
            no_cgroup: self.no_cgroup,
            allow_unconfined: self.allow_unconfined,
            rootless: self.rootless,
            ..LaunchOptions::default()
        }
    }
}
