// SPDX-License-Identifier: MIT
/*
 * base/clear.c: what holds back a CPU that could not be stopped, the first pages of the pool, goes after all that it guards.
 * The first of them is made read-only: the write that faults is the moment to look.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "monitor.h"
#include "stop.h"

#define FRAMES 64
#define REGION 16 /* frame at which the monitor's memory begins */
#define REGION_FRAMES 24
#define POOL_FRAMES 16
#define KVM_POOL 50 /* frame at which kvm_pool begins, outside of that */
#define FREE_PAGES 2 /* what lies in the region before the pool's pages */

struct monitor monitor;
static struct boot_info boot = { .region_base = REGION * PAGE_SIZE,
				 .region_size = REGION_FRAMES * PAGE_SIZE,
				 .cpu_slots = 1 };
static struct cpu_area area;
static u8 (*memory)[PAGE_SIZE]; /* by frame */
static u64 mark[FRAMES];
static unsigned faults;

u8 *set_window(u64 frame, u64 flags)
{
	return flags ? memory[frame] : NULL;
}

static bool is_clear(const void *data, u64 bytes)
{
	for (u64 i = 0; i < bytes; i++)
		if (((const u8 *)data)[i])
			return false;
	return true;
}

static void on_fault(int number, siginfo_t *information, void *context)
{
	u8 *guard = memory[REGION + FREE_PAGES];

	(void)number;
	(void)context;
	if ((u8 *)information->si_addr - guard >= (s64)PAGE_SIZE || (u8 *)information->si_addr < guard)
		abort();
	faults++;
	mprotect(guard, PAGE_SIZE, PROT_READ | PROT_WRITE);
	for (u64 frame = 0; frame < FRAMES; frame++)
		if (mark[frame] == HYPERPS_FRAME_PRIVATE || frame - KVM_POOL < 2)
			assert_true(is_clear(memory[frame], PAGE_SIZE));
	assert_true(is_clear(memory[REGION + FREE_PAGES + 1], (POOL_FRAMES - FREE_PAGES - 1) * PAGE_SIZE));
	assert_true(is_clear(area.stack, sizeof(area.stack)) && is_clear(area.nmi_stack, sizeof(area.nmi_stack)) &&
		    is_clear(area.double_fault_stack, sizeof(area.double_fault_stack)));
}

static void guards_go_last(void **state)
{
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	(void)state;
	memory = mmap(NULL, FRAMES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(memory, 0xaa, FRAMES * PAGE_SIZE);
	memset(&area, 0xaa, sizeof(area));
	for (u64 frame = 0; frame < FRAMES; frame++)
		mark[frame] = frame - REGION < REGION_FRAMES || frame - KVM_POOL < 2 ? HYPERPS_FRAME_MONITOR
			      : frame % 5 == 0                                       ? HYPERPS_FRAME_PRIVATE
										     : HYPERPS_FRAME_HOST;
	monitor.boot = &boot;
	boot.cpu_area = (u64)&area - MONITOR_VA;
	boot.free = FREE_PAGES * PAGE_SIZE;
	monitor.marks = (struct page_marks){ .mark = mark, .frames = FRAMES };
	monitor.pool = (struct page_pool){ .linear = memory[REGION], .used = POOL_FRAMES * PAGE_SIZE };
	sigaction(SIGSEGV, &action, NULL);
	mprotect(memory[REGION + FREE_PAGES], PAGE_SIZE, PROT_READ);
	memory_clear();
	assert_int_equal(faults, 1);
	assert_true(is_clear(memory[REGION + FREE_PAGES], PAGE_SIZE));
	/* The host's frames, and what is the monitor's for ever, are as they were. */
	assert_int_equal(memory[REGION][0], 0xaa);
	assert_int_equal(memory[REGION + POOL_FRAMES][0], 0xaa);
	assert_int_equal(memory[1][0], 0xaa);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(guards_go_last) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
