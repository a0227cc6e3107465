//! Several machines of one site: namespaces in its own ones, joined by a bridge. They share the kernel and the files.

/// Shell functions: `lan` makes the bridge, which is 10.77.0.254, and `machine N` a machine, which is 10.77.0.N.
macro_rules! machines {
    () => {
        r#"
in_node() { n=$1; shift; nsenter --target $(cat $D/$n/pid) --net --mount --uts --pid -- "$@"; }
lan() {
    # Whoever wants to reach a registry shall fail at once.
    echo nameserver 127.0.0.1 > $D/resolv.conf
    mount --bind $D/resolv.conf /etc/resolv.conf
    ip link add lan type bridge
    ip address add 10.77.0.254/24 dev lan
    ip link set lan up
}
# Everything in it ends with its first process.
machine() {
    mkdir -p $D/$1
    setsid unshare --net --mount --uts --pid --fork --kill-child --mount-proc --propagation slave tini-static -- sh -c "
        for place in /run/docker /run/containerd /var/lib /var/log; do [ -d \$place ] || continue; mount -t tmpfs none \$place; done
        hostname node$1; ip link set lo up; touch $D/$1/up; exec sleep 100000" > $D/$1/log 2>&1 < /dev/null &
    outer=$!
    await "[ -e $D/$1/up ]"
    cat /proc/$outer/task/$outer/children | tr -d ' ' > $D/$1/pid
    ip link add node$1 type veth peer name lan netns $(cat $D/$1/pid)
    ip link set node$1 master lan up
    in_node $1 ip address add 10.77.0.$1/24 dev lan
    in_node $1 ip link set lan up
    in_node $1 ip route add default via 10.77.0.254
}
"#
    };
}

pub(crate) use machines;
