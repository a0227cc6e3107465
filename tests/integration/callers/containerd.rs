//! containerd with its runc v2 shim, driven by ctr: `--runc-binary` is the BinaryName of a configuration.

use std::sync::OnceLock;

use super::{Caller, sites};

const FUNCTIONS: &str = r#"
c() { timeout $LIMIT ctr -a $D/c.sock -n $Y "$@"; }
R="--runtime io.containerd.runc.v2 --runc-binary $RT --runc-root $D/state"
I=localhost/bb:1
start() { id=$1; shift; c run -d $R $I $id "$@"; }
status() { c task ls | awk -v id=$1 '$1 == id { print $3 }'; }
# FILE: from now on, every event of this namespace is written there.
events() {
    ctr -a $D/c.sock -n $Y events > $1 & events=$!
    await "c namespaces label $Y for=$(basename $1) turn=\$(date +%s%N); grep -q /namespaces/update $1"
}
# FILE ID: what is told there of a task.
topics() { sed -n "s|.* /tasks/\([a-z-]*\) .*\"container_id\":\"$2\".*|\1|p" $1; }
# What rtx and the kernel still hold of a container.
left() { ls $D/state/$Y 2> /dev/null | grep "^$1"; find /sys/fs/cgroup -path "*/$Y/$1*" -type d 2> /dev/null; pgrep -f -- "-id $1 "; true; }
"#;

const SETUP: &str = r#"
containerd_start && tar -C $D/image -cf $D/image.tar . && c image import --base-name localhost/bb $D/image.tar
"#;

const fn containerd(name: &'static str) -> Caller {
    Caller {
        name,
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        packages: "containerd",
        functions: FUNCTIONS,
        setup: SETUP,
        sites: OnceLock::new(),
    }
}

pub(super) static CONTAINERD: Caller = containerd("containerd");
/// Whose daemon may be killed without disturbing another test.
static RESTARTED: Caller = containerd("ctd-restart");

#[test]
fn run_gives_both_outputs_and_the_code() {
    for site in sites!(CONTAINERD) {
        let output = site.sh("c run --rm $R $I run sh -c 'echo out; echo err >&2; exit 3'");
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
        site.sh("c run --rm $R $I nope /nope").fails(1, "exec: \"/nope\": stat /nope: no such file or directory");
        site.sh("c run --rm $R $I noexec /etc/passwd").fails(1, "exec: \"/etc/passwd\": permission denied");
        site.assert_gone("run");
        site.assert_gone("no");
    }
}

#[test]
fn terminals() {
    for site in sites!(CONTAINERD) {
        let output =
            site.sh("script -qec \"ctr -a $D/c.sock -n $Y run --rm -t $R $I tty sh -c 'tty; exit 4'\" /dev/null");
        assert_eq!(output.code, 4, "{output:?}");
        assert!(output.stdout.contains("/dev/pts/0"), "{output:?}");
        let script = "start ttys sleep 600
            script -qec \"ctr -a $D/c.sock -n $Y task exec -t --exec-id e ttys tty\" /dev/null
            c task delete --force ttys; c container rm ttys";
        assert!(site.sh(script).stdout.contains("/dev/pts/0"));
        site.assert_gone("tty");
    }
}

