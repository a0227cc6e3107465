/*
 * The floor: runs /bin/true in a container of the default bundle with the system calls that no container can do without, and
 * with nothing else: no configuration, no state, no errors told, no libc. What a runtime takes beyond it is the runtime's.
 *
 * floor [+KIND NUMBER | --state DIRECTORY CONFIG] ROOTFS PROGRAM CGROUP...: CGROUP is the directory to make, one for each
 * hierarchy, the version 2 one last or absent. So many more of a KIND are had besides: a `mount` (a tmpfs in /dev), a
 * `device`, an `env` entry, or a `limit` of cgroup version 1, of which there are four.
 *
 * With --state it makes those calls as well without which no *runtime* runs a bundle: it reads CONFIG, and where the cgroups
 * are, and while the program runs DIRECTORY has what another command needs, the configuration and the process. What is read
 * is not looked at.
 */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __x86_64__
#error "floor is written for x86_64"
#endif

enum { AT_CWD = -100, RDWR = 2, WRITE = 1, CLOEXEC = 02000000, DIRECTORY = 0200000, OPATH = 010000000, EMPTY = 0x1000 };
enum { CREATE = 0100, REMOVE_DIRECTORY = 0x200, RECURSIVE = 0x8000, NODEV = 4, NOEXEC = 8, NOSUID = 2, RDONLY = 1 };
enum { BIND = 4096, REC = 16384, SLAVE = 1 << 19, REMOUNT = 32, DETACH = 2, SIGNAL_CHILD = 17, CHARACTER = 0020000 };

static long call(long number, long a, long b, long c, long d, long e)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = 0;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#define CALL(name, a, b, c, d, e) call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static void fail(const char *what)
{
	int length = 0;
	while (what[length])
		length++;
	CALL(write, 2, what, length, 0, 0);
	CALL(exit_group, 1, 0, 0, 0, 0);
}

