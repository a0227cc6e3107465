//! Tests that need a kernel with everything: all controllers of cgroup v2, AppArmor, SELinux, pressure, and one that CRIU knows.
//! Debian's, in a virtual machine (contrib/guest/qemu-test), runs them by this same binary; what it says there is said
//! again here.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::checkpoint::boots_debian;
use crate::support::runtime::engine;
use crate::support::{Runtime, needs_root, skip};

/// A processor that is emulated takes a second for a container, and several for its images.
const FILTERS: &[&str] = &[
    "apparmor::",
    "controllers::",
    "restored::",
    "cgroup_module::",
    "differential::cgroups::block_io",
    "differential::cgroups::cpuset",
    "differential::cgroups::huge_pages",
    "joined::several_maps",
    "joined::time_offsets",
    "newer::time_namespace_with_offsets",
    "process_fields::cpu_affinity_is_for_exec_alone",
    "verbs::events_tell_of_memory_that_ran_out",
    "verbs::update_refuses_what_is_wrong",
];

#[test]
fn all_controllers_apparmor_and_criu() {
    run("", FILTERS);
}

#[test]
fn selinux() {
    run("security=selinux", &["selinux::"]);
}

/// Boots the guest with that on the kernel's command line, and runs these tests in it.
fn run(kernel: &str, filters: &[&str]) {
    if std::env::var_os("RTX_TEST_GUEST").is_some() {
        skip!("this is the guest");
    }
    needs_root!();
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() || engine().is_some() {
        skip!("the guest tests rtx's own engine");
    }
    boots_debian!();
    // The root file system shares the directory of programs that tests compile, where the probe has to be by then.
    crate::support::payload::probe();
    let mut guest = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/guest/qemu-test"));
    guest.arg(std::env::current_exe().expect("the path of the tests")).arg(&runtime.program).args(filters);
    let output =
        guest.env("GUEST_TIME", "900").env("GUEST_KERNEL", kernel).output().expect("run contrib/guest/qemu-test");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut stderr = std::io::stderr();
    for line in text.lines().filter(|line| line.starts_with("test ") || line.starts_with("SKIP ")) {
        let _ = writeln!(stderr, "Debian's kernel: {line}");
    }
    assert!(output.status.success(), "the guest failed ({}):\n{text}\n{errors}", output.status);
    assert!(text.contains("test result: ok"), "the guest ran no test:\n{text}\n{errors}");
}
