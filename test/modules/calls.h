/* SPDX-License-Identifier: GPL-2.0 */
/* The monitor's memory calls, as any code in ring 0 can make them. */
#ifndef CALLS_H
#define CALLS_H

#include <linux/sched.h>
#include <hyperps/abi.h>

#define READ_WRITE_EXECUTE 7

static inline s64 call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 *result)
{
	register u64 r8 asm("r8") = d;
	u64 rax = number, rbx = 0, rdx = c, rsi = b, rdi = a;

	asm volatile("vmcall"
		     : "+a"(rax), "=b"(rbx), "+d"(rdx), "+S"(rsi), "+D"(rdi), "+r"(r8)
		     :
		     : "r9", "r10", "r11", "memory");
	if (result)
		*result = rbx;
	return (s64)rax;
}

#define VIEW_PAGES (1ULL << 34) /* all of a VM's guest-physical addresses */

/* A VM whose RAM may be the `count` pages from gpa on. */
static inline s64 create(u64 gpa, u64 count, u64 *handle)
{
	s64 error = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0, handle);

	return error ? error : call(HYPERPS_CALL_VM_DECLARE, *handle, gpa | READ_WRITE_EXECUTE, count, 0, NULL);
}

/* VM_MAP until all are in, or an error. */
static inline s64 map(u64 handle, u64 gpa, u64 frame, u64 count)
{
	u64 done = 0;
	s64 error;

	do {
		error = call(HYPERPS_CALL_VM_MAP, handle, gpa, frame, count, &done);
		gpa += done * PAGE_SIZE;
		frame += done;
		count -= done;
	} while (!error && count);
	return error;
}

/* A call that is repeated until it says 0. */
static inline s64 finish(u64 number, u64 handle)
{
	u64 left;
	s64 error;

	do {
		error = call(number, handle, 0, 0, 0, &left);
		cond_resched();
	} while (!error && left);
	return error;
}

#endif