static long need(long result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static void attach(const char *source, const char *target, const char *kind, long flags, const char *data)
{
	need(CALL(mount, source, target, kind, flags, data), target);
}

static int ends(const char *text, const char *end)
{
	const char *last = text;
	for (const char *c = text; *c; c++)
		if (*c == '/')
			last = c + 1;
	while (*end && *last == *end)
		last++, end++;
	return *end == 0 && *last == 0;
}

/* The name of the hierarchy that DIRECTORY belongs to: the fourth component of /sys/fs/cgroup/NAME/... */
static void hierarchy(char *target, const char *directory)
{
	const char *c = directory;
	for (int slashes = 0; slashes < 4; c++)
		slashes += *c == '/';
	while (*c && *c != '/')
		*target++ = *c++;
	*target = 0;
}

static void drop_capabilities(void)
{
	const uint64_t keep = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;
	for (int number = 0; number <= CAP_CHECKPOINT_RESTORE; number++)
		if (!(keep >> number & 1))
			CALL(prctl, PR_CAPBSET_DROP, number, 0, 0, 0);
	CALL(setgroups, 0, 0, 0, 0, 0);
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { keep, keep, 0 }, { 0, 0, 0 } };
	need(CALL(capset, &header, data, 0, 0, 0), "capset\n");
	CALL(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* What is asked for besides: the first letter of its kind, and how many. */
static struct { char kind; int number; } extra;

static int extras(char kind)
{
	return extra.kind == kind ? extra.number : 0;
}

/* Appends a number to a text, which has the room for it. */
static void append(char *text, int number)
{
	char digits[12];
	int length = 0;
	while (*text)
		text++;
	do
		digits[length++] = '0' + number % 10;
	while (number /= 10);
	while (length)
		*text++ = digits[--length];
	*text = 0;
}

static void more_in_dev(void)
{
	for (int i = 0; i < extras('m'); i++) {
		char path[32] = "dev/m";
		append(path, i);
		CALL(mkdir, path, 0755, 0, 0, 0);
		attach("tmpfs", path, "tmpfs", NOSUID | NODEV, 0);
	}
	for (int i = 0; i < extras('d'); i++) {
		char path[32] = "dev/d";
		append(path, i);
		need(CALL(mknod, path, CHARACTER | 0666, 1 << 8 | 3, 0, 0), "mknod\n");
	}
}

/* Not all of them are there on every host, which nobody knows before. */
static const char *const readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
static const char *const masked[] = { "proc/acpi", "proc/asound", "proc/scsi", "sys/firmware" };
static const char *const masked_files[] = {
	"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug",
};
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static void mounts(const char *root, char **cgroups, long *trees)
{
	CALL(umask, 0, 0, 0, 0, 0);
	attach(0, "/", 0, REC | SLAVE, 0);
	attach(root, root, 0, BIND | REC, 0);
	need(CALL(chdir, root, 0, 0, 0, 0), "chdir\n");
	attach("proc", "proc", "proc", 0, 0);
	attach("tmpfs", "dev", "tmpfs", NOSUID | 1 << 24, "mode=755,size=65536k");
	CALL(mkdir, "dev/pts", 0755, 0, 0, 0);
	CALL(mkdir, "dev/shm", 0755, 0, 0, 0);
	CALL(mkdir, "dev/mqueue", 0755, 0, 0, 0);
	attach("devpts", "dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	attach("shm", "dev/shm", "tmpfs", NOSUID | NOEXEC | NODEV, "mode=1777,size=65536k");
	attach("mqueue", "dev/mqueue", "mqueue", NOSUID | NOEXEC | NODEV, 0);
	attach("sysfs", "sys", "sysfs", NOSUID | NOEXEC | NODEV | RDONLY, 0);
	attach("tmpfs", "sys/fs/cgroup", "tmpfs", NOSUID | NOEXEC | NODEV, "mode=755");
	struct mount_attr attributes = { .attr_set = RDONLY | NOSUID | NODEV | NOEXEC, .propagation = SLAVE };
	for (int i = 0; cgroups[i] && trees[i] > 0; i++) {
		char target[64] = "sys/fs/cgroup/";
		hierarchy(target + 14, cgroups[i]);
		CALL(mkdir, target, 0755, 0, 0, 0);
		need(CALL(mount_setattr, trees[i], "", EMPTY, &attributes, sizeof(attributes)), "mount_setattr\n");
		need(CALL(move_mount, trees[i], "", AT_CWD, target, MOVE_MOUNT_F_EMPTY_PATH), target);
	}
	attach(0, "sys/fs/cgroup", 0, REMOUNT | BIND | RDONLY | NOSUID | NOEXEC | NODEV, 0);
	attach("tmpfs", "tmp", "tmpfs", NOSUID | NODEV, "mode=1777,size=65536k");
	static const struct { const char *name; int major, minor; } devices[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};
	for (unsigned i = 0; i < COUNT(devices); i++)
		need(CALL(mknod, devices[i].name, CHARACTER | 0666, devices[i].major << 8 | devices[i].minor, 0, 0), "mknod\n");
	more_in_dev();
	CALL(symlink, "pts/ptmx", "dev/ptmx", 0, 0, 0);
	CALL(symlink, "/proc/self/fd", "dev/fd", 0, 0, 0);
	CALL(symlink, "/proc/self/fd/0", "dev/stdin", 0, 0, 0);
	CALL(symlink, "/proc/self/fd/1", "dev/stdout", 0, 0, 0);
	CALL(symlink, "/proc/self/fd/2", "dev/stderr", 0, 0, 0);
	need(CALL(pivot_root, ".", ".", 0, 0, 0), "pivot_root\n");
	need(CALL(umount2, ".", DETACH, 0, 0, 0), "umount\n");
	need(CALL(chdir, "/", 0, 0, 0, 0), "chdir\n");
	attach(0, "/", 0, REMOUNT | BIND | RDONLY, 0);
	for (unsigned i = 0; i < COUNT(readonly); i++) {
		if (CALL(mount, readonly[i], readonly[i], 0, BIND | REC, 0) == 0)
			attach(0, readonly[i], 0, REMOUNT | BIND | RDONLY, 0);
	}
	for (unsigned i = 0; i < COUNT(masked); i++)
		CALL(mount, "tmpfs", masked[i], "tmpfs", RDONLY, 0);
	for (unsigned i = 0; i < COUNT(masked_files); i++)
		CALL(mount, "dev/null", masked_files[i], 0, BIND, 0);
	CALL(umask, 022, 0, 0, 0, 0);
}

static void child(char **argv, long *tasks, long *trees)
{
	for (int i = 0; argv[3 + i]; i++)
		if (tasks[i] > 0)
			need(CALL(write, tasks[i], "0", 1, 0, 0), "tasks\n");
	char request[40] = "lo";
	request[16] = 0x9;
	long socket = CALL(socket, 2, 2 | CLOEXEC, 0, 0, 0);
	CALL(ioctl, socket, 0x8914, request, 0, 0);
	CALL(sethostname, "hello", 5, 0, 0, 0);
	mounts(argv[1], argv + 3, trees);
	CALL(setsid, 0, 0, 0, 0, 0);
	uint64_t limit[2] = { 1024, 1024 };
	CALL(prlimit64, 0, 7, limit, 0, 0);
	drop_capabilities();
	CALL(close_range, 3, ~0U, 0, 0, 0);
	char *program[] = { argv[2], 0 };
	static char entries[4096][32];
	static char *environment[4100] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root",
	};
	for (int i = 0; i < extras('e') && i < 4096; i++) {
		static const char name[] = "VARIABLE_OF_THE_BENCH=";
		for (unsigned j = 0; j < sizeof(name); j++)
			entries[i][j] = name[j];
		append(entries[i], i);
		environment[i + 3] = entries[i];
	}
	CALL(execve, argv[2], program, environment, 0, 0);
	fail("execve\n");
}

static void rules(long directory)
{
	static const char *const allowed[] = { "b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
		"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm" };
	long deny = need(CALL(openat, directory, "devices.deny", WRITE | CLOEXEC, 0, 0), "devices.deny\n");
	CALL(write, deny, "a", 1, 0, 0);
	long allow = need(CALL(openat, directory, "devices.allow", WRITE | CLOEXEC, 0, 0), "devices.allow\n");
	for (unsigned i = 0; i < COUNT(allowed); i++) {
		int length = 0;
		while (allowed[i][length])
			length++;
		need(CALL(write, allow, allowed[i], length, 0, 0), "device rule\n");
	}
}

static void copy(long from, long to, const char *name)
{
	char buffer[256];
	long file = CALL(openat, from, name, CLOEXEC, 0, 0);
	long length = CALL(read, file, buffer, sizeof(buffer), 0, 0);
	file = CALL(openat, to, name, WRITE | CLOEXEC, 0, 0);
	need(CALL(write, file, buffer, length > 0 ? length : 0, 0, 0), "cpuset\n");
}

static void set(long directory, const char *name, const char *value)
{
	int length = 0;
	while (value[length])
		length++;
	long file = need(CALL(openat, directory, name, WRITE | CLOEXEC, 0, 0), name);
	need(CALL(write, file, value, length, 0, 0), name);
}

/* The first NUMBER of these, in the directory of NAME's hierarchy. */
static void limits(long directory, const char *name, int number)
{
	static const struct { const char *hierarchy, *file, *value; } all[] = {
		{ "memory", "memory.limit_in_bytes", "1073741824" },
		{ "pids", "pids.max", "1000" },
		{ "cpu", "cpu.shares", "512" },
		{ "cpu", "cpu.cfs_quota_us", "200000" },
	};
	for (int i = 0; i < number && i < (int)COUNT(all); i++)
		if (ends(name, all[i].hierarchy))
			set(directory, all[i].file, all[i].value);
}

static char text[1 << 16];

/* Puts the beginning of a file into `text`. */
static long take(const char *path)
{
	long file = need(CALL(open, path, CLOEXEC, 0, 0, 0), path);
	long length = need(CALL(read, file, text, sizeof(text), 0, 0), path);
	CALL(close, file, 0, 0, 0, 0);
	return length;
}

/* Puts the beginning of `text` into a new file. */
static void keep(long directory, const char *name, long length)
{
	long file = need(CALL(openat, directory, name, WRITE | CREATE | CLOEXEC, 0600, 0), name);
	need(CALL(write, file, text, length, 0, 0), name);
	CALL(close, file, 0, 0, 0, 0);
}

static long begin_state(const char *path, const char *config)
{
	long length = take(config);
	need(CALL(mkdir, path, 0700, 0, 0, 0), path);
	long directory = need(CALL(open, path, DIRECTORY | CLOEXEC, 0, 0, 0), path);
	keep(directory, "config.json", length);
	take("/proc/self/cgroup");
	take("/proc/self/mountinfo");
	return directory;
}

/* A process is told from a later one of its number by the time at which it began. */
static void note_process(long directory, long pid)
{
	char path[32] = "/proc/";
	append(path, pid);
	char *end = path;
	while (*end)
		end++;
	for (const char *c = "/stat"; *c; c++)
		*end++ = *c;
	keep(directory, "state.json", take(path));
}

static void end_state(const char *path, long directory)
{
	CALL(unlinkat, directory, "config.json", 0, 0, 0);
	CALL(unlinkat, directory, "state.json", 0, 0, 0);
	CALL(rmdir, path, 0, 0, 0, 0);
}

int run(int argc, char **argv)
{
	const char *state = 0;
	long state_directory = -1;
	if (argc > 3 && argv[1][0] == '-') {
		state = argv[2];
		state_directory = begin_state(state, argv[3]);
		argv += 3, argc -= 3;
	} else if (argc > 3 && argv[1][0] == '+') {
		extra.kind = argv[1][1];
		for (const char *c = argv[2]; *c; c++)
			extra.number = extra.number * 10 + *c - '0';
		argv += 2, argc -= 2;
	}
	long tasks[24] = { 0 }, trees[24] = { 0 }, unified = -1;
	if (argc < 3 || argc > 26)
		fail("usage: floor ROOTFS PROGRAM CGROUP...\n");
	for (int i = 0; argv[3 + i]; i++) {
		char name[64];
		hierarchy(name, argv[3 + i]);
		need(CALL(mkdir, argv[3 + i], 0755, 0, 0, 0), argv[3 + i]);
		long directory = need(CALL(open, argv[3 + i], DIRECTORY | CLOEXEC, 0, 0, 0), argv[3 + i]);
		if (ends(name, "cpuset")) {
			long parent = CALL(openat, directory, "..", DIRECTORY | CLOEXEC, 0, 0);
			copy(parent, directory, "cpuset.cpus");
			copy(parent, directory, "cpuset.mems");
		}
		if (ends(name, "devices"))
			rules(directory);
		limits(directory, name, extras('l'));
		tasks[i] = CALL(openat, directory, "tasks", WRITE | CLOEXEC, 0, 0);
		if (tasks[i] < 0)
			unified = directory;
		else
			trees[i] = need(CALL(open_tree, directory, "", OPEN_TREE_CLONE | CLOEXEC | EMPTY, 0, 0), "open_tree\n");
	}
	int pidfd = -1;
	struct clone_args clone = {
		.flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_PIDFD,
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGNAL_CHILD,
	};
	if (unified >= 0) {
		clone.flags |= CLONE_INTO_CGROUP;
		clone.cgroup = unified;
	}
	long pid = need(CALL(clone3, &clone, sizeof(clone), 0, 0, 0), "clone3\n");
	if (pid == 0)
		child(argv, tasks, trees);
	if (state)
		note_process(state_directory, pid);
	int status = 1;
	CALL(wait4, pid, &status, 0, 0, 0);
	for (int i = 0; argv[3 + i]; i++)
		CALL(rmdir, argv[3 + i], 0, 0, 0, 0);
	if (state)
		end_state(state, state_directory);
	return status == 0 ? 0 : 1;
}

__asm__(".globl _start\n_start: mov (%rsp), %edi\nlea 8(%rsp), %rsi\nand $-16, %rsp\ncall run\nmov %eax, %edi\nmov $231, %eax\nsyscall\n");
