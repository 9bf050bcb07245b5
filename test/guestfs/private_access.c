// SPDX-License-Identifier: MIT
/*
 * What becomes of a process or a kernel thread that touches a page which was given to a VM, in the ways in which Linux
 * code may meet one. Each is a child, so that it may die: by a clean error, a signal, or an oops of that task alone.
 * None may repeat its access for ever. The host goes on.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "../modules/private_page.h"
#include "monitor_device.h"
#include "tap.h"

#define PAGE 4096
#define CHUNK 64
#define KERNEL_IMAGE 0xffffffff80000000
#define BIOS 0xf0000 /* below 1 MiB /dev/mem has everything */
#define FILE_NAME "/tmp/private_file"
#define LIMIT_SECONDS 20 /* for a child */

/* A child's exit code if what it tried was refused as it should be, and if the same with the host's page went wrong. */
enum outcome { REFUSED = 0, SUCCEEDED = 1, NO_CONTROL = 2, NOT_READY = 3 };
/*
 * How a test may end: by what it says or SIGSEGV or SIGBUS, without an oops; or with an oops of that task; or, where Linux
 * itself repeats an access for ever whatever fault it gets, by SIGKILL or when the page is there again.
 */
enum expected { CLEAN = 0, MAY_OOPS, MAY_REPEAT };

static int device = -1;
static uint8_t *own, *foreign; /* the same two pages as the module's */
static sigjmp_buf recovery;
static volatile greg_t left; /* RCX when a signal came */

static void judge(bool passed, const char *what, const char *how)
{
	check(passed, "%s: %s", what, how);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)info;
	left = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RCX];
	siglongjmp(recovery, number);
}

static enum outcome try_access(void (*access)(volatile uint8_t *))
{
	if (sigsetjmp(recovery, 1))
		return NO_CONTROL;
	access(own);
	if (sigsetjmp(recovery, 1))
		return REFUSED;
	access(foreign);
	return SUCCEEDED;
}

static void access_read(volatile uint8_t *page)
{
	(void)*page;
}

static void access_write(volatile uint8_t *page)
{
	page[PAGE - 1] = 1;
}

static void access_atomic(volatile uint8_t *page)
{
	__atomic_fetch_add((volatile uint32_t *)(page + CHUNK), 1, __ATOMIC_SEQ_CST);
}

static void access_execute(volatile uint8_t *page)
{
	((void (*)(void))(uintptr_t)page)();
}

static enum outcome ring3_read(void)
{
	return try_access(access_read);
}

static enum outcome ring3_write(void)
{
	return try_access(access_write);
}

static enum outcome ring3_atomic(void)
{
	return try_access(access_atomic);
}

static enum outcome ring3_execute(void)
{
	own[0] = 0xc3; /* RET */
	return try_access(access_execute);
}

/* From the host's page across into the other: it stops at the border, and the registers say so. */
static enum outcome ring3_rep_movs(void)
{
	static uint8_t source[2 * PAGE];
	void *from = source, *to = own;
	size_t bytes = PAGE;

	memset(source, 0x5a, sizeof(source));
	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(bytes)::"memory");
	if (own[PAGE - 1] != 0x5a)
		return NO_CONTROL;
	memset(own, 0, PAGE);
	if (!sigsetjmp(recovery, 1)) {
		from = source;
		to = own;
		bytes = PAGE + CHUNK;
		asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(bytes)::"memory");
		return SUCCEEDED;
	}
	return left == CHUNK && own[PAGE - 1] == 0x5a ? REFUSED : SUCCEEDED;
}

/* With no handler: the signal ends the process. */
static enum outcome ring3_no_handler(void)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	access_read(own);
	access_read(foreign);
	return SUCCEEDED;
}

/* The stack lies in the page: the kernel can't put the signal there. */
static enum outcome ring3_stack(void)
{
	asm volatile("mov %0, %%rsp\n\tpush %%rax" ::"r"(foreign + PAGE) : "memory");
	__builtin_unreachable();
}

static enum outcome outcome_of(long control, long result)
{
	if (control < 0)
		return NO_CONTROL;
	return result < 0 && errno == EFAULT ? REFUSED : SUCCEEDED;
}

/* The arguments of a system call are evaluated in this order. */
#define FAULTS(control, tried)                                                                                         \
	({                                                                                                             \
		long first = (control);                                                                                \
		errno = 0;                                                                                             \
		outcome_of(first, (tried));                                                                            \
	})

static enum outcome call_write(void)
{
	int ends[2];

	return pipe(ends) ? NOT_READY : FAULTS(write(ends[1], own, CHUNK), write(ends[1], foreign, CHUNK));
}

static enum outcome call_read(void)
{
	static const char text[2 * CHUNK];
	int ends[2];

