# Run by the guest's shell: checkpoint.sh RUNTIME. What works is a line "ok WHAT", what does not "not ok WHAT: WHY". The
# same lines are wanted of rtx and of runc.
runtime=$1
top=$(mktemp -d /tmp/checkpoint.XXXXXX)
cd "$top" || exit 1
log=$top/log

call() { "$runtime" --root "$top/state" "$@"; }
quiet() { call "$@" >"$log" 2>&1 </dev/null; }
# CRIU saves no file of the host that the container has open, so the log is not for what stays in the background.
detached() { call --log "$log" "$@" >/dev/null 2>&1 </dev/null; }
# Retries for ten seconds: nothing here is quick.
soon() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; return 1; }
# ok WHAT COMMAND...
ok() {
	what=$1
	shift
	if "$@"; then echo "ok $what"; else echo "not ok $what: $(tr '\n' ' ' <"$log" | tail -c 600)"; fi
}
count() { cat "$top/shared/$1" 2>/dev/null || echo 0; }
status() { call state "$1" 2>/dev/null | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }
is() { [ "$(status "$1")" = "$2" ]; }
above() { [ "$(count "$1")" -gt "$2" ]; }
counts_on() { soon above "$1" "$(count "$1")"; }
stands() { before=$(count "$1"); sleep 0.5; [ "$(count "$1")" = "$before" ]; }
unknown() { ! call state "$1" >/dev/null 2>&1; }
no_rest() { unknown "$1" && [ -z "$(find /sys/fs/cgroup -name "$1")" ] && ! grep -q "$top/state/$1" /proc/self/mountinfo; }
goes_on_from() { [ "$(count "$1")" -ge "$2" ] && counts_on "$1"; }
fails() { : >"$log"; ! detached "$@" && grep -q . "$log"; }

mkdir -p bundle/rootfs/bin bundle/rootfs/proc bundle/rootfs/dev bundle/rootfs/sys bundle/rootfs/link shared
cp "$(command -v busybox)" bundle/rootfs/bin/busybox
for name in sh sleep mv cat; do ln -s busybox "bundle/rootfs/bin/$name"; done
# A bind below a symbolic link of the image: CRIU has to be told where it really is.
ln -s link bundle/rootfs/alias
# The number is replaced whole, so that nobody reads half of it.
cat >bundle/rootfs/count <<'COUNT'
i=0
while :; do
	i=$((i + 1))
	echo $i >/shared/$1.new
	mv /shared/$1.new /shared/$1
	[ ! -e /shared/$1.say ] || echo "said $i"
	[ ! -e /shared/$1.end ] || exit 7
	sleep 0.05
done
COUNT
own='{ "type": "pid" }, { "type": "mount" }, { "type": "network" }'
configure() {
	cat >bundle/config.json <<CONFIG
{ "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "hostname": "guest",
  "process": { "terminal": ${terminal:-false}, "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": [ "PATH=/bin" ],
    "args": [ "sh", "/count", "$1" ] },
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc" },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": [ "nosuid", "mode=755" ] },
    { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": [ "newinstance", "ptmxmode=0666" ] },
    { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [ "nosuid", "nodev" ] },
    { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [ "nosuid", "noexec", "nodev", "ro" ] },
    { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [ "nosuid", "noexec", "nodev", "ro" ] },
    { "destination": "/alias/shared", "type": "bind", "source": "$top/shared", "options": [ "rbind" ] },
    { "destination": "/shared", "type": "bind", "source": "$top/shared", "options": [ "bind" ] } ],
  "hooks": { "createRuntime": [ { "path": "/bin/sh", "args": [ "sh", "-c", "echo runtime >>$top/hooks" ] } ],
    "poststop": [ { "path": "/bin/sh", "args": [ "sh", "-c", "echo stopped >>$top/hooks" ] } ] },
  "linux": { "resources": { "memory": { "limit": 300000000 }, "devices": [ { "allow": false, "access": "rwm" } ] },
    "namespaces": [ ${all:-$own}, { "type": "ipc" }, { "type": "uts" }$2 ],
    "maskedPaths": [ "/proc/kcore", "/proc/timer_list", "/proc/acpi" ], "readonlyPaths": [ "/proc/sys" ] } }
CONFIG
}

# A life in the background: saved, gone, back, and on.
configure one "$namespaces"
ok "run" detached run -d -b bundle one
ok "counts" counts_on one
ok "checkpoint" quiet checkpoint --image-path "$top/one" one
saved=$(count one)
ok "is gone after it" no_rest one
ok "poststop ran" grep -q stopped "$top/hooks"
ok "does not count" stands one
: >"$top/hooks"
ok "restore" detached restore -d -b bundle --image-path "$top/one" --pid-file "$top/pid" one
ok "is running" is one running
ok "goes on counting" goes_on_from one "$saved"
ok "createRuntime ran" grep -q runtime "$top/hooks"
ok "pid file" kill -0 "$(cat "$top/pid")"
ok "in its cgroup" grep -q one "/proc/$(cat "$top/pid")/cgroup"
ok "exec" quiet exec one sh -c 'test "$(cat /proc/1/comm)" = sh && test -e /alias/shared/one'
ok "leave running" quiet checkpoint --leave-running --image-path "$top/two" one
ok "runs on" is one running
ok "counts on" counts_on one

