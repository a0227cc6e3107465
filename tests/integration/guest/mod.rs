//! Tests that this host cannot run: on cgroup v2 alone, under systemd. They run in a guest (contrib/guest), by this same
//! binary, and what it says there is said again here.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::runtime::{engine, find_program};
use crate::support::{Runtime, needs_root, skip};

/// What depends on the kind of host, and a choice of what is compared with runc. A guest is a slow machine with one
/// processor, which takes a second or two for a container.
const FILTERS: &[&str] = &[
    "systemd::",
    "cgroup_module::",
    "differential::cgroups::cpu_quota",
    "differential::cgroups::cpu_shares",
    "differential::cgroups::devices_one_allowed",
    "differential::cgroups::everything",
    "differential::cgroups::memory_limit",
    "differential::cgroups::path_nested",
    "differential::cgroups::pids",
    "errors::apparmor_where_there_is_none",
    "errors::memory_limit_too_small",
    "verbs::the_outputs_have_the_form_of_the_peers",
];

#[test]
fn cgroup_v2_and_systemd() {
    if std::env::var_os("RTX_TEST_GUEST").is_some() {
        skip!("this is the guest");
    }
    needs_root!();
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() || engine().is_some() {
        skip!("the guest tests rtx's own engine");
    }
    if !cfg!(target_arch = "x86_64") {
        skip!("user-mode-linux is there for x86_64 alone");
    }
    for program in ["linux.uml", "mmdebstrap", "mke2fs", "gcc"] {
        if find_program(program).is_none() {
            skip!("{program} is not installed; `make test` installs it");
        }
    }
    // The root file system shares the directory of programs that tests compile, where the probe has to be by then.
    crate::support::payload::probe();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/guest/test");
    let own = std::env::current_exe().expect("the path of the tests");
    let output =
        Command::new(script).arg(own).arg(&runtime.program).args(FILTERS).output().expect("run contrib/guest/test");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut stderr = std::io::stderr();
    for line in text.lines().filter(|line| line.starts_with("test ") || line.starts_with("SKIP ")) {
        let _ = writeln!(stderr, "guest: {line}");
    }
    assert!(output.status.success(), "the guest failed ({}):\n{text}\n{errors}", output.status);
    assert!(text.contains("test result: ok"), "the guest ran no test:\n{text}\n{errors}");
}