	if (pipe(ends) || write(ends[1], text, sizeof(text)) != sizeof(text))
		return NOT_READY;
	return FAULTS(read(ends[0], own, CHUNK), read(ends[0], foreign, CHUNK));
}

static enum outcome call_open(void)
{
	strcpy((char *)own, FILE_NAME);
	return FAULTS(access((char *)own, F_OK), access((char *)foreign, F_OK));
}

static long futex_wait(uint8_t *page)
{
	static const struct timespec moment = { .tv_nsec = 1000 };
	long result = syscall(SYS_futex, page + 2 * CHUNK, FUTEX_WAIT_PRIVATE, 0, &moment, NULL, 0);

	return result < 0 && errno == ETIMEDOUT ? 0 : result;
}

static enum outcome call_futex(void)
{
	memset(own + 2 * CHUNK, 0, 4);
	return FAULTS(futex_wait(own), futex_wait(foreign));
}

static enum outcome copy_to_user(void)
{
	uint8_t buffer[CHUNK];

	return FAULTS(ioctl(device, PRIVATE_PAGE_COPY_TO_USER_OWN, buffer),
		      ioctl(device, PRIVATE_PAGE_COPY_TO_USER, buffer));
}

static enum outcome copy_from_user(void)
{
	uint8_t buffer[CHUNK] = { 0 };

	return FAULTS(ioctl(device, PRIVATE_PAGE_COPY_FROM_USER_OWN, buffer),
		      ioctl(device, PRIVATE_PAGE_COPY_FROM_USER, buffer));
}

static enum outcome kernel_read(void)
{
	ioctl(device, PRIVATE_PAGE_READ, 0);
	return SUCCEEDED;
}

static enum outcome kernel_write(void)
{
	ioctl(device, PRIVATE_PAGE_WRITE, 0);
	return SUCCEEDED;
}

static enum outcome kernel_thread(void)
{
	if (ioctl(device, PRIVATE_PAGE_THREAD_OWN, 0) != 1)
		return NO_CONTROL;
	return ioctl(device, PRIVATE_PAGE_THREAD, 0) == 0 ? REFUSED : SUCCEEDED;
}

/* Two pages of this process, the second of which has gone away under its feet. */
static uint8_t *pages_given(int file)
{
	uint8_t *two = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED,
			    file, 0);

	if (two == MAP_FAILED)
		return NULL;
	memset(two, 0x11, 2 * PAGE);
	return ioctl(device, PRIVATE_PAGE_GIVE, two + PAGE) ? NULL : two;
}

static enum outcome given_page(void)
{
	uint8_t *two = pages_given(-1);

	if (!two)
		return NOT_READY;
	own = two;
	foreign = two + PAGE;
	return try_access(access_write);
}

/* As direct I/O does: the kernel pins the page, and uses it by its own mapping. */
static enum outcome pinned(bool write)
{
	uint8_t buffer[CHUNK] = { 0 }, *two = pages_given(-1);
	struct iovec local = { buffer, CHUNK }, remote[2];

	if (!two)
		return NOT_READY;
	remote[0] = (struct iovec){ two, CHUNK };
	remote[1] = (struct iovec){ two + PAGE, CHUNK };
	if (write)
		return FAULTS(process_vm_writev(getpid(), &local, 1, remote, 1, 0),
			      process_vm_writev(getpid(), &local, 1, remote + 1, 1, 0));
	return FAULTS(process_vm_readv(getpid(), &local, 1, remote, 1, 0),
		      process_vm_readv(getpid(), &local, 1, remote + 1, 1, 0));
}

static enum outcome pinned_read(void)
{
	return pinned(false);
}

static enum outcome pinned_write(void)
{
	return pinned(true);
}

/* A file in memory, whose page `number` of two has gone away. */
static int file_given(int number)
{
	int file = open(FILE_NAME, O_RDWR | O_TRUNC);
	uint8_t *two;

	if (file < 0 || ftruncate(file, 2 * PAGE))
		return -1;
	two = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (two == MAP_FAILED)
		return -1;
	memset(two, 0x11, 2 * PAGE);
	if (ioctl(device, PRIVATE_PAGE_GIVE, two + number * PAGE))
		return -1;
	munmap(two, 2 * PAGE); /* execve() wants no writer */
	return file;
}

static enum outcome page_cache_read(void)
{
	uint8_t buffer[CHUNK];
	int file = file_given(1);

	return file < 0 ? NOT_READY : FAULTS(pread(file, buffer, CHUNK, 0), pread(file, buffer, CHUNK, PAGE));
}

static enum outcome page_cache_execve(void)
{
	char *const arguments[] = { FILE_NAME, NULL };
	int file = file_given(0);

	if (file < 0)
		return NOT_READY;
	close(file);
	execv(FILE_NAME, arguments);
	return SUCCEEDED;
}

