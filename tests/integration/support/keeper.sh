#!/bin/sh
# Keeps the namespaces in which programs that call a runtime work, and cleans up when the test process ends, however it
# ends: then this script's stdin does. Arguments: the directory, the runtime, "all", "network" or "mounts" for the
# namespaces, and an ordinary user's name and id.
set -eu
trap '' INT TERM HUP
dir=$1 runtime=$2 namespaces=$3 user=$4 uid=$5

if [ "${6-}" != inside ]; then
    case $namespaces in
        # Whatever is alive when the script inside has ended, containers too, ends with the pid namespace.
        all) unshare --net --mount --pid --fork --kill-child --mount-proc --propagation slave tini-static -- sh "$0" "$@" inside || true ;;
        network) unshare --net --mount --propagation slave sh "$0" "$@" inside || true ;;
        mounts) unshare --mount --propagation slave sh "$0" "$@" inside || true ;;
    esac
    # Runtimes leave the parents of their cgroups. All of ours are below one of the directory's name.
    find /sys/fs/cgroup -depth -type d -path "*${dir##*/}*" -exec rmdir {} + 2> /dev/null || true
    rm -rf "$dir"
    exit
fi

# Nothing of the host's own daemons and containers is seen or changed; the shims' sockets have a fixed place.
for place in /run/containerd /run/docker /run/runc /run/rtx /run/containers /run/libpod /var/lib/containers; do
    if [ -d "$place" ]; then mount -t tmpfs none "$place"; fi
done
# The configuration of podman and buildah.
if [ -d "$dir/containers.conf.d" ]; then
    mkdir "$dir/containers"
    if [ -d /etc/containers ]; then cp -a /etc/containers/. "$dir/containers"; fi
    rm -rf "$dir/containers/containers.conf" "$dir/containers/containers.conf.d"
    cp -a "$dir/containers.conf.d" "$dir/containers"
    mount --bind "$dir/containers" /etc/containers
fi
# An ordinary user with subordinate ids, for these namespaces alone.
cp /etc/passwd /etc/group "$dir"
echo "$user:x:$uid:$uid::$dir/user/home:/bin/sh" >> "$dir/passwd"
echo "$user:x:$uid:" >> "$dir/group"
echo "$user:200000000:65536" > "$dir/subid"
for file in passwd group; do mount --bind "$dir/$file" "/etc/$file"; done
for file in subuid subgid; do
    if [ -e "/etc/$file" ]; then mount --bind "$dir/subid" "/etc/$file"; fi
done
mkdir -p "$dir/user/home" "$dir/user/xdg"
chown -R "$uid:$uid" "$dir/user"
chmod 700 "$dir/user/xdg"
# The runtime keeps its name at a place of its own, which an ordinary user can reach too.
: > "$dir/${runtime##*/}"
mount --bind "$runtime" "$dir/${runtime##*/}"
# A caller that falls back to another runtime than the one that it was told would prove nothing.
for other in runc crun; do
    if path=$(command -v "$other") && [ "$(realpath "$path")" != "$(realpath "$runtime")" ]; then
        mount --bind /bin/false "$path"
    fi
done
if [ "$namespaces" != mounts ]; then
    ip link set lo up
    # Without an address besides the loopback's, nothing resolves (AI_ADDRCONFIG).
    ip link add outside type veth peer name inside
    ip address add 10.99.0.1/24 dev outside
    ip link set outside up
    ip link set inside up
fi

echo ready
read -r _ || true
if [ -x "$dir/cleanup" ]; then "$dir/cleanup" || true; fi
