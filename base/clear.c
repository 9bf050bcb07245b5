// SPDX-License-Identifier: MIT
/* Overwriting all that the host must not find in the RAM. */
#include "address_space.h"
#include "monitor.h"
#include "page_mark.h"
#include "stop.h"

#define STACK_IN_USE 256 /* bytes below a frame that it, and what it calls, may use */

static bool is_own_memory(u64 frame)
{
	const struct boot_info *boot = monitor.boot;
	u64 address = frame << PAGE_SHIFT;

	return address - boot->region_base < boot->region_size || address - boot->low_base < boot->low_size;
}

/* All of a stack, or, of the one that this CPU runs on, what lies below the functions that run. */
static __attribute__((noinline)) void clear_stack(u8 *stack, u64 size)
{
	u64 unused = (u64)__builtin_frame_address(0) - STACK_IN_USE - (u64)stack;

	__builtin_memset(stack, 0, unused < size ? unused : size);
}

/*
 * In this order: a CPU that could not be stopped runs the host, which the tables and bitmaps of the pool's first pages hold
 * back. They go last, when there is nothing left that they guard.
 */
void memory_clear(void)
{
	for (u64 frame = 0; frame < monitor.marks.frames; frame++) {
		u64 frame_state = page_mark_state(&monitor.marks, frame);

		if (frame_state != HYPERPS_FRAME_HOST && frame_state != HYPERPS_FRAME_DEVICE && !is_own_memory(frame))
			__builtin_memset(set_window(frame, PTE_RW), 0, PAGE_SIZE);
	}
	set_window(0, 0);
	/* Registers of guests are in the pool's pages, and on the stacks what an NMI or an exit's handler saved of them. */
	FOR_EACH_CPU (cpu) {
		struct cpu_area *area = cpu_area_of(cpu);

		clear_stack(area->stack, sizeof(area->stack));
		clear_stack(area->nmi_stack, sizeof(area->nmi_stack));
		clear_stack(area->double_fault_stack, sizeof(area->double_fault_stack));
	}
	for (u64 at = monitor.pool.used; at > monitor.boot->free; at -= PAGE_SIZE)
		__builtin_memset(monitor.pool.linear + at - PAGE_SIZE, 0, PAGE_SIZE);
	wbinvd();
}
