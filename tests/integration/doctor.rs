//! `rtx doctor`: what a host can do, told without changing anything of it.

use serde_json::Value;

use crate::fallbacks::{ENOSYS, EPERM, runtime_without};
use crate::support::runtime::{find_program, read_lossy};
use crate::support::{Output, Runtime, leftover, own_engine, payload, skip};

/// An ordinary user, who need not have a name.
const USER: &str = "--reuid=54323 --regid=54323 --clear-groups";

fn parse(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The names of what is missing.
fn missing(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().filter(|check| check["ok"] == false).filter_map(|check| check["name"].as_str()).collect()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("nothing is said of {name}"))
}

/// Whatever is missing has its cost and its remedy, and the lines say the same as the JSON.
#[track_caller]
fn whole(runtime: &Runtime, code: i32) -> Value {
    let report = runtime.run(&["doctor", "--json"]);
    assert_eq!(report.code, code, "{report:?}");
    let report = parse(&report);
    assert_eq!(report["canRun"], code == 0);
    let lines = runtime.run(&["doctor"]).stdout;
    for check in report["checks"].as_array().expect("checks") {
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let said = |key: &str| check["lack"][key].as_str().unwrap_or_default().to_owned();
        assert!(!text("area").is_empty() && !text("found").is_empty(), "{check}");
        let is_told = !said("cost").is_empty() && !said("mend").is_empty();
        assert_eq!(check["ok"] == false, is_told, "{check}");
        let mark = if check["ok"] == true { "ok       " } else { "missing  " };
        let line = format!("{mark}{}: {}: ", text("area"), text("name"));
        assert!(lines.lines().any(|told| told.starts_with(&line)), "{line:?} is not in {lines}");
    }
    report
}

#[test]
fn as_root_without_a_trace() {
    let runtime = own_engine!();
    let mounts = || read_lossy("/proc/self/mountinfo".as_ref());
    let before = mounts().lines().count();
    let report = whole(&runtime, 0);
    assert_eq!(check(&report, "making other namespaces")["ok"], true);
    assert!(!runtime.root().exists(), "the state directory was made");
    assert_eq!(leftover::cgroups("rtx-doctor"), Vec::<std::path::PathBuf>::new());
    // Other tests mount meanwhile, but nothing of the doctor's name.
    assert!(!mounts().contains("rtx-doctor"), "{before} mounts before: {}", mounts());
}

#[test]
fn as_an_ordinary_user() {
    let runtime = own_engine!();
    if find_program("setpriv").is_none() {
        skip!("needs setpriv");
    }
    let output = runtime.invoke(&["doctor", "--json"]).cwd("/".as_ref());
    // Where neither the program nor the state is in a directory of root's.
    let script = format!(
        "cp \"$1\" /tmp/rtx-doctor-$$ && chmod 755 /tmp/rtx-doctor-$$ && shift 3 && \
         setpriv {USER} /tmp/rtx-doctor-$$ \"$@\"; code=$?; rm /tmp/rtx-doctor-$$; exit $code"
    );
    let output = output.through(&["sh", "-c", &script, "sh"]).run();
    let report = parse(&output);
    // Whether users may have user namespaces is for the host to say.
    let is_allowed = check(&report, "making user namespaces")["ok"] == true;
    assert_eq!(report["canRun"], is_allowed, "{report:#}");
    assert_eq!(output.code, i32::from(!is_allowed));
    assert!(missing(&report).contains(&"/etc/subuid") && missing(&report).contains(&"idmapped mounts"), "{report:#}");
    let mend = check(&report, "/etc/subuid")["lack"]["mend"].as_str().expect("a remedy");
    assert!(mend.contains("usermod --add-subuids"), "{mend}");
}

#[test]
fn on_an_older_kernel_or_under_a_profile() {
    let _ = own_engine!();
    for (errno, found) in [(ENOSYS, "not in this kernel"), (EPERM, "refused: operation not permitted")] {
        let runtime = runtime_without("openat2 open_tree mount_setattr pidfd_open", errno);
        let report = whole(&runtime, 0);
        for name in ["openat2", "open_tree", "mount_setattr", "pidfd_open"] {
            assert_eq!(check(&report, name)["found"], found, "{name}");
        }
        assert_eq!(check(&report, "close_range")["ok"], true);
        assert_eq!(check(&report, "protection of rtx's own file")["found"], "a copy in memory");
    }
}

#[test]
fn where_no_container_can_run() {
    let runtime = own_engine!();
    // No process can be made.
    let program = payload::without().display().to_string();
    let (clone, clone3) = (libseccomp::ScmpSyscall::from_name("clone").expect("clone"), "435");
    let numbers = format!("{},{clone3}", i32::from(clone));
    let report = whole(&Runtime::under_test().wrapped(&[&program, "1", &numbers]), 1);
    assert_eq!(check(&report, "making other namespaces")["lack"]["fatal"], true);
    // There is no place for state.
    let output = runtime.run(&["--root", "/proc/nothing", "doctor", "--json"]);
    assert_eq!((output.code, parse(&output)["canRun"].clone()), (1, false.into()));
    let output = runtime.run(&["--root", "/etc/passwd", "doctor"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("no container can run here"), "{}", output.stdout);
}
