/*
 * Runs a command and prints the functions of one program in the order of their first calls, each behind a word that says
 * whether it was the command that called it, or a child of it; a function that both call may be there twice:
 *
 *     nm PROGRAM | first-calls PROGRAM COMMAND [ARGS...]
 *
 * PROGRAM has to be linked without PIE, so that the addresses nm prints are those it runs at. Every function gets a
 * breakpoint, which is taken out when it is met, so that what runs often costs nothing. A profiler that interprets the program
 * would have to know each system call it makes; this one need not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define BREAKPOINT 0xcc

struct function {
	uint64_t address;
	char *name;
	unsigned char original;
	/* 1 in a child, 2 in the command. */
	int seen;
};

static struct function *functions;
static size_t count;
static const char *program;

static void die(const char *what)
{
	fprintf(stderr, "first-calls: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int by_address(const void *left, const void *right)
{
	const struct function *a = left, *b = right;
	return a->address < b->address ? -1 : a->address > b->address;
}

static void read_functions(void)
{
	static char line[1 << 20], name[1 << 20];
	unsigned long long address;
	size_t room = 0;
	char kind;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%llx %c %s", &address, &kind, name) != 3 || !strchr("tTwW", kind))
			continue;
		if (count == room) {
			room = room ? room * 2 : 1024;
			functions = realloc(functions, room * sizeof(*functions));
			if (!functions)
				die("read the functions");
		}
		functions[count++] = (struct function){ .address = address, .name = strdup(name) };
	}
	qsort(functions, count, sizeof(*functions), by_address);
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (kept == 0 || functions[kept - 1].address != functions[i].address)
			functions[kept++] = functions[i];
	count = kept;
}

static struct function *find(uint64_t address)
{
	struct function key = { .address = address };
	return bsearch(&key, functions, count, sizeof(*functions), by_address);
}

static int open_memory(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	return open(path, O_RDWR | O_CLOEXEC);
}

static int is_program(pid_t pid)
{
	char path[64];
	struct stat wanted, found;
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return stat(program, &wanted) == 0 && stat(path, &found) == 0 && wanted.st_size == found.st_size &&
	       wanted.st_mtime == found.st_mtime;
}

static void plant(pid_t pid)
{
	if (count == 0 || !is_program(pid))
		return;
	int memory = open_memory(pid);
	if (memory < 0)
		die("open the memory");
	uint64_t base = functions[0].address, length = functions[count - 1].address - base + 1;
	unsigned char *text = malloc(length);
	if (!text || pread(memory, text, length, base) != (ssize_t)length)
		die("read the text");
	for (size_t i = 0; i < count; i++) {
		functions[i].original = text[functions[i].address - base];
		text[functions[i].address - base] = BREAKPOINT;
	}
	if (pwrite(memory, text, length, base) != (ssize_t)length)
		die("write the breakpoints");
	free(text);
	close(memory);
}

/* Whether the trap was one of ours. */
static int met(pid_t pid, int is_child)
{
	struct user_regs_struct registers;
	if (ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0)
		return 0;
	struct function *function = find(registers.rip - 1);
	if (!function)
		return 0;
	int memory = open_memory(pid);
	if (memory < 0 || pwrite(memory, &function->original, 1, function->address) != 1)
		die("take a breakpoint out");
	close(memory);
	registers.rip -= 1;
	ptrace(PTRACE_SETREGS, pid, 0, &registers);
	int kind = is_child ? 1 : 2;
	if (function->seen < kind) {
		function->seen = kind;
		printf("%s %s\n", is_child ? "child" : "command", function->name);
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: nm PROGRAM | first-calls PROGRAM COMMAND [ARGS...]\n");
		return 2;
	}
	program = argv[1];
	read_functions();
	pid_t command = fork();
	if (command == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		/* The output is the list of functions. */
		dup2(open("/dev/null", O_RDWR), 0);
		dup2(2, 1);
		execvp(argv[2], argv + 2);
		die(argv[2]);
	}
	int status;
	if (command < 0 || waitpid(command, &status, 0) != command)
		die("fork");
	long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	ptrace(PTRACE_SETOPTIONS, command, 0, options);
	ptrace(PTRACE_CONT, command, 0, 0);

	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0)
			return 0;
		if (!WIFSTOPPED(status)) {
			if (pid == command)
				return 0;
			continue;
		}
		int event = status >> 16, signal = WSTOPSIG(status);
		if (event == PTRACE_EVENT_EXEC) {
			/* What is not the program itself goes on alone: a payload may run for long. */
			if (is_program(pid)) {
				plant(pid);
			} else if (pid != command) {
				ptrace(PTRACE_DETACH, pid, 0, 0);
				continue;
			}
		}
		if (event != 0 || (signal == SIGTRAP && met(pid, pid != command)) || signal == SIGSTOP)
			signal = 0;
		ptrace(PTRACE_CONT, pid, 0, signal);
	}
}