static struct hyperps_status monitor_status(void)
{
	struct hyperps_status status = { 0 };
	int monitor = monitor_open();

	if (monitor < 0 || monitor_read_status(monitor, &status))
		judge(false, "the monitor answers", strerror(errno));
	close(monitor);
	return status;
}

static enum outcome dev_mem_read(void)
{
	uint8_t buffer[CHUNK];
	int memory = open("/dev/mem", O_RDWR);

	return FAULTS(pread(memory, buffer, CHUNK, BIOS), pread(memory, buffer, CHUNK, monitor_status().memory_base));
}

static enum outcome dev_mem_write(void)
{
	uint8_t buffer[CHUNK] = { 0 };
	int memory = open("/dev/mem", O_RDWR);

	return FAULTS(pwrite(memory, buffer, CHUNK, BIOS), pwrite(memory, buffer, CHUNK, monitor_status().memory_base));
}

/* Reads the first bytes of a frame through /proc/kcore. */
static long read_kcore(int request, char *buffer)
{
	uint64_t address = (uint64_t)ioctl(device, request, 0) * PAGE;
	int core = open("/proc/kcore", O_RDONLY);
	Elf64_Ehdr header;
	Elf64_Phdr part;

	memset(buffer, 0, CHUNK);
	if (pread(core, &header, sizeof(header), 0) != sizeof(header))
		return -1;
	for (int i = 0; i < header.e_phnum; i++)
		if (pread(core, &part, sizeof(part), header.e_phoff + i * sizeof(part)) == sizeof(part) &&
		    part.p_type == PT_LOAD && part.p_vaddr < KERNEL_IMAGE && !(part.p_paddr >> 46) &&
		    address - part.p_paddr < part.p_filesz)
			return pread(core, buffer, CHUNK, part.p_offset + (address - part.p_paddr));
	return -1;
}

static enum outcome kcore(void)
{
	char buffer[CHUNK], zeros[CHUNK] = { 0 };

	own[CHUNK - 1] = 1;
	if (read_kcore(PRIVATE_PAGE_FRAME_OWN, buffer) != CHUNK || memcmp(buffer, own, CHUNK))
		return NO_CONTROL;
	return read_kcore(PRIVATE_PAGE_FRAME, buffer) < 0 || !memcmp(buffer, zeros, CHUNK) ? REFUSED : SUCCEEDED;
}

/* The process's own page table: the CPU walks into refused memory. */
static enum outcome table(bool back)
{
	uint8_t *area = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		return NOT_READY;
	area = (uint8_t *)(((uintptr_t)area + (2 << 20) - 1) & -(2UL << 20));
	madvise(area, 2 << 20, MADV_NOHUGEPAGE);
	area[0] = 1;
	if (ioctl(device, PRIVATE_PAGE_GIVE_TABLE, area))
		return NOT_READY;
	if (sigsetjmp(recovery, 1)) {
		if (back)
			ioctl(device, PRIVATE_PAGE_TAKE_BACK, 0);
		return REFUSED;
	}
	*(volatile uint8_t *)area = 2;
	return SUCCEEDED;
}

static enum outcome own_table(void)
{
	return table(true);
}

/* The kernel, too, will meet it, when the process ends. */
static enum outcome own_table_kept(void)
{
	return table(false);
}

/* The page cache can't take what is written, and tries again. */
static enum outcome page_cache_write(void)
{
	uint8_t buffer[CHUNK] = { 0 };
	int file = file_given(1);

	return file < 0 ? NOT_READY : FAULTS(pwrite(file, buffer, CHUNK, 0), pwrite(file, buffer, CHUNK, PAGE));
}

/* Of a thousand a second the log gets a few; all are counted. */
static enum outcome ring3_storm(void)
{
	struct hyperps_status before = monitor_status(), after;

	for (int i = 0; i < 1000; i++)
		if (try_access(access_read) != REFUSED)
			return SUCCEEDED;
	after = monitor_status();
	return after.refused_memory - before.refused_memory >= 1000 && after.log_lost - before.log_lost >= 900
		       ? REFUSED
		       : SUCCEEDED;
}

static long futex_wake(uint8_t *page)
{
	return syscall(SYS_futex, own, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, page + 2 * CHUNK,
		       FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0));
}

static enum outcome call_futex_wake(void)
{
	return FAULTS(futex_wake(own), futex_wake(foreign));
}