# Twice the memory's changes, then the rest on top of them.
ok "pre-dump" quiet checkpoint --pre-dump --image-path "$top/first" one
ok "runs on after the pre-dump" counts_on one
ok "dump with parent" quiet checkpoint --image-path "$top/second" --parent-path ../first one
ok "parent is used" test -h "$top/second/parent"
saved=$(count one)
ok "restore with parent" detached restore -d -b bundle --image-path "$top/second" one
ok "goes on from there" goes_on_from one "$saved"
ok "pause" quiet pause one
ok "paused and left running" quiet checkpoint --leave-running --image-path "$top/paused" one
ok "resume" quiet resume one
ok "counts when resumed" counts_on one
ok "restore of an id in use" fails restore -d -b bundle --image-path "$top/second" one
ok "delete" quiet delete --force one
ok "nothing is left" no_rest one

# A network namespace that the container only joined is there again, and the same.
ip netns add outside
all='{ "type": "pid" }, { "type": "mount" }, { "type": "network", "path": "/run/netns/outside" }'
configure net "$namespaces"
all=
inode() { stat -L -c %i "$1"; }
ok "run in a joined network namespace" detached run -d -b bundle net
counts_on net
ok "checkpoint of that" quiet checkpoint --image-path "$top/net" net
ok "restore of that" detached restore -d -b bundle --image-path "$top/net" --pid-file "$top/pid" net
ok "is the same namespace" test "$(inode /run/netns/outside)" = "$(inode "/proc/$(cat "$top/pid")/ns/net")"
ok "counts there" counts_on net
quiet delete --force net
ip netns del outside

# In the foreground, with pipes: the words and the exit code come from the restored container.
configure fore "$namespaces"
{ call run -b bundle fore </dev/null 2>/dev/null; echo $? >"$top/ran"; } | cat >"$top/said" &
counts_on fore
ok "checkpoint in the foreground" quiet checkpoint --image-path "$top/fore" fore
# So that a failure ends it, too.
call delete --force fore >/dev/null 2>&1
wait
ok "its run ends as killed" grep -qx 137 "$top/ran"
{ call --log "$log" restore -b bundle --image-path "$top/fore" fore </dev/null 2>/dev/null; echo $? >"$top/ran"; } | cat >"$top/said" &
ok "restore in the foreground" soon is fore running
touch "$top/shared/fore.say"
ok "its words arrive" soon grep -q said "$top/said"
touch "$top/shared/fore.end"
soon unknown fore
call delete --force fore >/dev/null 2>&1
wait
ok "its exit code arrives" grep -qx 7 "$top/ran"
ok "and it is gone" no_rest fore

# With a terminal: the restored container has a new one, whose other end is the restoring command's.
at_terminal() { script -q -c "$runtime --root $top/state $*; echo code \$?" /dev/null <&9 >"$top/said" 2>&1; }
mkfifo "$top/keys" && exec 9<>"$top/keys"
terminal=true
configure tty "$namespaces"
at_terminal run -b bundle tty &
counts_on tty
ok "checkpoint at a terminal" quiet checkpoint --image-path "$top/tty" tty
call delete --force tty >/dev/null 2>&1
wait
at_terminal restore -b bundle --image-path "$top/tty" tty &
ok "restore at a terminal" soon is tty running
touch "$top/shared/tty.say"
ok "its words arrive at the terminal" soon grep -q said "$top/said"
touch "$top/shared/tty.end"
soon unknown tty
call delete --force tty >/dev/null 2>&1
wait
ok "its exit code arrives at the terminal" grep -q "code 7" "$top/said"
terminal=false

# What fails leaves nothing, and says why.
configure bad "$namespaces"
cp -r "$top/second" "$top/damaged"
rm -f "$top"/damaged/core-*.img
ok "restore of damaged images fails" fails restore -d -b bundle --image-path "$top/damaged" bad
ok "leaves nothing" no_rest bad
ok "restore of no images fails" fails restore -d -b bundle --image-path "$top/nowhere" bad
ok "leaves nothing of that" no_rest bad
ok "run for a dump that fails" detached run -d -b bundle bad
counts_on bad
# The images do not fit.
mkdir "$top/small" && mount -t tmpfs -o size=16k tmpfs "$top/small"
ok "dump without room fails" fails checkpoint --image-path "$top/small" bad
ok "and it runs on" counts_on bad
umount "$top/small"
quiet delete --force bad
rm -rf "$top"
