//! Docker Swarm: two nodes, each in namespaces of its own, joined by a bridge; rtx is their daemons' default runtime.

use std::sync::OnceLock;

use super::machines::machines;
use super::{Caller, Site, sites};

const FUNCTIONS: &str = concat!(
    machines!(),
    r#"
d() { n=$1; shift; timeout $LIMIT /usr/bin/docker -H unix://$D/$n/d.sock "$@"; }
# The manager.
m() { d 1 "$@"; }
containerd_config() { cat << END
version = 2
root = "$D/$1/root"
state = "$D/$1/run"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$D/$1/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$D/$1/opt"
$(patience)
END
}
daemons() {
    containerd_config $1 > $D/$1/containerd.toml
    cat > $D/$1/daemon.json << END
{ "runtimes": { "tested": { "path": "$RT" } }, "default-runtime": "tested", "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/$Y",
  "oom-score-adjust": 0, "storage-driver": "overlay2", "bip": "10.87.$1.1/24", "userland-proxy": false }
END
    in_node $1 setsid containerd -c $D/$1/containerd.toml >> $D/$1/log 2>&1 < /dev/null &
    await "[ -S $D/$1/c.sock ]"
    in_node $1 setsid dockerd -H unix://$D/$1/d.sock --containerd $D/$1/c.sock --data-root $D/$1/data --exec-root $D/$1/exec -p $D/$1/d.pid \
        --config-file $D/$1/daemon.json >> $D/$1/log 2>&1 < /dev/null &
    await "d $1 version > /dev/null 2>&1"
    d $1 import --change 'ENV PATH=/bin' --change 'CMD ["sh"]' $D/rootfs.tar bb:1 > /dev/null
}
# SERVICE COUNT: waits for so many tasks that run.
replicas() { await "[ \"\$(running $1 | wc -l)\" = $2 ]" || m service ps --no-trunc $1; }
# SERVICE: the nodes of its tasks that run.
running() { m service ps --filter desired-state=running --format '{{.CurrentState}} {{.Node}}' $1 | sed -n 's/^Running .* //p'; }
# NODE SERVICE: the containers of a service there.
containers() { d $1 ps --quiet --filter label=com.docker.swarm.service.name=$2; }
create() { m service create --detach --quiet --no-resolve-image --restart-delay 100ms --name "$@" > /dev/null; }
update() { m service update --detach --quiet --no-resolve-image --update-delay 0s "$@" > /dev/null; }
# A program that ends when it is told to.
listens() { printf 'trap "exit 0" TERM; echo up %s; while :; do sleep 0.2; done' "$1"; }
left() { for n in 1 2; do d $n ps --all --quiet; done; find /sys/fs/cgroup -path "*/$Y/*" -type d 2> /dev/null; true; }
"#
);

const SETUP: &str = r#"
set -e
lan
tar -C $D/unpacked/rootfs -cf $D/rootfs.tar .
for n in 1 2; do machine $n; daemons $n; done
m swarm init --advertise-addr 10.77.0.1 --listen-addr 10.77.0.1:2377 > /dev/null
d 2 swarm join --advertise-addr 10.77.0.2 --listen-addr 10.77.0.2:2377 --token $(m swarm join-token --quiet worker) 10.77.0.1:2377
await '[ $(m node ls --format "{{.Status}}" | grep -c Ready) = 2 ]'
"#;

static SWARM: Caller = Caller {
    name: "swarm",
    programs: &["dockerd", "containerd", "containerd-shim-runc-v2", "iptables"],
    packages: "docker.io",
    functions: FUNCTIONS,
    setup: SETUP,
    sites: OnceLock::new(),
};

#[test]
fn everything() {
    for site in sites!(SWARM) {
        replicated(site);
        networked(site);
        updated(site);
        node_lost(site);
    }
}

#[track_caller]
fn remove(site: &Site, service: &str) {
    let output = site.sh(&format!("m service rm {service} > /dev/null && await '[ -z \"$(left)\" ]' || left"));
    assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "left behind");
}

