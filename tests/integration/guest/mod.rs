//! Tests that this host cannot run: under systemd, with each kind of cgroups. They run in a guest (contrib/guest), by this same
//! binary, and what it says there is said again here.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::support::runtime::{engine, find_program};
use crate::support::{Runtime, needs_root, skip};

/// What depends on the kind of host, and a choice of what is compared with runc. A guest is a slow machine with one
/// processor, which takes a second or two for a container.
const V2: &[&str] = &[
    "bundles::limits",
    "cli::outputs::spec_",
    "systemd::",
    "cgroup_module::",
    "delegation::",
    "differential::cgroups::cpu_quota",
    "differential::cgroups::cpu_shares",
    "differential::cgroups::devices_one_allowed",
    "differential::cgroups::everything",
    "differential::cgroups::memory_limit",
    "differential::cgroups::path_nested",
    "differential::cgroups::pids",
    "differential::exec::process_label",
    "differential::idmaps::identity",
    "errors::apparmor_where_there_is_none",
    "errors::memory_limit_too_small",
    "hierarchies::layouts_of_cgroup_v2_alone",
    "hierarchies::the_options_of_cgroup_v2",
    "supervised::life::smaster_has_a_cgroup_of_its_own",
    "verbs::an_update_",
    "verbs::events_tell_of_memory_that_ran_out",
    "verbs::the_outputs_have_the_form_of_the_peers",
];

const V1: &[&str] = &[
    "systemd::a_",
    "systemd::all_devices_but_one",
    "systemd::devices_are_ruled_through_a_reload",
    "systemd::limits",
    "systemd::no_limits",
    "systemd::owners::",
    "systemd::rootless::rootless_on_cgroup_v1",
    "systemd::stopped_from_outside",
    "systemd::update_tells_systemd",
    "differential::cgroups::pids_limit",
];

/// Where systemd keeps track of processes by the v2 hierarchy, which has no controllers.
const HYBRID: &[&str] = &[
    "cgroup_module::cgroup_life",
    "hierarchies::the_options_of_cgroup_v2",
    "supervised::life::smaster_has_a_cgroup_of_its_own",
    "systemd::a_scope_on_cgroup_v1",
    "systemd::devices_are_ruled_through_a_reload",
    "systemd::limits",
    "systemd::owners::delete_force_of_a_lost_record",
];

#[test]
fn cgroup_v2_and_systemd() {
    run("v2", V2);
}

#[test]
fn cgroup_v1_and_systemd() {
    run("v1", V1);
}

#[test]
fn hybrid_cgroups_and_systemd() {
    run("hybrid", HYBRID);
}

/// Boots a guest with cgroups of that kind, and runs these tests in it.
fn run(cgroups: &str, filters: &[&str]) {
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
    let mut guest = Command::new(script);
    // Two minutes where nothing else runs.
    guest.arg(own).arg(&runtime.program).args(filters).env("GUEST_CGROUPS", cgroups).env("GUEST_TIME", "1200");
    let output = guest.output().expect("run contrib/guest/test");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut stderr = std::io::stderr();
    for line in text.lines().filter(|line| line.starts_with("test ") || line.starts_with("SKIP ")) {
        let _ = writeln!(stderr, "guest with {cgroups}: {line}");
    }
    assert!(output.status.success(), "the guest failed ({}):\n{text}\n{errors}", output.status);
    assert!(text.contains("test result: ok"), "the guest ran no test:\n{text}\n{errors}");
}
