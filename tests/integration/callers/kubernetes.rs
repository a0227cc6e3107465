//! Kubernetes itself on two nodes, with contrib/kubernetes as its users have it. Its programs are those that
//! `contrib/kubernetes/build` has made, since there is no package of a kubelet: without them this is skipped.

use std::sync::OnceLock;

use super::machines::machines;
use super::{Caller, Site, sites};
use crate::support::skip;

const FUNCTIONS: &str = concat!(
    machines!(),
    "K=",
    env!("CARGO_MANIFEST_DIR"),
    "/target/kubernetes EXAMPLES=",
    env!("CARGO_MANIFEST_DIR"),
    "/contrib/kubernetes",
    r#"
# Those of the site run beside the machines, as a managed control plane does.
here() { name=$1; shift; setsid "$@" > $D/$name.log 2>&1 < /dev/null & }
k() { timeout $LIMIT $K/kubectl --kubeconfig $D/admin.conf "$@"; }
kubeconfig() { cat << END
{ "apiVersion": "v1", "kind": "Config", "current-context": "c",
  "clusters": [{ "name": "c", "cluster": { "server": "https://10.77.0.254:6443", "insecure-skip-tls-verify": true } }],
  "users": [{ "name": "u", "user": { "token": "$1" } }],
  "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }] }
END
}
control_plane() {
    mkdir -p $D/etcd $D/certs
    chmod 700 $D/etcd
    openssl genrsa -out $D/accounts.key 2048 2> /dev/null
    echo 'admin-token,admin,admin,system:masters' > $D/tokens
    kubeconfig admin-token > $D/admin.conf
    here etcd etcd --data-dir $D/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
    here apiserver $K/kube-apiserver --etcd-servers http://127.0.0.1:2379 --secure-port 6443 --bind-address 10.77.0.254 --advertise-address 10.77.0.254 --cert-dir $D/certs \
        --service-cluster-ip-range 10.96.0.0/16 --authorization-mode AlwaysAllow --token-auth-file $D/tokens --disable-admission-plugins ServiceAccount \
        --endpoint-reconciler-type none --kubelet-preferred-address-types InternalIP --default-unreachable-toleration-seconds 3 --default-not-ready-toleration-seconds 3 \
        --service-account-issuer https://rtx --service-account-signing-key-file $D/accounts.key --service-account-key-file $D/accounts.key
    await 'k get --raw /readyz > /dev/null 2>&1'
    here controllers $K/kube-controller-manager --kubeconfig $D/admin.conf --leader-elect=false --node-monitor-period 1s --cert-dir $D/certs
    here scheduler $K/kube-scheduler --kubeconfig $D/admin.conf --leader-elect=false --cert-dir $D/certs
}
# The kernel's own settings, which a kubelet changes, are those of this machine too: it gets copies.
own_settings() {
    for f in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        copy=$D/$1/$(echo $f | tr / -)
        in_node $1 cat /proc/sys/$f > $copy
        in_node $1 mount --bind $copy /proc/sys/$f
    done
}
node() {
    machine $1
    own_settings $1
    mkdir -p $D/$1/cni $D/$1/kubelet
    other=$((3 - $1))
    in_node $1 ip route add 10.88.$other.0/24 via 10.77.0.$other
    cat > $D/$1/cni/pods.conflist << END
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
    { "type": "bridge", "bridge": "pods", "isGateway": true, "ipam": {
        "type": "host-local", "ranges": [[{ "subnet": "10.88.$1.0/24" }]], "dataDir": "$D/$1/addresses", "routes": [{ "dst": "0.0.0.0/0" }] } } ] }
END
    cat > $D/$1/containerd.toml << END
version = 2
root = "$D/$1/root"
state = "$D/$1/run"
oom_score = 0
[grpc]
address = "$D/$1/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$D/$1/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/busybox:pause"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$D/$1/cni"
$(patience)
END
    sed "s|/usr/bin/rtx|$RT|" $EXAMPLES/containerd.toml >> $D/$1/containerd.toml
    cat > $D/$1/kubelet.yaml << END
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
address: 10.77.0.$1
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
cgroupRoot: /$Y-$1
oomScoreAdj: 0
failSwapOn: false
resolvConf: $D/resolv.conf
nodeStatusUpdateFrequency: 2s
# On a disk that is nearly full, images that no container has at the moment would go; there is nowhere to pull them from.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: { memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi }
END
    for hierarchy in /sys/fs/cgroup/*/; do mkdir -p $hierarchy/$Y-$1 2> /dev/null || true; done
    for f in cpuset.cpus cpuset.mems; do cat /sys/fs/cgroup/cpuset/$f > /sys/fs/cgroup/cpuset/$Y-$1/$f; done
    in_node $1 setsid containerd -c $D/$1/containerd.toml >> $D/$1/log 2>&1 < /dev/null &
    await "ctr -a $D/$1/c.sock version > /dev/null 2>&1"
    ctr -a $D/$1/c.sock -n k8s.io image import --base-name docker.io/library/busybox $D/image.tar > /dev/null
    in_node $1 setsid $K/kubelet --config $D/$1/kubelet.yaml --kubeconfig $D/admin.conf --root-dir $D/$1/kubelet --cert-dir $D/$1/certs --node-ip 10.77.0.$1 \
        --hostname-override node$1 --container-runtime remote --container-runtime-endpoint unix://$D/$1/c.sock > $D/$1/kubelet.log 2>&1 < /dev/null &
}
# NODES: of the pods of a deployment that are there to stay.
on() { k get pods -l app=$1 --no-headers -o 'custom-columns=S:.status.phase,D:.metadata.deletionTimestamp,N:.spec.nodeName' | sed -n 's/^Running *<none> *//p' | sort | uniq -c | tr -s ' ' | tr '\n' ';'; }
# NAME COMMAND [FIELDS]: a pod of one container.
pod() {
    jq -cn --arg name $1 --arg command "$2" --argjson more "${3:-null}" '
        {apiVersion: "v1", kind: "Pod", metadata: {name: $name}, spec: ({runtimeClassName: "rtx", terminationGracePeriodSeconds: 1,
         containers: [{name: "main", image: "busybox:1", command: ["sh", "-c", $command]} * ($more.container // {})]} * ($more.spec // {}))}' | k apply -f - > /dev/null
}
field() { k get pod $1 -o "jsonpath={.status.containerStatuses[0].$2}"; }
# What the runtime still holds on either node.
left() { for n in 1 2; do find /sys/fs/cgroup/memory/$Y-$n -regextype egrep -regex '.*/[0-9a-f]{64}' 2> /dev/null; in_node $n ls /run/containerd/runc/k8s.io 2> /dev/null | grep -x -E '[0-9a-f]{64}'; done; true; }
"#
);

const SETUP: &str = r#"
set -e
lan
umoci config --image $D/image:1 --tag pause --config.cmd sleep --config.cmd 36000
tar -C $D/image -cf $D/image.tar .
control_plane
for n in 1 2; do node $n; done
k apply -f $EXAMPLES/runtimeclass.yaml > /dev/null
await '[ $(k get nodes --no-headers 2> /dev/null | grep -c -w Ready) = 2 ]'
"#;

static KUBERNETES: Caller = Caller {
    name: "kubernetes",
    programs: &["containerd", "containerd-shim-runc-v2", "ctr", "etcd", "jq", "openssl", "curl"],
    packages: "containerd containernetworking-plugins etcd-server openssl",
    functions: FUNCTIONS,
    setup: SETUP,
    sites: OnceLock::new(),
};

#[test]
fn everything() {
    if !std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kubernetes/kubelet").exists() {
        skip!("no kubelet: contrib/kubernetes/build makes one, in up to half an hour");
    }
    for site in sites!(KUBERNETES) {
        examples(site);
        ends_and_restarts(site);
        node_lost(site);
    }
}

/// What contrib/kubernetes has, and what kubectl does with it.
fn examples(site: &Site) {
    let output = site.sh(r#"k apply -f $EXAMPLES/pod.yaml -f $EXAMPLES/deployment.yaml > /dev/null && k rollout status --timeout ${LIMIT}s deployment/web-rtx > /dev/null
        k get pods -l app=web-rtx -o 'jsonpath={range .items[*]}{.spec.runtimeClassName}{"\n"}{end}' | uniq -c | tr -s ' '
        await '[ "$(k get pod hello-rtx -o "jsonpath={.status.phase}")" = Succeeded ]'; k logs hello-rtx | cut -d ' ' -f 1-3"#);
    assert_eq!((output.code, &*output.stdout), (0, " 3 rtx\nhello from hello-rtx\n"), "{output:?}");
    let output = site.sh(r#"p=$(k get pods -l app=web-rtx -o name | head -1)
        k exec $p -c web -- sh -c 'cat /tmp/hook'; k exec $p -c helper -- sh -c 'pidof httpd | wc -w'; echo typed | k exec -i $p -c helper -- cat
        k exec $p -c web -- sh -c 'exit 6' 2> /dev/null; echo $?
        script -qec "$K/kubectl --kubeconfig $D/admin.conf exec -it $p -c web -- tty" /dev/null | grep -o /dev/pts/0
        echo copied > $D/there; k cp $D/there ${p#pod/}:/tmp/there -c helper && k cp ${p#pod/}:/tmp/there $D/back -c helper > /dev/null; cat $D/back
        $K/kubectl --kubeconfig $D/admin.conf port-forward $p 18080:8080 > /dev/null 2>&1 & forward=$!
        await 'curl -sf http://127.0.0.1:18080/ > $D/page'; cut -d - -f 1-2 $D/page; kill $forward"#);
    assert_eq!(output.stdout, "started\n1\ntyped\n6\n/dev/pts/0\ncopied\nserved by web-rtx\n", "{output:?}");
    // Every pod from either node, and more of them with another configuration, one after the other.
    let output = site.sh(r#"k scale --replicas 6 deployment/web-rtx > /dev/null; k rollout status --timeout ${LIMIT}s deployment/web-rtx > /dev/null; on web-rtx; echo
        for address in $(k get pods -l app=web-rtx -o 'jsonpath={.items[*].status.podIP}'); do for n in 1 2; do in_node $n curl -s --max-time 10 http://$address:8080/ > /dev/null || echo $n to $address; done; done
        k set env deployment/web-rtx -c web VERSION=2 > /dev/null; k rollout status --timeout ${LIMIT}s deployment/web-rtx > /dev/null && echo updated"#);
    assert!(output.stdout.contains("node1;") && output.stdout.contains("node2;"), "{output:?}");
    assert!(output.stdout.ends_with("\nupdated\n") && output.stdout.lines().count() == 2, "{output:?}");
    site.sh("k delete -f $EXAMPLES/deployment.yaml -f $EXAMPLES/pod.yaml --timeout ${LIMIT}s > /dev/null").ok();
    assert_gone(site);
}

#[track_caller]
fn assert_gone(site: &Site) {
    let output = site.sh("await '[ -z \"$(left)\" ]' || left");
    assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "left behind");
}

/// Ends by themselves, by the kernel and by a probe, and what the kubelet makes of them.
fn ends_and_restarts(site: &Site) {
    let output = site.sh(r#"pod code 'exit 3' '{"spec": {"restartPolicy": "Never"}}'
        pod oom 'x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done' '{"container": {"resources": {"limits": {"memory": "20Mi"}}}}'
        pod unwell 'touch /tmp/well; sleep 3; rm /tmp/well; sleep 600' '{"container": {"livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/well"]}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1}}}'
        pod nope true '{"container": {"command": ["/nope"]}, "spec": {"restartPolicy": "Never"}}'
        await '[ "$(field code state.terminated.exitCode)" = 3 ]' && field code state.terminated.reason; echo
        await '[ "$(field oom lastState.terminated.reason)" = OOMKilled ] && [ $(field oom restartCount) -ge 1 ]' && echo out of memory
        await '[ "$(field unwell restartCount)" -ge 1 ]' && field unwell lastState.terminated.exitCode; echo
        await '[ -n "$(field nope state.terminated.message)" ]'; field nope state.terminated.message | grep -o 'exec: "/nope": stat /nope: no such file or directory'
        k delete pod code oom unwell nope --timeout ${LIMIT}s > /dev/null"#);
    let expected = "Error\nout of memory\n137\nexec: \"/nope\": stat /nope: no such file or directory\n";
    assert_eq!(output.stdout, expected, "{output:?}");
    let output = site.sh(r#"jq -cn '{apiVersion: "batch/v1", kind: "Job", metadata: {name: "many"}, spec: {completions: 8, parallelism: 4, template: {spec: {
            runtimeClassName: "rtx", restartPolicy: "Never", containers: [{name: "main", image: "busybox:1", command: ["sh", "-c", "echo done"]}]}}}}' | k apply -f - > /dev/null
        k wait --for=condition=complete --timeout ${LIMIT}s job/many > /dev/null; k logs -l job-name=many --tail 1 --max-log-requests 8 | sort | uniq -c | tr -s ' '; k delete job many > /dev/null"#);
    assert_eq!(output.stdout, " 8 done\n", "{output:?}");
    assert_gone(site);
}

/// A node that is gone from one moment to the next: its pods are made anew on the other.
fn node_lost(site: &Site) {
    let output = site.sh(r#"jq -cn '{apiVersion: "apps/v1", kind: "Deployment", metadata: {name: "kept"}, spec: {replicas: 6, selector: {matchLabels: {app: "kept"}}, template: {
            metadata: {labels: {app: "kept"}}, spec: {runtimeClassName: "rtx", terminationGracePeriodSeconds: 1, containers: [{name: "main", image: "busybox:1", command: ["sleep", "600"]}]}}}}' | k apply -f - > /dev/null
        k rollout status --timeout ${LIMIT}s deployment/kept > /dev/null; on kept | tr ';' '\n' | wc -l
        kill -9 $(cat $D/2/pid); await 'k get nodes --no-headers | grep -q "node2 *NotReady"'"#);
    assert_eq!((output.code, &*output.stdout), (0, "2\n"), "{output:?}");
    let output = site.sh(r#"await '[ "$(on kept)" = " 6 node1;" ]'; on kept; k delete deployment kept > /dev/null"#);
    assert_eq!(output.stdout, " 6 node1;", "{output:?}");
}
