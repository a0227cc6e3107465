//! Mounts beyond what the packaged runc can: idmapped ones, crun's options for symbolic links, recursive attributes.

mod file_systems;
mod host_root;
mod idmap;
mod links;
mod masks;
mod order;
mod recursive;
mod remount;

use serde_json::Value;

use crate::support::runtime::Output;
use crate::support::{Bundle, Container, Runtime};

/// Ends a test when the runtime under test is not rtx with its own engine.
macro_rules! only_own_engine {
    () => {{
        $crate::support::needs_root!();
        let runtime = $crate::support::Runtime::under_test();
        if !runtime.is_rtx() || $crate::support::runtime::engine().is_some_and(|engine| engine != "oci") {
            $crate::support::skip!("only for rtx's own engine");
        }
        runtime
    }};
}
pub(crate) use only_own_engine;

/// Runs a bundle in the foreground.
pub fn run(runtime: &Runtime, bundle: &Bundle) -> Output {
    Container::new(runtime, bundle).run(&[])
}

/// What the probe sees in a bundle.
#[track_caller]
pub fn seen(runtime: &Runtime, bundle: &Bundle) -> Value {
    report(run(runtime, bundle))
}

/// The same for a run that is over.
#[track_caller]
pub fn report(output: Output) -> Value {
    serde_json::from_str(&output.ok().stdout).expect("the probe prints JSON")
}
