//! `doctor`: what this host can do and what not. Everything is looked at and nothing is changed: what has to be tried is
//! tried in a process, a namespace or a mount that nobody else sees and that is gone at once.

mod cgroups;
mod host;
mod kernel;

use serde::Serialize;
use std::path::Path;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub area: &'static str,
    pub name: String,
    pub ok: bool,
    /// What there is, or why it is not.
    pub found: String,
    /// What cannot be had without it, and how to mend that. Absent where nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lack: Option<Lack>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lack {
    pub cost: String,
    pub mend: String,
    /// No container can run.
    pub fatal: bool,
}

impl Check {
    fn ok(area: &'static str, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { area, name: name.into(), ok: true, found: found.into(), lack: None }
    }

    fn missing(
        area: &'static str,
        name: impl Into<String>,
        found: impl Into<String>,
        (cost, mend): (impl Into<String>, impl Into<String>),
    ) -> Self {
        let lack = Lack { cost: cost.into(), mend: mend.into(), fatal: false };
        Self { area, name: name.into(), ok: false, found: found.into(), lack: Some(lack) }
    }

    fn fatal(mut self) -> Self {
        if let Some(lack) = &mut self.lack {
            lack.fatal = true;
        }
        self
    }
}

/// Who asks, and for which directory of state.
pub struct Subject<'a> {
    pub root: &'a Path,
    pub criu: &'a Path,
    pub rootless: bool,
}

/// Everything, in the order in which a container meets it.
pub fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = kernel::examine(subject);
    checks.extend(cgroups::examine(subject));
    checks.extend(host::examine(subject));
    checks
}

/// Whether any container can run here.
pub fn can_run(checks: &[Check]) -> bool {
    !checks.iter().any(|check| check.lack.as_ref().is_some_and(|lack| lack.fatal))
}
