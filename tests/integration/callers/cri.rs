//! containerd's CRI plugin, through its socket as a kubelet uses it, with the handler of contrib/kubernetes.

use std::sync::OnceLock;

use super::{Caller, Site, sites};

const FUNCTIONS: &str = concat!(
    "CRI=",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/integration/callers KUBERNETES=",
    env!("CARGO_MANIFEST_DIR"),
    "/contrib/kubernetes",
    r#"
# Debian's Python has Debian's modules, whatever else is first in PATH.
cri() { PYTHONPATH=$D PYTHONDONTWRITEBYTECODE=1 timeout $LIMIT /usr/bin/python3 $CRI/cri.py $D/c.sock "$@"; }
# Of POD or POD/CONTAINER: pods have containers of the same names at the same time.
id() { cat $D/pods/$1.id; }
of() { printf '{"%s": "%s"}' $1 $(id $2); }

# NAME [FIELDS]: runs a pod's sandbox. FIELDS is JSON, merged into its configuration.
pod() {
    mkdir -p $D/logs/$1 $D/pods/$1
    parent=/$Y/$1
    if $SYSTEMD; then parent=cri-$1.slice; fi
    jq -cn --arg name $1 --arg logs $D/logs/$1 --arg parent $parent --argjson more "${2:-null}" '
        {metadata: {name: $name, uid: $name, namespace: "test"}, hostname: $name, log_directory: $logs,
         dns_config: {servers: ["10.88.0.1"]}, linux: {cgroup_parent: $parent}} * ($more // {})' > $D/pods/$1.json
    answer=$(cri call RunPodSandbox "{\"config\": $(cat $D/pods/$1.json), \"runtime_handler\": \"${HANDLER:-rtx}\"}") || return
    echo "$answer" | jq -r .podSandboxId | tee -a $D/pods/$1.all > $D/pods/$1.id
}
# POD NAME SCRIPT [FIELDS]: creates a container.
create() {
    config=$(jq -cn --arg name $2 --arg script "$3" --argjson more "${4:-null}" '
        {metadata: {name: $name}, image: {image: "localhost/bb:1"}, command: ["sh", "-c", $script], log_path: ($name + ".log")} * ($more // {})')
    answer=$(cri call CreateContainer "{\"pod_sandbox_id\": \"$(id $1)\", \"config\": $config, \"sandbox_config\": $(cat $D/pods/$1.json)}") || return
    echo "$answer" | jq -r .containerId | tee -a $D/pods/$1.all > $D/pods/$1/$2.id
}
start() { create "$@" && cri call StartContainer "$(of container_id $1/$2)" > /dev/null; }
stop() { cri call StopContainer "{\"container_id\": \"$(id $1)\", \"timeout\": ${2:-10}}" > /dev/null; }
remove() { cri call RemoveContainer "$(of container_id $1)" > /dev/null; }
# POD/CONTAINER PATHS: of a container's status, as jq has them.
status() { cri call ContainerStatus "$(of container_id $1)" | jq -r ".status | \"$2\""; }
ended() { cri await-exit $(id $1); }
# POD NAME: what it wrote, without the times.
logs() { cut -d ' ' -f 2- $D/logs/$1/$2.log; }
end() {
    cri call StopPodSandbox "$(of pod_sandbox_id $1)" > /dev/null && cri call RemovePodSandbox "$(of pod_sandbox_id $1)" > /dev/null
    await "[ -z \"\$(left $1)\" ]" || left $1
}
# What the runtime and the kernel still hold of a pod.
left() { for i in $(cat $D/pods/$1.all); do find /sys/fs/cgroup /run/containerd -name "*$i*" 2> /dev/null; pgrep -a -f -- "$i"; done; }
ip() { cri call PodSandboxStatus "$(of pod_sandbox_id $1)" | jq -r .status.network.ip; }
daemon() {
    setsid containerd -c $D/containerd.toml >> $D/containerd.log 2>&1 < /dev/null &
    echo $! > $D/containerd.pid
    await '[ "$(cri call Status "{}" 2> /dev/null | jq "[.status.conditions[].status] | all")" = true ]'
}
"#
);

const SETUP: &str = r#"
set -e
# The network plugins remember addresses here.
mount -t tmpfs none /var/lib
mkdir -p $D/pods $D/logs $D/cni
protoc --proto_path $CRI --python_out $D cri.proto
cat > $D/cni/pods.conflist << END
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
    { "type": "bridge", "bridge": "pods", "isGateway": true, "ipam": {
        "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]], "dataDir": "$D/addresses", "routes": [{ "dst": "0.0.0.0/0" }] } } ] }
END
cat > $D/containerd.toml << END
version = 2
root = "$D/root"
state = "$D/run"
oom_score = 0
[grpc]
address = "$D/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$D/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/bb:pause"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$D/cni"
$(patience)
END
sed "s|/usr/bin/rtx|$RT|; s|SystemdCgroup = .*|SystemdCgroup = $SYSTEMD|" $KUBERNETES/containerd.toml >> $D/containerd.toml
umoci config --image $D/image:1 --tag pause --config.cmd sleep --config.cmd 36000
tar -C $D/image -cf $D/image.tar .
daemon
ctr -a $D/c.sock -n k8s.io image import --base-name localhost/bb $D/image.tar
"#;

const fn cri(name: &'static str) -> Caller {
    Caller {
        name,
        programs: &["containerd", "containerd-shim-runc-v2", "ctr", "protoc", "jq"],
        packages: "containerd containernetworking-plugins protobuf-compiler python3-grpcio python3-protobuf python3-websocket",
        functions: FUNCTIONS,
        setup: SETUP,
        sites: OnceLock::new(),
    }
}

pub(super) static CRI: Caller = cri("cri");
/// Whose daemon may be killed without disturbing another test.
static RESTARTED: Caller = cri("cri-restart");

/// Stops and removes a pod: of it and its containers nothing is left.
#[track_caller]
pub(super) fn end(site: &Site, pod: &str) {
    let output = site.sh(&format!("end {pod}"));
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (0, "", ""), "left behind");
}

#[test]
fn a_life() {
    for site in sites!(CRI) {
        let output = site.sh(r#"pod life && cri call PodSandboxStatus "$(of pod_sandbox_id life)" |
            jq -r '.status | "\(.state) \(.runtimeHandler) \(.network.ip != "")"'"#);
        assert_eq!(output.stdout, "SANDBOX_READY rtx true\n", "{output:?}");
        let script = r#"create life web 'trap "echo stopping; exit 7" TERM; echo up on $(hostname) as $A; while :; do sleep 0.1; done' \
                '{"envs": [{"key": "A", "value": "b"}], "working_dir": "/tmp"}'
            status life/web '\(.state)'
            cri call StartContainer "$(of container_id life/web)" > /dev/null
            status life/web '\(.state)'; await 'logs life web | grep -q up'; stop life/web
            status life/web '\(.state) \(.exitCode) \(.reason)'; logs life web"#;
        let expected = "CONTAINER_CREATED\nCONTAINER_RUNNING\nCONTAINER_EXITED 7 Error\n\
                        stdout F up on life as b\nstdout F stopping\n";
        assert_eq!(site.sh(script).stdout, expected);
        // One that does not listen, one that ends well, and one that has been created only.
        let script = r#"start life deaf 'trap "" TERM; echo up; while :; do sleep 0.1; done'; await 'logs life deaf | grep -q up'
            stop life/deaf 1; status life/deaf '\(.exitCode)'
            start life good 'true'; ended life/good; status life/good '\(.exitCode) \(.reason)'
            create life never true; remove life/never; remove life/good
            cri call ListContainers '{}' | jq -r --arg pod $(id life) '.containers[] | select(.podSandboxId == $pod) | .metadata.name' | sort"#;
        assert_eq!(site.sh(script).stdout, "137\n0 Completed\ndeaf\nweb\n");
        end(site, "life");
    }
}

/// A handler that the configuration does not have is containerd's to refuse, what fails in the runtime is the runtime's.
#[test]
fn failures() {
    for site in sites!(CRI) {
        site.sh("HANDLER=nope pod other").fails(1, "no runtime for \"nope\" is configured");
        site.sh("pod fails").ok();
        let command =
            |name: &str, command: &str| site.sh(&format!("start fails {name} '' '{{\"command\": [\"{command}\"]}}'"));
        command("nowhere", "nope").fails(1, "exec: \"nope\": executable file not found in $PATH");
        command("noent", "/nope").fails(1, "exec: \"/nope\": stat /nope: no such file or directory");
        command("noexec", "/etc/passwd").fails(1, "exec: \"/etc/passwd\": permission denied");
        let output = site.sh(r"status fails/noent '\(.state) \(.exitCode) \(.reason)'; remove fails/noent");
        assert_eq!(output.stdout, "CONTAINER_EXITED 128 StartError\n", "{output:?}");
        let bad = r#"{"linux": {"security_context": {"run_as_username": "nobody"}}}"#;
        assert_ne!(site.sh(&format!("start fails nouser true '{bad}'")).code, 0);
        end(site, "fails");
    }
}

/// Probes by a command, postStart and preStop are ExecSync calls; those by HTTP come from outside to the pod's address.
#[test]
fn probes_and_hooks() {
    for site in sites!(CRI) {
        site.sh("pod probes && start probes main 'mkdir /tmp/www; echo served > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; \
                 trap \"test -e /tmp/pre-stop && exit 6; exit 5\" TERM; while :; do sleep 0.1; done'").ok();
        let output = site.sh("cri exec-sync $(id probes/main) sh -c 'echo out; echo err >&2; exit 3'");
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
        site.sh("cri exec-sync $(id probes/main) /nope").fails(1, "no such file or directory");
        // What a probe started is gone when its time is over.
        site.sh("cri exec-sync --within 2 $(id probes/main) sleep 617").fails(1, "DEADLINE_EXCEEDED");
        site.sh("await '! pgrep -f \"sleep 61[7]\"'").ok();
        let output = site.sh("await 'curl -s --max-time 5 http://$(ip probes):8080/'").ok();
        assert_eq!(output.stdout, "served\n");
        let output = site.sh(r"for i in 1 2 3 4 5; do cri exec-sync $(id probes/main) sh -c 'echo $0' $i; done
            cri exec-sync $(id probes/main) touch /tmp/pre-stop; stop probes/main; status probes/main '\(.exitCode)'");
        assert_eq!(output.stdout, "1\n2\n3\n4\n5\n6\n", "{output:?}");
        assert_ne!(site.sh("cri exec-sync $(id probes/main) true").code, 0);
        end(site, "probes");
    }
}

#[test]
fn streams() {
    for site in sites!(CRI) {
        site.sh("pod streams && start streams main 'while :; do nc -l -p 8081 -e sh -c \"read line; echo got \\$line\"; done' \
                 && start streams reads 'read line; echo got $line; read line; exit 4' '{\"stdin\": true}'")
            .ok();
        let output = site.sh("cri exec $(id streams/main) sh -c 'echo out; echo err >&2; exit 3' < /dev/null");
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
        let output =
            site.sh("echo typed | cri exec $(id streams/main) sh -c 'read line; echo $line; seq 20000 | tail -1'").ok();
        assert_eq!(output.stdout, "typed\n20000\n");
        let output = site.sh("printf 'tty; until stty size | grep \"37 91\"; do sleep 0.1; done; exit 5\\n' | cri exec -t $(id streams/main) sh; echo $?
             cri exec -t $(id streams/main) seq 20000 < /dev/null | wc -l");
        for text in ["\r\n/dev/pts/", "\r\n37 91\r\n", "\n5\n20000\n"] {
            assert!(output.stdout.contains(text), "{text:?} is missing: {output:?}");
        }
        let script = r"printf 'line\nend\n' | cri attach $(id streams/reads); ended streams/reads; status streams/reads '\(.exitCode)'; logs streams reads";
        let output = site.sh(script);
        assert_eq!(output.stdout, "got line\n4\nstdout F got line\n", "{output:?}");
        assert_eq!(site.sh("echo there | cri forward $(id streams) 8081").stdout, "got there\n");
        end(site, "streams");
    }
}

#[test]
fn logs() {
    for site in sites!(CRI) {
        let output = site.sh(r#"in_turn() { await "logs logs both | grep -q '$1'"; cri exec-sync $(id logs/both) touch /tmp/$1; }
            pod logs && start logs both 'await() { until [ -e /tmp/$1 ]; do sleep 0.1; done; }; echo out; await out; echo err >&2; await err; printf partial'
            in_turn out; in_turn err; ended logs/both
            logs logs both; cut -d ' ' -f 1 $D/logs/logs/both.log | grep -c -E '^2.*T.*(Z|\+)'
            start logs long 'for i in 1 2 3; do head -c 20000 /dev/zero | tr "\0" x; echo; done' && ended logs/long
            logs logs long | cut -d ' ' -f 1,2 | sort | uniq -c | tr -s ' '
            start logs turned 'echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo second' && await 'logs logs turned | grep -q first'
            mv $D/logs/logs/turned.log $D/logs/logs/turned.1.log; cri call ReopenContainerLog "$(of container_id logs/turned)" > /dev/null
            cri exec-sync $(id logs/turned) touch /tmp/go; ended logs/turned; logs logs turned.1; logs logs turned"#);
        let expected = "stdout F out\nstderr F err\nstdout P partial\n3\n 3 stdout F\n 3 stdout P\nstdout F first\nstdout F second\n";
        assert_eq!(output.stdout, expected, "{output:?}");
        end(site, "logs");
    }
}

#[test]
fn resources_and_their_update() {
    for site in sites!(CRI) {
        let script = r#"show() { cri exec-sync $(id sizes/main) sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus' | tr '\n' ' '; echo; }
            pod sizes && start sizes main 'sleep 600' '{"linux": {"resources": {"memory_limit_in_bytes": 33554432, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512}}}'
            show | cut -d ' ' -f 1-3
            cri call UpdateContainerResources "{\"container_id\": \"$(id sizes/main)\", \"linux\": {\"memory_limit_in_bytes\": 67108864, \"cpu_quota\": 70000, \"cpu_shares\": 256, \"cpuset_cpus\": \"0\"}}" > /dev/null
            show"#;
        let output = site.sh(script);
        assert_eq!(output.stdout, "33554432 50000 512\n67108864 70000 256 0 \n", "{output:?}");
        // What the kernel refuses is an error and changes nothing.
        let script = r#"cri call UpdateContainerResources "{\"container_id\": \"$(id sizes/main)\", \"linux\": {\"cpuset_cpus\": \"99999\"}}""#;
        assert_ne!(site.sh(script).code, 0);
        assert_eq!(site.sh("cri exec-sync $(id sizes/main) cat /sys/fs/cgroup/cpuset/cpuset.cpus").stdout, "0\n");
        // A container that has been created only has its limits changed too.
        let script = r#"create sizes later 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes'
            cri call UpdateContainerResources "{\"container_id\": \"$(id sizes/later)\", \"linux\": {\"memory_limit_in_bytes\": 50331648}}" > /dev/null
            cri call StartContainer "$(of container_id sizes/later)" > /dev/null; ended sizes/later; logs sizes later"#;
        assert_eq!(site.sh(script).stdout, "stdout F 50331648\n");
        end(site, "sizes");
    }
}

/// The kubelet restarts a container by another attempt in the same sandbox.
#[test]
fn restart_after_out_of_memory() {
    for site in sites!(CRI) {
        let output = site.sh(r#"pod hungry
            eats='{"linux": {"resources": {"memory_limit_in_bytes": 20000000}}}'
            for i in 0 1; do
                start hungry main 'x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done' "$(echo $eats | jq -c ".metadata = {name: \"main\", attempt: $i}")" && ended hungry/main
                await '[ "$(status hungry/main "\(.reason)")" = OOMKilled ]'
                status hungry/main '\(.metadata.attempt) \(.exitCode) \(.reason)'
                [ $i = 1 ] || remove hungry/main
            done
            start hungry child 'x=1; (x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done); echo child ended with $?; exit 2' "$eats"; ended hungry/child; logs hungry child
            start hungry again 'echo fine' '{"metadata": {"name": "main", "attempt": 2}}'; ended hungry/again; logs hungry again"#);
        let expected = "0 137 OOMKilled\n1 137 OOMKilled\nstdout F child ended with 137\nstdout F fine\n";
        assert_eq!(output.stdout.replace("stderr F Killed\n", ""), expected, "{output:?}");
        end(site, "hungry");
    }
}

#[test]
fn pid_namespaces() {
    for site in sites!(CRI) {
        let shared = r#"{"linux": {"security_context": {"namespace_options": {"pid": "POD"}}}}"#;
        let own = r#"{"linux": {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}}"#;
        let output = site.sh(&format!(
            r#"pod shared '{shared}' && start shared one 'exec tail -f /dev/null' '{shared}' && start shared two 'exec sleep 602' '{shared}'
            cri exec-sync $(id shared/two) sh -c 'cat /proc/1/comm; pidof tail | wc -w'
            cri exec-sync $(id shared/two) sh -c 'kill $(pidof tail)'; ended shared/one; status shared/one '\(.exitCode)'; stop shared/two 1"#
        ));
        assert_eq!(output.stdout, "sleep\n1\n143\n", "{output:?}");
        end(site, "shared");
        // A container for debugging enters the namespace of another one.
        let output = site.sh(&format!(
            r#"pod own '{own}' && start own one 'sleep 603' '{own}' && start own two 'cat /proc/1/comm' '{own}' && ended own/two && logs own two
            start own debug 'cat /proc/1/comm' "{{\"linux\": {{\"security_context\": {{\"namespace_options\": {{\"pid\": \"TARGET\", \"target_id\": \"$(id own/one)\"}}}}}}}}" && ended own/debug && logs own debug"#
        ));
        assert_eq!(output.stdout, "stdout F cat\nstdout F sleep\n", "{output:?}");
        end(site, "own");
        let node = r#"{"linux": {"security_context": {"namespace_options": {"network": "NODE", "pid": "NODE", "ipc": "NODE"}}}}"#;
        let output = site.sh(&format!(
            r#"for kind in net pid ipc; do readlink /proc/self/ns/$kind; done > $D/spaces
            pod node "$(echo '{node}' | jq -c '.hostname = ""')" && start node main 'for kind in net pid ipc; do readlink /proc/self/ns/$kind; done' '{node}' && ended node/main
            logs node main | cut -d ' ' -f 3 | diff - $D/spaces"#
        ));
        assert_eq!((output.code, &*output.stdout), (0, ""), "{output:?}");
        end(site, "node");
    }
}

#[test]
fn stats() {
    for site in sites!(CRI) {
        let script = r#"pod counted && start counted main 'x=$(head -c 2000000 /dev/zero | tr "\0" x); sleep 600'
            counts='(.cpu.usageCoreNanoSeconds.value | tonumber) > 0 and (.memory.workingSetBytes.value | tonumber) > 0'
            await 'cri call ContainerStats "$(of container_id counted/main)" | jq -e ".stats | $counts" > /dev/null' && echo one
            cri call ListContainerStats '{}' | jq --arg id $(id counted/main) '.stats[].attributes.id | select(. == $id)' | wc -l
            cri call PodSandboxStats "$(of pod_sandbox_id counted)" | jq -r '.stats.linux | "\(.containers | length) \((.memory.workingSetBytes.value | tonumber) > 0)"'"#;
        let output = site.sh(script);
        assert_eq!(output.stdout, "one\n1\n1 true\n", "{output:?}");
        end(site, "counted");
    }
}

#[test]
fn security_contexts() {
    for site in sites!(CRI) {
        let script = r#"mkdir -p $D/bound; echo bound > $D/bound/file
            pod safe '{"linux": {"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80"}}}'
            start safe strict 'id -u; id -g; id -G; grep -E "CapBnd|CapEff|NoNewPrivs|Seccomp:" /proc/self/status | tr "\t" " "
                touch /x 2> /dev/null || echo read-only; touch /data/x 2> /dev/null || echo bound read-only; cat /data/file
                cat /proc/sys/net/ipv4/ip_unprivileged_port_start; head -c 1 /proc/timer_list 2> /dev/null | wc -c; cat /etc/resolv.conf' "$(jq -cn --arg dir $D/bound '
                {mounts: [{container_path: "/data", host_path: $dir, readonly: true}],
                 linux: {security_context: {run_as_user: {value: 1000}, run_as_group: {value: 1000}, supplemental_groups: [77], readonly_rootfs: true, no_new_privs: true,
                    capabilities: {drop_capabilities: ["ALL"]}, seccomp: {profile_type: "RuntimeDefault"}, masked_paths: ["/proc/timer_list"], readonly_paths: ["/proc/sys"]}}}')"
            ended safe/strict; logs safe strict | cut -d ' ' -f 3-
            start safe device 'echo > /dev/other && echo device; [ -e /dev/sd ] || ls /dev/null' '{"devices": [{"container_path": "/dev/other", "host_path": "/dev/null", "permissions": "rwm"}]}'
            ended safe/device; logs safe device | cut -d ' ' -f 3-"#;
        let output = site.sh(script);
        let expected = "1000\n1000\n1000 77\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n\
                        read-only\nbound read-only\nbound\n80\n0\nnameserver 10.88.0.1\ndevice\n/dev/null\n";
        assert_eq!(output.stdout, expected, "{output:?}");
        end(site, "safe");
    }
}

/// What is mounted on the host meanwhile appears in the container, and the other way round where that is asked for.
#[test]
fn mount_propagation() {
    for site in sites!(CRI) {
        let script = r#"mkdir -p $D/shared; mount --bind $D/shared $D/shared; mount --make-shared $D/shared
            pod moves && start moves main 'sleep 600' "$(jq -cn --arg dir $D/shared '{mounts: [{container_path: "/data", host_path: $dir, propagation: "PROPAGATION_HOST_TO_CONTAINER"}]}')"
            mkdir $D/shared/late; mount -t tmpfs none $D/shared/late; touch $D/shared/late/seen
            cri exec-sync $(id moves/main) ls /data/late
            stop moves/main 0; umount -R $D/shared"#;
        assert_eq!(site.sh(script).stdout, "seen\n");
        end(site, "moves");
    }
}

#[test]
fn ten_pods_at_once() {
    for site in sites!(CRI) {
        let output = site.sh(
            r"for i in $(seq 10); do (pod many$i && start many$i main 'echo $(hostname); exit '$i && ended many$i/main) & done; wait
            for i in $(seq 10); do status many$i/main '\(.exitCode)'; logs many$i main; done | paste - - | tr '\t' ' '",
        );
        let expected: String = (1..=10).map(|i| format!("{i} stdout F many{i}\n")).collect();
        assert_eq!(output.stdout, expected, "{output:?}");
        (1..=10).for_each(|i| end(site, &format!("many{i}")));
    }
}

/// Pods outlive containerd, which finds them again; a shim's end is the end of its pod.
#[test]
fn daemon_and_shim_killed() {
    for site in sites!(RESTARTED) {
        let output = site.sh(r#"pod stays && start stays main 'trap "exit 8" TERM; echo up; while :; do sleep 0.1; done' && start stays brief 'sleep 2; exit 7'
            await 'logs stays main | grep -q up'
            kill -9 $(cat $D/containerd.pid); sleep 3; daemon
            status stays/main '\(.state)'; ended stays/brief; status stays/brief '\(.exitCode)'
            cri exec-sync $(id stays/main) echo alive; stop stays/main; status stays/main '\(.exitCode)'"#);
        assert_eq!(output.stdout, "CONTAINER_RUNNING\n7\nalive\n8\n", "{output:?}");
        end(site, "stays");
        let output = site.sh(r#"pod shim && start shim main 'sleep 600'
            kill -9 $(pgrep -f -- "-id $(id shim) ")
            ended shim/main
            await '[ "$(cri call PodSandboxStatus "$(of pod_sandbox_id shim)" | jq -r .status.state)" = SANDBOX_NOTREADY ]' && echo over"#);
        assert_eq!(output.stdout, "over\n", "{output:?}");
        end(site, "shim");
    }
}
