//! SELinux labels, under the policy of contrib/guest/selinux.cil: the whole of it is a page, so that what is refused is
//! known. Other policies would keep a container from the files of a test.

use std::path::Path;

use serde_json::json;

use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Output, Runtime, needs_root, skip};

const LABEL: &str = "system_u:system_r:container_t:s0:c0,c1";
const FILES: &str = "system_u:object_r:container_file_t:s0:c0,c1";
const CURRENT: &str = "tr -d '\\0' </proc/self/attr/current; echo";

macro_rules! needs_selinux {
    () => {
        needs_root!();
        if std::env::var_os("RTX_TEST_GUEST").is_none() {
            skip!("needs the policy of the guest");
        }
        if read_lossy(Path::new("/sys/fs/selinux/enforce")) != "1" {
            skip!("this kernel does not enforce SELinux");
        }
    };
}

fn labelled(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.set("/process/selinuxLabel", json!(LABEL)).set("/linux/mountLabel", json!(FILES));
    bundle.set("/root/readonly", json!(false));
    bundle
}

#[test]
fn a_label_confines_the_program_and_what_is_executed_beside_it() {
    needs_selinux!();
    let runtime = Runtime::under_test();
    let bundle = labelled(&format!("{CURRENT}; ln -s x /tmp/denied; ln -s x /dev/shm/allowed && echo made; sleep 600"));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("made");
    assert_eq!(container.stdout(), format!("{LABEL}\nmade\n"));
    assert!(bundle.rootfs().join("tmp/denied").symlink_metadata().is_err());
    let seen = |flags: &[&str]| container.exec(flags, &["sh", "-c", CURRENT]).ok().stdout;
    assert_eq!(seen(&[]), format!("{LABEL}\n"));
    let other = "system_u:system_r:container_t:s0:c1";
    assert_eq!(seen(&["--process-label", other]), format!("{other}\n"));
    assert_ne!(container.exec(&[], &["ln", "-s", "x", "/tmp/denied"]).code, 0);
}

#[test]
fn the_mounts_have_their_label() {
    needs_selinux!();
    let (runtime, bundle) = (Runtime::under_test(), labelled("cat /proc/self/mountinfo"));
    let table = Container::new(&runtime, &bundle).run(&[]).ok().stdout;
    for place in ["/dev", "/dev/pts", "/dev/shm"] {
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap_or_default();
        assert!(line.contains(&format!("context=\"{FILES}\"")), "{place}: {table}");
    }
}

/// A keyring that had its maker's label would be of no use to the container.
#[test]
fn the_session_keyring_has_the_label_too() {
    needs_selinux!();
    let runtime = Runtime::under_test();
    let mut bundle = labelled("cat /proc/keys");
    bundle.set("/linux/maskedPaths", json!([]));
    let container = Container::new(&runtime, &bundle);
    let keys = container.run(&[]).ok().stdout;
    assert!(keys.contains(&format!("_ses.{}", container.id)), "{keys}");
}

#[test]
fn a_label_that_the_policy_does_not_have_is_refused() {
    needs_selinux!();
    let runtime = Runtime::under_test();
    let run = |pointer: &str, label: &str| -> Output {
        let mut bundle = labelled("true");
        bundle.set(pointer, json!(label));
        Container::new(&runtime, &bundle).run(&[])
    };
    let label = "system_u:system_r:nosuch_t:s0";
    run("/process/selinuxLabel", label).fails(1, label).fails(1, "invalid argument");
    run("/linux/mountLabel", label).fails(1, label).fails(1, "invalid argument");
}