static const struct test {
	const char *name;
	enum outcome (*run)(void);
	enum expected expected;
} tests[] = {
	{ "ring 3 reads", ring3_read, CLEAN },
	{ "ring 3 writes", ring3_write, CLEAN },
	{ "ring 3 adds atomically", ring3_atomic, CLEAN },
	{ "ring 3 executes", ring3_execute, CLEAN },
	{ "ring 3, REP MOVSB across the border", ring3_rep_movs, CLEAN },
	{ "ring 3 reads without a handler", ring3_no_handler, CLEAN },
	{ "ring 3 pushes", ring3_stack, CLEAN },
	{ "ring 3 writes a page of its own that was given away", given_page, CLEAN },
	{ "write(2) from the page", call_write, CLEAN },
	{ "read(2) to the page", call_read, CLEAN },
	{ "a file name in the page", call_open, CLEAN },
	{ "futex wait", call_futex, CLEAN },
	{ "copy_to_user() of the kernel's page", copy_to_user, CLEAN },
	{ "process_vm_readv() of a pinned page", pinned_read, CLEAN },
	{ "process_vm_writev() to a pinned page", pinned_write, CLEAN },
	{ "read(2) of a file whose page it is", page_cache_read, CLEAN },
	{ "read(2) of /dev/mem", dev_mem_read, CLEAN },
	{ "read(2) of /proc/kcore", kcore, CLEAN },
	{ "page table of a process", own_table, CLEAN },
	{ "ring 3 reads a thousand times", ring3_storm, MAY_REPEAT },
	{ "futex wake and add", call_futex_wake, MAY_REPEAT },
	{ "write(2) of a file whose page it is", page_cache_write, MAY_REPEAT },
	/* After the fault the kernel clears the rest of its buffer, plainly. */
	{ "copy_from_user() to the kernel's page", copy_from_user, MAY_OOPS },
	{ "write(2) of /dev/mem", dev_mem_write, MAY_OOPS },
	{ "execve() of a file whose page it is", page_cache_execve, MAY_OOPS },
	{ "the kernel reads", kernel_read, MAY_OOPS },
	{ "the kernel writes", kernel_write, MAY_OOPS },
	{ "a kernel thread reads", kernel_thread, MAY_OOPS },
	{ "page table of a process that ends with it", own_table_kept, MAY_OOPS },
};

/* How many oopses there were, if the kernel counts them; else 0. */
static long oopses(void)
{
	FILE *file = fopen("/sys/kernel/oops_count", "r");
	long count = 0;

	if (file) {
		if (fscanf(file, "%ld", &count) != 1)
			count = 0;
		fclose(file);
	}
	return count;
}

static bool wait_for(pid_t child, int *status, int milliseconds)
{
	for (int i = 0; i < milliseconds / 10; i++) {
		/* -1: a task that oopsed while it ended is gone without a trace. */
		if (waitpid(child, status, WNOHANG))
			return true;
		usleep(10000);
	}
	return false;
}

static void run(const struct test *test)
{
	uint64_t before = monitor_status().refused_memory, count;
	long oopses_before = oopses(), oopsed;
	bool repeats = test->expected == MAY_REPEAT, ended, good;
	const char *by = "by itself";
	pid_t child = fork();
	char how[120];
	int status = 0;

	if (child == 0) {
		struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

		sigaction(SIGSEGV, &action, NULL);
		sigaction(SIGBUS, &action, NULL);
		_exit(test->run());
	}
	ended = wait_for(child, &status, repeats ? 1000 : LIMIT_SECONDS * 1000);
	if (!ended) {
		by = "by SIGKILL";
		kill(child, SIGKILL);
		ended = wait_for(child, &status, 1000);
	}
	if (!ended && repeats) {
		by = "when the page came back";
		ioctl(device, PRIVATE_PAGE_TAKE_BACK, 0);
		ended = wait_for(child, &status, LIMIT_SECONDS * 1000);
	}
	count = monitor_status().refused_memory - before;
	oopsed = oopses() - oopses_before;
	snprintf(how, sizeof(how), "ended %s, exit status %d, signal %d, %ld oopses, %llu refused",
		 ended ? by : "never", WEXITSTATUS(status), WTERMSIG(status), oopsed, (unsigned long long)count);
	good = ended && count > 0;
	if (WIFEXITED(status))
		good = good && WEXITSTATUS(status) == REFUSED;
	else
		good = good && (test->expected != CLEAN || WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
	if (!repeats)
		good = good && count < 100 && !strcmp(by, "by itself") && oopsed <= (test->expected == MAY_OOPS);
	judge(good, test->name, how);
}

int main(int argc, char **argv)
{
	uint8_t *two;

	device = open(PRIVATE_PAGE_FILE, O_RDWR | O_CLOEXEC);
	two = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, device, 0);
	judge(device >= 0 && two != MAP_FAILED, PRIVATE_PAGE_FILE, strerror(errno));
	own = two;
	foreign = two + PAGE;
	close(open(FILE_NAME, O_RDWR | O_CREAT, 0700));
	if (two != MAP_FAILED)
		for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
			if (argc < 2 || strstr(tests[i].name, argv[1]))
				run(&tests[i]);
	return summary();
}
