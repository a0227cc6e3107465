#!/bin/sh
# Keeps the namespaces that a caller, its daemons and their containers live in, and cleans up when the test process
# ends, however it ends: then this script's stdin does. Arguments: the directory, the runtime, and "hide" when no other
# runtime may be found.
set -eu
trap '' INT TERM HUP

if [ "${4-}" != inside ]; then
    # Whatever is alive when the script inside has ended, containers too, ends with the pid namespace.
    unshare --net --mount --pid --fork --kill-child --mount-proc --propagation slave tini-static -- sh "$0" "$1" "$2" "$3" inside || true
    # Runtimes leave the parents of their cgroups. All of ours are below one of the directory's name.
    find /sys/fs/cgroup -depth -type d -path "*${1##*/}*" -exec rmdir {} + 2> /dev/null || true
    rm -rf "$1"
    exit
fi

dir=$1 runtime=$2 hide=$3
# Nothing of the host's own daemons is seen or changed; the shims' sockets have a fixed place.
for place in /run/containerd /run/docker /run/runc /run/rtx /run/containers /var/lib/containers; do
    if [ -d "$place" ]; then mount -t tmpfs none "$place"; fi
done
# The runtime keeps its name at a place of its own, which an ordinary user can reach too.
: > "$dir/${runtime##*/}"
mount --bind "$runtime" "$dir/${runtime##*/}"
# A caller that falls back to another runtime than the one that it was told would prove nothing.
if [ "$hide" = hide ]; then
    for other in runc crun; do
        if path=$(command -v "$other"); then mount --bind /bin/false "$path"; fi
    done
fi
ip link set lo up
# Without an address besides the loopback's, nothing resolves (AI_ADDRCONFIG).
ip link add outside type veth peer name inside
ip address add 10.99.0.1/24 dev outside
ip link set outside up
ip link set inside up

echo ready
read -r _ || true
