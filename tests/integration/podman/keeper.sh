#!/bin/sh
# Keeps the mount namespace that every podman of one test process works in, and cleans up when the test process ends,
# however it ends: then this script's stdin does. Arguments: the directory, the runtime, the ordinary user's name and id.
set -eu
dir=$1 runtime=$2 user=$3 uid=$4
trap '' INT TERM HUP
export CONTAINERS_CONF="$dir/containers.conf"

# Nothing of the host's own podman is seen or changed.
for place in /var/lib/containers /run/containers /run/libpod; do
    if [ -d "$place" ]; then mount -t tmpfs none "$place"; fi
done
# An ordinary user with subordinate ids, for this namespace alone.
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
# The user must reach the runtime, and its name must end in /rtx.
: > "$dir/rtx"
mount --bind "$runtime" "$dir/rtx"

echo ready
read -r _ || true

set +e
cd /
"$dir/podman" pod rm --force --all --time 0
"$dir/podman" rm --force --all --time 0
"$dir/upodman" rm --force --all --time 0
"$dir/upodman" system migrate
# What a failed removal left: conmon and the payloads have the directory in their command lines or cgroups.
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && tr '\0' ' ' < "$process/cmdline" 2> /dev/null | grep -q "conmon.*$dir/"; then kill -9 "$pid"; fi
done
# podman and runtimes leave the parents of their cgroups. All of ours are below one of the directory's name.
find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + 2> /dev/null
while read -r _ _ _ _ point _; do
    case $point in "$dir"/*) umount -l "$point" ;; esac
done < /proc/self/mountinfo 2> /dev/null
rm -rf "$dir"
