//! `SystemdCgroup = true` of containerd's CRI plugin, as a kubelet with `cgroupDriver: systemd` needs it. Where systemd runs:
//! in the guest of contrib/guest, with the host's programs.

use std::path::Path;
use std::process::Command;

use super::cri::{CRI, end};
use super::site::in_guest;
use super::{sites, wanted};
use crate::support::runtime::find_program;
use crate::support::{Runtime, needs_root, skip};

/// Beside what is here, some of what is tried without systemd. The guest is a slow machine; and where a shim is killed
/// there, the control leaves its own state directory behind, so that `daemon_and_shim_killed` can show nothing of either.
const FILTERS: &[&str] = &["callers::systemd::", "callers::cri::a_life"];

#[test]
fn in_the_guest() {
    if in_guest() || !wanted() {
        return;
    }
    needs_root!();
    if !cfg!(target_arch = "x86_64") {
        skip!("user-mode-linux is there for x86_64 alone");
    }
    for program in ["linux.uml", "mmdebstrap", "mke2fs", "gcc", "containerd", "protoc"] {
        if find_program(program).is_none() {
            skip!("{program} is not installed; `make test-integrations` installs it");
        }
    }
    let mut guest = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/guest/test"));
    guest.arg(std::env::current_exe().expect("the path of the tests")).arg(Runtime::under_test().program);
    guest.args(FILTERS).args(["--test-threads", "1"]);
    guest.env("GUEST_PROGRAMS", "host").env("GUEST_ENVIRONMENT", "RTX_TEST_CALLERS=1");
    // A few minutes where nothing else runs.
    let output = guest.env("GUEST_MEMORY", "2500M").env("GUEST_TIME", "3000").output().expect("run contrib/guest/test");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the guest failed ({}):\n{text}\n{errors}", output.status);
    assert!(text.contains("test result: ok. 3 passed"), "the guest ran other tests:\n{text}\n{errors}");
    assert!(!text.contains("SKIP"), "the guest skipped a test:\n{text}");
}

/// A container is a scope in its pod's slice, with its limits as properties that an update changes; whoever stops the
/// scope ends the container, and after the pod systemd knows nothing of it.
#[test]
fn scopes() {
    if !in_guest() {
        if wanted() {
            skip!("systemd does not run here: in_the_guest runs it");
        }
        return;
    }
    for site in sites!(CRI) {
        let output = site.sh(r#"pod scoped && start scoped main 'sleep 600' '{"linux": {"resources": {"memory_limit_in_bytes": 33554432, "cpu_period": 100000, "cpu_quota": 50000}}}'
            unit=cri-containerd-$(id scoped/main).scope
            show() { for name in "$@"; do systemctl show --property $name --value $unit; done | tr '\n' ' '; echo; }
            files() { (cd /sys/fs/cgroup/cri.slice/cri-scoped.slice/$unit && cat memory.max cpu.max) | tr '\n' ' '; echo; }
            show Slice ActiveState MemoryMax CPUQuotaPerSecUSec; files
            cri call UpdateContainerResources "{\"container_id\": \"$(id scoped/main)\", \"linux\": {\"memory_limit_in_bytes\": 67108864, \"cpu_period\": 100000, \"cpu_quota\": 70000}}" > /dev/null
            show MemoryMax CPUQuotaPerSecUSec; files
            cri exec-sync $(id scoped/main) cat /proc/self/cgroup
            systemctl stop $unit; ended scoped/main; status scoped/main '\(.exitCode)'; show ActiveState
            start scoped again 'exit 5'; ended scoped/again; status scoped/again '\(.exitCode)'"#);
        let expected = "cri-scoped.slice active 33554432 500ms \n33554432 50000 100000 \n67108864 700ms \n67108864 70000 100000 \n\
                        0::/\n143\ninactive \n5\n";
        assert_eq!((output.code, &*output.stdout), (0, expected), "{output:?}");
        // Where the kernel kills a container's last process, systemd removes the scope while containerd still has to read
        // there how many were killed, so that it may say nothing of memory, whichever the runtime: this one goes on.
        let output = site.sh(r#"start scoped hungry '(x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done); echo ended with $?; until [ -e /tmp/told ]; do sleep 0.1; done; exit 2' \
                '{"linux": {"resources": {"memory_limit_in_bytes": 20000000}}}'
            await '[ "$(status scoped/hungry "\(.reason)")" = OOMKilled ]'; await 'logs scoped hungry | grep -o "ended with 137"'
            cri exec-sync $(id scoped/hungry) touch /tmp/told; ended scoped/hungry; status scoped/hungry '\(.exitCode) \(.reason)'"#);
        assert_eq!(output.stdout, "ended with 137\n2 OOMKilled\n", "{output:?}");
        end(site, "scoped");
        let output = site.sh("systemctl list-units --all --plain --no-legend 'cri-containerd-*'");
        assert_eq!(output.stdout, "", "{output:?}");
    }
}
