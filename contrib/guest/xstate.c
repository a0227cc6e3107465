/*
 * Loaded into user-mode-linux by LD_PRELOAD: lets its PTRACE_SETREGSET of the extended processor state go through.
 *
 * Debian's kernel 6.1 keeps 2696 bytes of it, and the host's kernel takes all or nothing: on a processor with AMX, where
 * the whole is 11008 bytes, every process of the guest dies at its first instruction with "ptrace set fp regs failed".
 * What the guest does not keep is what the process has: programs use AMX only after they have asked for it.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* No processor's state is as large. UML calls ptrace from one thread. */
static unsigned char whole[1 << 16];

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	long pid, address, word;
	void *data;
	struct iovec all = { whole, sizeof(whole) };

	va_start(list, request);
	pid = va_arg(list, pid_t);
	address = va_arg(list, long);
	data = va_arg(list, void *);
	va_end(list);

	if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE) {
		const struct iovec *given = data;

		if (syscall(SYS_ptrace, (long)PTRACE_GETREGSET, pid, address, &all) < 0)
			return -1;
		if (given->iov_len < all.iov_len) {
			memcpy(whole, given->iov_base, given->iov_len);
			data = &all;
		}
	}
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		/* The C library returns the word that the system call stores. */
		if (syscall(SYS_ptrace, (long)request, pid, address, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, (long)request, pid, address, data);
}
