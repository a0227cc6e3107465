//! The containers whose commands are swept: the default one, and such as ask for everything else.

use std::os::unix::fs::chown;

use serde_json::json;

use super::scene::Verb;
use crate::support::Bundle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The default configuration.
    Plain,
    /// A user namespace, a network namespace that is joined, an idmapped mount, a seccomp profile, hooks, resources.
    Rich,
    /// Its terminal is sent to a console socket.
    Terminal,
    /// With a smaster of its own.
    Supervised,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Plain, Kind::Rich, Kind::Terminal, Kind::Supervised];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Rich => "rich",
            Kind::Terminal => "terminal",
            Kind::Supervised => "supervised",
        }
    }

    /// What is swept of it. The others do nothing there that they do not do elsewhere.
    pub fn verbs(self) -> &'static [Verb] {
        match self {
            Kind::Plain => &Verb::ALL,
            Kind::Rich => &[Verb::Create, Verb::Start, Verb::Run, Verb::Exec, Verb::DeleteForce],
            Kind::Terminal => &[Verb::Create, Verb::Exec],
            Kind::Supervised => &[Verb::Create, Verb::Start, Verb::Run, Verb::Delete, Verb::DeleteForce],
        }
    }

    /// Who makes the calls that are swept, by role.
    pub fn roles(self, verb: Verb) -> &'static [(&'static str, &'static str)] {
        match (self, verb) {
            // The command and smaster are those of `create`, which is swept by itself.
            (Kind::Supervised, Verb::Run) => {
                &[("0.0.0", "smaster"), ("0.0.0.1", "the restart"), ("0.0.0.1.0", "stage2 of the restart")]
            }
            (Kind::Supervised, Verb::Create) => &[("0", "the command"), ("0.0", "smaster"), ("0.0.0", "stage2")],
            // Where stage2 joins a namespace another process goes on for it; those beside it become hooks.
            (Kind::Rich, Verb::Create | Verb::Run) => &[
                ("0", "the command"),
                ("0.0", "the first stage2"),
                ("0.0.0", "stage2"),
                ("0.1", "a hook"),
                ("0.0.0.0", "a hook of the container"),
            ],
            (Kind::Rich, Verb::Exec) => &[("0", "the command"), ("0.0", "the first stage2"), ("0.0.0", "stage2")],
            _ => &[("0", "the command"), ("0.0", "stage2")],
        }
    }

    /// Adds what is asked for to the default configuration.
    pub fn furnish(self, bundle: &mut Bundle) {
        match self {
            Kind::Plain | Kind::Supervised => {}
            Kind::Terminal => drop(bundle.set("/process/terminal", json!(true))),
            Kind::Rich => rich(bundle),
        }
    }
}

/// Whom the host takes root of a rich container for.
const MAPPED: u32 = 100_000;

fn rich(bundle: &mut Bundle) {
    let map = json!([{ "containerID": 0, "hostID": MAPPED, "size": 65536 }]);
    for directory in ["rootfs", "rootfs/dev", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/tmp"] {
        chown(bundle.host(directory), Some(MAPPED), Some(MAPPED)).expect("chown the root file system");
    }
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
    let neighbour = bundle.helper(&["--net"], "");
    bundle.namespace("network", &format!("/proc/{neighbour}/ns/net")).bind_sys();
    bundle.make_file("data/file", "mapped");
    bundle.bind("data", "/home", &["bind", "ro"]);
    let last = bundle.spec["mounts"].as_array().expect("mounts").len() - 1;
    bundle.set(&format!("/mounts/{last}/uidMappings"), map.clone()).set(&format!("/mounts/{last}/gidMappings"), map);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=1m"]);
    let rules = json!([
        { "names": ["getcwd"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
          "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
    ]);
    let architectures = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules });
    bundle.set("/linux/seccomp", profile);
    let hook = json!([{ "path": "/bin/true", "args": ["true"], "timeout": 20 }]);
    let points = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    bundle.set("/hooks", points.into_iter().map(|point| (point.to_owned(), hook.clone())).collect());
    bundle.set("/linux/resources/memory", json!({ "limit": 268_435_456u64 }));
    bundle.set("/linux/resources/cpu", json!({ "shares": 512, "quota": 90_000, "period": MAPPED }));
    bundle.set("/linux/resources/pids", json!({ "limit": 100 }));
    bundle.set("/process/oomScoreAdj", json!(100));
    bundle.set("/process/user", json!({ "uid": 0, "gid": 0, "umask": 0o027, "additionalGids": [5, 6] }));
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 256, "hard": 512 }]));
}