/// As many tasks as were asked for, on both nodes, with their limits; one that fails is replaced.
fn replicated(site: &Site) {
    let output = site.sh(r#"create sized --replicas 4 --limit-memory 32m --limit-cpu 0.5 --limit-pids 20 --health-cmd 'test -e /dev/shm/healthy' --health-interval 300ms --health-start-period 100s \
            --env A=b --user plain --read-only bb:1 sh -c "touch /dev/shm/healthy; $(listens '$A')"
        replicas sized 4; running sized | sort | uniq -c | tr -s ' '
        for n in 1 2; do for c in $(containers $n sized); do
            d $n exec $c sh -c 'id -u; cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max' | tr '\n' ' '; d $n inspect --format '{{.State.Health.Status}} {{.HostConfig.Runtime}}' $c
        done; done"#);
    let task = "1000 33554432 50000 20 healthy tested\n";
    assert_eq!(output.stdout, format!(" 2 node1\n 2 node2\n{}", task.repeat(4)), "{output:?}");
    let output = site.sh(r#"d 2 kill $(containers 2 sized | head -1) > /dev/null
        await 'm service ps --format "{{.Error}}" sized | grep -q "non-zero exit (137)"'; replicas sized 4
        m service scale --detach sized=7 > /dev/null; replicas sized 7; m service scale --detach sized=1 > /dev/null; replicas sized 1; running sized | wc -l
        await 'm service logs --raw sized 2> /dev/null | grep -q "up b"' && echo logged"#);
    assert_eq!(output.stdout, "1\nlogged\n", "{output:?}");
    remove(site, "sized");
}

/// Tasks on the two nodes reach each other, and have the service's configuration and secret.
fn networked(site: &Site) {
    let output = site.sh(r#"m network create --driver overlay --attachable net > /dev/null
        echo configured | m config create setting - > /dev/null; echo hidden | m secret create word - > /dev/null
        create web --mode global --network net --endpoint-mode dnsrr --config source=setting,target=/setting --secret word bb:1 \
            sh -c 'trap "exit 0" TERM; mkdir -p /tmp/w; echo $(hostname) $(cat /setting /run/secrets/word) > /tmp/w/index.html; httpd -p 80 -h /tmp/w; while :; do sleep 0.2; done'
        replicas web 2
        for n in 1 2; do for c in $(containers $n web); do d $n inspect --format '{{.NetworkSettings.Networks.net.IPAddress}} {{.Config.Hostname}}' $c; done; done > $D/tasks
        while read address name; do for n in 1 2; do
            c=$(containers $n web); await "d $n exec $c sh -c 'printf \"GET /index.html HTTP/1.0\\r\\n\\r\\n\" | nc -w 5 $address 80' < /dev/null | grep -qx '$name configured hidden'" && echo reached
        done; done < $D/tasks"#);
    assert_eq!(output.stdout, "reached\n".repeat(4), "{output:?}");
    remove(site, "web");
    site.sh("await 'm network rm net > /dev/null 2>&1' && m config rm setting && m secret rm word").ok();
}

/// One task after the other gets what is new; what cannot start is rolled back.
fn updated(site: &Site) {
    let output = site.sh(r#"create rolled --replicas 4 --env V=1 --stop-grace-period 5s --update-monitor 500ms --rollback-monitor 500ms bb:1 sh -c "$(listens '$V')"; replicas rolled 4
        state() { m service inspect --format '{{.UpdateStatus.State}}' rolled; }
        versions() { for n in 1 2; do for c in $(containers $n rolled); do d $n exec $c sh -c 'echo $V'; done; done | sort | uniq -c | tr -s ' '; }
        versions
        update --env-add V=2 --update-parallelism 1 --update-order start-first rolled
        await '[ "$(state)" = completed ] && [ "$(versions)" = " 4 2" ]'; versions
        m service ps --filter desired-state=shutdown --format '{{.CurrentState}}' rolled | cut -d ' ' -f 1 | sort | uniq -c | tr -s ' '
        update --env-add V=3 --entrypoint /nope --update-failure-action rollback --update-parallelism 1 rolled
        await '[ "$(state)" = rollback_completed ] && [ "$(versions)" = " 4 2" ]'; versions
        m service ps --no-trunc --format '{{.Error}}' rolled | grep -o 'exec: "/nope": stat /nope: no such file or directory' | head -1"#);
    let refused = "exec: \"/nope\": stat /nope: no such file or directory\n";
    assert_eq!(output.stdout, format!(" 4 1\n 4 2\n 4 Shutdown\n 4 2\n{refused}"), "{output:?}");
    remove(site, "rolled");
}

/// A machine that is gone from one moment to the next, and comes back with what its runtime left on the disk.
fn node_lost(site: &Site) {
    let output = site.sh(r#"create kept --replicas 4 bb:1 sh -c "$(listens again)"; replicas kept 4; running kept | sort | uniq -c | tr -s ' '
        kill -9 $(cat $D/2/pid)
        await 'm node ls --format "{{.Hostname}} {{.Status}}" | grep -q "node2 Down"'
        await '[ "$(running kept | sort | uniq -c | tr -s " ")" = " 4 node1" ]'; running kept | sort | uniq -c | tr -s ' '; containers 1 kept | wc -l"#);
    assert_eq!(output.stdout, " 2 node1\n 2 node2\n 4 node1\n4\n", "{output:?}");
    let output = site.sh(r#"rm -f $D/2/d.pid $D/2/d.sock $D/2/c.sock $D/2/up; await '! ip link show node2 > /dev/null 2>&1'; machine 2; daemons 2
        await 'm node ls --format "{{.Hostname}} {{.Status}}" | grep -q "node2 Ready"'
        m service scale --detach kept=8 > /dev/null; replicas kept 8; running kept | sort | uniq -c | tr -s ' '
        await '[ $(containers 2 kept | wc -l) = 4 ] && [ $(d 2 ps --quiet --filter status=exited | wc -l) = 2 ]' || d 2 ps --all"#);
    assert_eq!(output.stdout, " 4 node1\n 4 node2\n", "{output:?}");
    remove(site, "kept");
}
