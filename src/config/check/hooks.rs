//! config.md "POSIX-platform Hooks".

use serde_json::Value;

use super::{Report, integer, list, names, present, process, text};

pub(super) fn check(report: &mut Report, config: &Value) {
    let Some(hooks) = present(config, "hooks") else { return };
    for point in names::HOOKS {
        for (index, hook) in list(hooks, point).iter().enumerate() {
            check_hook(report, hook, &format!("/hooks/{point}/{index}"));
        }
    }
}

fn check_hook(report: &mut Report, hook: &Value, at: &str) {
    if let Some(path) = text(hook, "path")
        && !path.starts_with('/')
    {
        report.error(
            format!("{at}/path"),
            format!("hook path {path:?} must be absolute"),
            "write the full path: hooks are not looked up in $PATH",
        );
    }
    if integer(hook, "timeout").is_some_and(|seconds| seconds <= 0) {
        report.error(format!("{at}/timeout"), "hook timeout must be greater than zero", "give seconds, or remove it");
    }
    process::check_environment(report, hook, at);
}