#[test]
fn options_reach_the_container() {
    for site in sites!(CONTAINERD) {
        let output = site.sh("mkdir -p $D/bound && c run --rm $R --cwd /tmp --env A=b --read-only --seccomp \
             --cap-drop CAP_CHOWN --mount type=bind,src=$D/bound,dst=/data,options=rbind:ro $I options sh -c '
             pwd; echo $A; touch /x 2> /dev/null || echo read-only; touch /data/x 2> /dev/null || echo bound read-only
             grep -E \"Seccomp:|CapEff\" /proc/self/status; chown 1 /dev/shm 2> /dev/null || echo not chowned'");
        let expected = "/tmp\nb\nread-only\nbound read-only\nCapEff:\t00000000a80425fa\nSeccomp:\t2\nnot chowned\n";
        assert_eq!((output.code, &*output.stdout), (0, expected), "{output:?}");
        let output = site.sh("c run -d $R --cpus 0.5 --memory-limit 33554432 $I options sleep 600
             cat /sys/fs/cgroup/memory/$Y/options/memory.limit_in_bytes /sys/fs/cgroup/cpu/$Y/options/cpu.cfs_quota_us
             c task delete --force options; c container rm options");
        assert_eq!(output.stdout, "33554432\n50000\n", "{output:?}");
        site.assert_gone("options");
    }
}

#[test]
fn exec_and_task_commands() {
    for site in sites!(CONTAINERD) {
        site.sh("start task sh -c 'sleep 601 & trap \"exit 9\" TERM; touch /tmp/up; while :; do sleep 0.1; done'
             await 'c task exec --exec-id e$(date +%s%N) task test -e /tmp/up'")
            .ok();
        let output = site.sh("c task exec --exec-id e1 task sh -c 'echo in; exit 5'");
        assert_eq!((output.code, &*output.stdout), (5, "in\n"));
        site.sh("c task exec --exec-id e2 task /nope").fails(1, "no such file or directory");
        site.sh(
            "c task pause task && [ $(status task) = PAUSED ] && c task resume task && [ $(status task) = RUNNING ]",
        )
        .ok();
        site.sh("pid=$(c task ls | awk '$1 == \"task\" { print $2 }'); c task ps task | grep -q \"^$pid \"").ok();
        site.sh("[ $(c task ps task | wc -l) -ge 3 ] && c task metrics task | grep -E 'memory.usage_in_bytes +[1-9]'")
            .ok();
        site.sh("c task delete task").fails(1, "task must be stopped before deletion");
        site.sh("c task kill task && await '[ $(status task) = STOPPED ]'").ok();
        site.sh("c task kill task").fails(1, "process already finished");
        let output = site.sh("c task delete task; c container rm task");
        assert!(output.stderr.contains("exit with non-zero exit code 9"), "{output:?}");
        site.assert_gone("task");
    }
}

#[test]
fn force_ends_what_runs() {
    for site in sites!(CONTAINERD) {
        site.sh("start force sleep 600 && c task pause force && c task resume force && c task delete --force force")
            .ok();
        site.sh("c container rm force").ok();
        // The shim kills everything of a container that shares the host's pids.
        site.sh("start forcepid sh -c 'sleep 600 & exec sleep 600' && c task kill -a -s 9 forcepid").ok();
        site.sh("await '[ $(status forcepid) = STOPPED ]'; c task delete forcepid; c container rm forcepid").ok();
        site.assert_gone("force");
    }
}

#[test]
fn oom_is_an_event() {
    for site in sites!(CONTAINERD) {
        let output = site.sh("events $D/events
             c run --rm $R --memory-limit 20000000 $I oom sh -c 'x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done'; code=$?
             await 'topics $D/events oom | grep -q oom'; seen=$?
             kill $events
             echo $code $seen");
        assert_eq!(output.stdout, "137 0\n", "{output:?}");
        site.assert_gone("oom");
    }
}

#[test]
fn fifty_at_once() {
    for site in sites!(CONTAINERD) {
        let output = site.sh(
            "for i in $(seq 50); do (c run --rm $R $I many$i sh -c \"echo $i; exit $i\" > $D/many$i; echo $? > $D/code$i) & done
             wait
             for i in $(seq 50); do [ \"$(cat $D/many$i)\" = $i ] && [ \"$(cat $D/code$i)\" = $i ] || echo $i; done",
        );
        assert_eq!((output.stdout, output.stderr), (String::new(), String::new()));
        site.assert_gone("many");
    }
}

/// Fifty that live at the same time, and are killed and deleted at once.
#[test]
fn fifty_alive() {
    for site in sites!(CONTAINERD) {
        site.sh("for i in $(seq 50); do start alive$i sleep 600 & done; wait").ok();
        let output =
            site.sh("c task ls | grep -c 'alive.*RUNNING'; find $D/state/$Y -maxdepth 1 -name 'alive*' | wc -l").ok();
        assert_eq!(output.stdout, "50\n50\n");
        site.sh("for i in $(seq 50); do (c task delete --force alive$i && c container rm alive$i) & done; wait").ok();
        assert_eq!(site.sh("c task ls -q | grep -c alive").stdout, "0\n");
        site.assert_gone("alive");
    }
}

/// Where CRIU cannot work, the failure is told, and leaves the task running.
#[test]
fn checkpoint() {
    for site in sites!(CONTAINERD) {
        site.sh("start saved sh -c 'while :; do sleep 0.1; done'").ok();
        let output = site.sh("c task checkpoint --image-path $D/saved saved");
        if output.code == 0 {
            site.sh("[ -e $D/saved/inventory.img ]").ok();
        } else {
            assert!(output.stderr.to_lowercase().contains("criu"), "{output:?}");
            assert_eq!(site.sh("status saved; c task exec --exec-id e saved echo alive").stdout, "RUNNING\nalive\n");
        }
        site.sh("c task delete --force saved; c container rm saved").ok();
        site.assert_gone("saved");
    }
}

/// The events of a task's life, as dockerd and the kubelet see them.
#[test]
fn events() {
    for site in sites!(CONTAINERD) {
        let output = site.sh("events $D/life
             start seen sleep 600
             c task exec --exec-id e seen true
             c task pause seen; c task resume seen
             c task kill -s 9 seen; await '[ $(status seen) = STOPPED ]'; c task delete seen > /dev/null 2>&1; c container rm seen
             await 'topics $D/life seen | grep -q delete'; kill $events
             topics $D/life seen | uniq");
        let words: Vec<&str> = output.stdout.split_whitespace().collect();
        let expected = ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"];
        assert_eq!(words, expected, "{output:?}");
        site.assert_gone("seen");
    }
}

/// containerd then asks the runtime by the shim's own `delete` to remove what was left.
#[test]
fn shim_killed() {
    for site in sites!(CONTAINERD) {
        site.sh("start shim sleep 600 && kill -9 $(pgrep -f -- '-id shi[m] ')").ok();
        site.assert_gone("shim");
        site.sh("await '[ -z \"$(status shim)\" ]'; c container rm shim && c run --rm $R $I shim true").ok();
        // Neither does an exec, nor a stopped one, keep anything back.
        site.sh("start shimexec sleep 600; c task exec -d --exec-id e shimexec sleep 601; kill -9 $(pgrep -f -- '-id shimexe[c] ')").ok();
        site.assert_gone("shimexec");
        site.sh("await '[ -z \"$(status shimexec)\" ]'; c container rm shimexec").ok();
        site.assert_gone("shim");
    }
}

#[test]
fn daemon_killed_and_restarted() {
    for site in sites!(RESTARTED) {
        site.sh("start stays sh -c 'trap \"exit 8\" TERM; touch /tmp/up; while :; do sleep 0.1; done' && start ends sh -c 'sleep 1; exit 7'").ok();
        site.sh("kill -9 $(cat $D/containerd.pid); sleep 1.5; containerd_start").ok();
        let output = site.sh("status stays; await '[ $(status ends) = STOPPED ]'; status ends
             await 'c task exec --exec-id e$(date +%s%N) stays test -e /tmp/up'; c task exec --exec-id e stays echo alive").ok();
        assert_eq!(output.stdout, "RUNNING\nSTOPPED\nalive\n");
        assert!(site.sh("c task delete ends; c container rm ends").stderr.contains("exit code 7"));
        site.sh("c task kill stays && await '[ $(status stays) = STOPPED ]'").ok();
        assert!(site.sh("c task delete stays; c container rm stays").stderr.contains("exit code 8"));
        site.assert_gone("stays");
        site.assert_gone("ends");
    }
}
