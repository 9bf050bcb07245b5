// SPDX-License-Identifier: MIT
/*
 * A user-space workload, measured with RDTSC on one CPU. Prints "bench <name> <ticks per operation>" for each part, the same of each
 * of its pieces as "bench-samples <name> <ticks>...", and, if the monitor is there, "bench-exits <reason> <number>" for each VM exit reason that occurred while measuring, then
 * "bench-exits total <number>".
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hpsctl_format.h"
#include "monitor_device.h"

#define EXIT_AT_ONCE "--exit"
#define MMAP_BYTES (64UL << 20)
#define PAGE_SIZE 4096UL
#define PIECES 20 /* into which a part's operations are divided */

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t read_tsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
	return low | (uint64_t)high << 32;
}

static void wait_for(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child || status)
		fail("waitpid");
}

static void run_fork_exec(unsigned long count)
{
	static char *const arguments[] = { "workload", EXIT_AT_ONCE, NULL };
	static char *const environment[] = { NULL };

	while (count--) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (!child) {
			execve("/proc/self/exe", arguments, environment);
			_exit(1);
		}
		wait_for(child);
	}
}

static void run_fork(unsigned long count)
{
	while (count--) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (!child)
			_exit(0);
		wait_for(child);
	}
}

static void run_getpid(unsigned long count)
{
	while (count--)
		syscall(SYS_getpid);
}

static void pass_bytes(int from, int to, unsigned long count)
{
	char byte = 0;

	while (count--)
		if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1)
			_exit(1);
}

/* Two processes pass a byte to and fro; each pass is one switch. Two switches make a round. */
static void run_pipe_switch(unsigned long count)
{
	int there[2], back[2];
	char byte = 0;
	pid_t child;

	if (pipe(there) || pipe(back))
		fail("pipe");
	child = fork();
	if (child < 0)
		fail("fork");
	if (!child) {
		pass_bytes(there[0], back[1], count / 2);
		_exit(0);
	}
	for (unsigned long i = 0; i < count / 2; i++)
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			fail("pipe");
	wait_for(child);
	for (int i = 0; i < 2; i++) {
		close(there[i]);
		close(back[i]);
	}
}

static void run_mmap_touch(unsigned long pages)
{
	for (unsigned long done = 0; done < pages; done += MMAP_BYTES / PAGE_SIZE) {
		volatile char *memory =
			mmap(NULL, MMAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			fail("mmap");
		/* Transparent huge pages would make this 32 touches. */
		madvise((void *)memory, MMAP_BYTES, MADV_NOHUGEPAGE);
		for (unsigned long i = 0; i < MMAP_BYTES; i += PAGE_SIZE)
			memory[i] = 1;
		munmap((void *)memory, MMAP_BYTES);
	}
}

static const struct benchmark {
	const char *name;
	void (*run)(unsigned long count);
	unsigned long warm_up; /* operations before the measurement */
	unsigned long count; /* a multiple of pieces */
	int pieces;
} benchmarks[] = {
	{ "fork_exec", run_fork_exec, 10, 260, PIECES },
	{ "fork", run_fork, 10, 500, PIECES },
	{ "getpid", run_getpid, 1000, 400000, PIECES },
	{ "pipe_switch", run_pipe_switch, 200, 40000, 5 },
	{ "mmap_touch", run_mmap_touch, MMAP_BYTES / PAGE_SIZE, 4 * MMAP_BYTES / PAGE_SIZE, 4 },
};

#define BENCHMARKS (sizeof(benchmarks) / sizeof(benchmarks[0]))

/* Exits of all CPUs by reason. Returns 0, or -1 if the monitor is not there. */
static int read_exits(int device, int64_t exits[HYPERPS_EXIT_REASONS])
{
	struct hyperps_status status;
	struct hyperps_exits cpu;

	memset(exits, 0, HYPERPS_EXIT_REASONS * sizeof(exits[0]));
	if (device < 0 || monitor_read_status(device, &status))
		return -1;
	for (uint64_t slot = 0; slot < status.cpus_taken; slot++) {
		if (monitor_read_exits(device, slot, &cpu))
			return -1;
		for (int i = 0; i < HYPERPS_EXIT_REASONS; i++)
			exits[i] += cpu.reason[i];
	}
	return 0;
}

static void print_exits(const int64_t exits[HYPERPS_EXIT_REASONS])
{
	int64_t total = 0;

	for (unsigned int i = 0; i < HYPERPS_EXIT_REASONS; i++) {
		const char *name = exit_reason_name(i);

		total += exits[i];
		if (exits[i] && name)
			printf("bench-exits %s %lld\n", name, (long long)exits[i]);
		else if (exits[i])
			printf("bench-exits reason %u %lld\n", i, (long long)exits[i]);
	}
	printf("bench-exits total %lld\n", (long long)total);
}

int main(int argc, char **argv)
{
	static int64_t sum[HYPERPS_EXIT_REASONS], first[HYPERPS_EXIT_REASONS], before[HYPERPS_EXIT_REASONS],
		after[HYPERPS_EXIT_REASONS];
	int device, monitor;
	cpu_set_t cpus;

	if (argc > 1 && !strcmp(argv[1], EXIT_AT_ONCE))
		_exit(0);
	device = monitor_open();
	monitor = device >= 0;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("sched_setaffinity");

	for (size_t i = 0; i < BENCHMARKS; i++) {
		const struct benchmark *benchmark = &benchmarks[i];
		uint64_t tick[PIECES + 1];
		unsigned long piece = benchmark->count / benchmark->pieces;

		benchmark->run(benchmark->warm_up);
		/* Reading the counters exits, too: the difference of two readings in a row is taken off. */
		monitor = monitor && !read_exits(device, first) && !read_exits(device, before);
		tick[0] = read_tsc();
		for (int j = 1; j <= benchmark->pieces; j++) {
			benchmark->run(piece);
			tick[j] = read_tsc();
		}
		monitor = monitor && !read_exits(device, after);
		for (int j = 0; monitor && j < HYPERPS_EXIT_REASONS; j++)
			sum[j] += after[j] - before[j] - (before[j] - first[j]);
		printf("bench %s %llu\nbench-samples %s", benchmark->name,
		       (unsigned long long)((tick[benchmark->pieces] - tick[0]) / benchmark->count), benchmark->name);
		for (int j = 0; j < benchmark->pieces; j++)
			printf(" %.2f", (double)(tick[j + 1] - tick[j]) / (double)piece);
		printf("\n");
		fflush(stdout);
	}
	if (monitor)
		print_exits(sum);
	return 0;
}
