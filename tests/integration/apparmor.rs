//! AppArmor profiles for the container's program and for others in it. Most kernels of containers' hosts have it, and
//! Debian's has (contrib/guest/qemu-test); elsewhere this is skipped.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::runtime::{find_program, next_number};
use crate::support::{Bundle, Container, Runtime, needs_root, skip};

/// Ends the test where no profile can be loaded.
macro_rules! needs_apparmor {
    () => {
        needs_root!();
        if !Path::new("/sys/kernel/security/apparmor/profiles").exists() {
            skip!("this kernel has no AppArmor, or securityfs is not mounted");
        }
        if find_program("apparmor_parser").is_none() {
            skip!("no apparmor_parser: install the package apparmor");
        }
    };
}

/// A profile that is there as long as this value: all is allowed but one path.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn load(denied: &str) -> Profile {
        let name = format!("rtx-test-{}-{}", std::process::id(), next_number());
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
             \tfile,\n\tcapability,\n\tnetwork,\n\tmount,\n\tumount,\n\tpivot_root,\n\tsignal,\n\tptrace,\n\tunix,\n\
             \tdeny {denied} w,\n}}\n"
        );
        let profile = Profile { name, text };
        assert!(profile.parser("--replace"), "apparmor_parser did not load {}", profile.text);
        profile
    }

    fn parser(&self, action: &str) -> bool {
        let file = std::env::temp_dir().join(&self.name);
        std::fs::write(&file, &self.text).expect("write a profile");
        let done = Command::new("apparmor_parser").args([action, "--skip-cache"]).arg(&file).status();
        let _ = std::fs::remove_file(&file);
        done.is_ok_and(|status| status.success())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

const CURRENT: &str = "cat /proc/self/attr/apparmor/current";

#[test]
fn a_profile_confines_the_program_and_what_is_executed_beside_it() {
    needs_apparmor!();
    let (of_init, of_other) = (Profile::load("/tmp/denied"), Profile::load("/tmp/other"));
    let runtime = Runtime::under_test();
    let script = format!("{CURRENT}; echo x >/tmp/denied; echo x >/tmp/other && echo wrote; exec sleep 600");
    let mut bundle = Bundle::shell(&script);
    bundle.set("/process/apparmorProfile", json!(of_init.name)).set("/root/readonly", json!(false));
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("wrote");
    assert_eq!(container.stdout(), format!("{} (enforce)\nwrote\n", of_init.name));
    assert!(!bundle.rootfs().join("tmp/denied").exists());

    let seen = |flags: &[&str]| container.exec(flags, &["sh", "-c", CURRENT]).ok().stdout;
    assert_eq!(seen(&[]), format!("{} (enforce)\n", of_init.name));
    assert_eq!(seen(&["--apparmor", &of_other.name]), format!("{} (enforce)\n", of_other.name));
    container.exec(&["--apparmor", &of_other.name], &["sh", "-c", "echo x >/tmp/denied && ! echo x >/tmp/other"]).ok();
    assert_ne!(container.exec(&[], &["sh", "-c", "echo x >/tmp/denied"]).code, 0);
}

#[test]
fn a_profile_holds_with_no_new_privileges_and_in_a_user_namespace() {
    needs_apparmor!();
    let profile = Profile::load("/tmp/denied");
    let runtime = Runtime::under_test();
    for mapped in [false, true] {
        let mut bundle = Bundle::shell(CURRENT);
        bundle.set("/process/apparmorProfile", json!(profile.name)).set("/process/noNewPrivileges", json!(true));
        if mapped {
            let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
            bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        }
        let container = Container::new(&runtime, &bundle);
        let output = container.run(&[]).ok();
        assert_eq!(output.stdout, format!("{} (enforce)\n", profile.name), "mapped: {mapped}");
    }
}

#[test]
fn an_unknown_profile_is_refused() {
    needs_apparmor!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.set("/process/apparmorProfile", json!("rtx-test-nosuch"));
    let container = Container::new(&runtime, &bundle);
    let refused = container.create();
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for words in ["apparmor failed to apply profile", "rtx-test-nosuch", "no such file or directory"] {
        assert!(refused.stderr.to_lowercase().contains(words), "{words:?} is not in {}", refused.stderr);
    }
    assert_eq!(container.status(), "");
    let plain = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &plain);
    container.run_detached(&[]).ok();
    let refused = container.exec(&["--apparmor", "rtx-test-nosuch"], &["true"]);
    assert!(refused.code != 0 && refused.stderr.contains("rtx-test-nosuch"), "{}: {}", refused.code, refused.stderr);
}

#[test]
fn unconfined_is_no_profile() {
    needs_apparmor!();
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell(CURRENT));
    bundle.set("/process/apparmorProfile", json!("unconfined"));
    let container = Container::new(&runtime, &bundle);
    assert_eq!(container.run(&[]).ok().stdout, "unconfined\n");
}
