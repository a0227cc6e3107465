//! The harness: bundles, the runtimes that run them, and what must not be left behind.
//!
//! The runtime under test is the `rtx` that cargo built with these tests; `RTX_TEST_RUNTIME` names another one, and
//! `RTX_TEST_ENGINE` adds `--engine` to its global flags. `RTX_TEST_PEER` names the runtime to compare with (`runc`).

pub mod bundle;
pub mod chance;
pub mod children;
pub mod container;
pub mod image;
pub mod keeper;
pub mod leftover;
pub mod payload;
pub mod runtime;
pub mod terminal;
pub mod tracer;
pub mod units;

pub use bundle::Bundle;
pub use container::Container;
pub use runtime::{Output, Runtime};

use std::io::Write;

/// Says that a test was skipped, and why, on the real stderr: libtest captures only what goes through `print!`.
pub fn report_skip(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// Says what a test has tried, and what came of it, in the same way; contrib/build/test repeats it at the end.
pub fn report_total(text: &str) {
    let _ = writeln!(std::io::stderr(), "TOTAL {text}");
}

/// The name of the test that is running: libtest names its threads so.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

/// Whether this process is root in the initial user namespace.
pub fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Ends the test and says why it could not run here.
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::support::report_skip(&$crate::support::test_name(), &format!($($reason)*));
        return;
    }};
}

/// Ends a test that needs root when there is none.
macro_rules! needs_root {
    () => {
        if !$crate::support::is_root() {
            $crate::support::skip!("needs root");
        }
    };
}

/// The runtime under test; ends a test that is about rtx's own engine when that is not what is tested.
macro_rules! own_engine {
    () => {{
        $crate::support::needs_root!();
        let runtime = $crate::support::Runtime::under_test();
        if !runtime.is_rtx() || $crate::support::runtime::engine().is_some_and(|name| name != "oci") {
            $crate::support::skip!("the runtime under test is not rtx with its own engine");
        }
        runtime
    }};
}

pub(crate) use {needs_root, own_engine, skip};

/// Changes the record of a container by hand, as nobody should: `directory` is that of its state.
pub fn edit_record(directory: &std::path::Path, change: impl FnOnce(&mut serde_json::Value)) {
    edit(&directory.join("state.json"), change);
}

/// The same for any file of JSON, of which the last line counts.
pub fn edit(path: &std::path::Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = std::fs::read_to_string(path).expect("read the record");
    let mut record = serde_json::from_str(text.lines().last().expect("a record")).expect("the record is JSON");
    change(&mut record);
    std::fs::write(path, record.to_string()).expect("write the record");
}
