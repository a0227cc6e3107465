//! Scopes: what systemd knows of one, and the files of its cgroups in every hierarchy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Report, cases, host};
use crate::support::units::{properties, property};
use crate::support::{Bundle, Container, Runtime};

/// What a runtime tells systemd. `Description`, `Documentation` and what differs by the host's cgroups are the runtime's
/// own affair.
const PROPERTIES: &[&str] = &[
    "Slice",
    "Delegate",
    "DefaultDependencies",
    "CPUAccounting",
    "MemoryAccounting",
    "TasksAccounting",
    "MemoryLimit",
    "MemoryMax",
    "MemoryLow",
    "CPUShares",
    "CPUWeight",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "BlockIOWeight",
    "IOWeight",
    "TasksMax",
    "DevicePolicy",
    "DeviceAllow",
    "TimeoutStopUSec",
];

/// A scope with limits of these resources: after create, after start, after an update, and when it is gone.
fn scope(runtime: &Runtime, change: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = Bundle::shell("cat /proc/self/cgroup; exec sleep 600");
    let name = bundle.name();
    bundle.set("/linux/cgroupsPath", json!(format!("rtx-tests.slice:peer:{name}")));
    change(&mut bundle);
    let unit = format!("peer-{name}.scope");
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    let look = |report: &mut Report, when: &str| {
        report.add(&format!("host {when}"), host::look(container.pid()));
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in properties(&unit, PROPERTIES) {
            known.entry(name).or_default().push(value);
        }
        known.values_mut().for_each(|values| values.sort());
        report.add(&format!("unit {when}"), json!(known));
    };
    if report.step("create", &container.create()) {
        look(&mut report, "created");
        report.step("start", &container.start());
        container.wait_stdout("peer-");
        report.add("inside", json!(container.stdout().lines().collect::<Vec<_>>()));
        let flags = ["--memory", "50331648", "--memory-swap", "50331648", "--cpu-share", "300", "--pids-limit", "33"];
        report.step("update", &runtime.run(&[&["update"][..], &flags, &[&container.id]].concat()));
        look(&mut report, "updated");
        report.step("kill", &container.kill("KILL"));
        report.add("exit", json!(container.wait_exit()));
    }
    report.step("delete", &container.delete(&["--force"]));
    report.add("left", json!(property(&unit, "LoadState")));
    report.finish(&container)
}

cases! {
    "systemd";
    scope no_limits => |r| scope(r, |_| {});
    scope limits => |r| scope(r, |b| {
        b.set("/linux/resources/memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }))
            .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 12_345, "period": 50_000 }))
            .set("/linux/resources/pids", json!({ "limit": 42 }))
            .set("/linux/resources/devices", json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
                { "allow": true, "type": "b", "major": 7, "access": "r" },
            ]));
    });
}
