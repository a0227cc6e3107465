/*
 * Runs a command once and appends a line to a file: label, wall time and CPU time in microseconds, peak memory in KiB.
 *
 * A program of its own, linked statically and small, because the kernel counts the memory of the process that called
 * exec into the peak of the one that it became: an interpreter's ten megabytes would hide every runtime.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long microseconds(long long seconds, long long rest)
{
	return seconds * 1000000 + rest;
}

int main(int argc, char **argv)
{
	struct timespec begin, end;
	struct rusage usage;
	int status;

	if (argc < 4) {
		fprintf(stderr, "usage: once FILE LABEL COMMAND [ARGS...]\n");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pid_t child = fork();
	if (child == 0) {
		execv(argv[3], argv + 3);
		fprintf(stderr, "once: exec %s: %s\n", argv[3], strerror(errno));
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &usage) != child) {
		fprintf(stderr, "once: %s: %s\n", argv[3], strerror(errno));
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return 1;

	FILE *file = fopen(argv[1], "a");
	if (!file) {
		fprintf(stderr, "once: open %s: %s\n", argv[1], strerror(errno));
		return 2;
	}
	fprintf(file, "%s %lld %lld %ld\n", argv[2],
		microseconds(end.tv_sec, end.tv_nsec / 1000) - microseconds(begin.tv_sec, begin.tv_nsec / 1000),
		microseconds(usage.ru_utime.tv_sec, usage.ru_utime.tv_usec) +
			microseconds(usage.ru_stime.tv_sec, usage.ru_stime.tv_usec),
		usage.ru_maxrss);
	return fclose(file) ? 2 : 0;
}
