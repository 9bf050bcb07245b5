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

static inline s64 map(u64 handle, u64 gpa, u64 frame, u64 count)
{
	return call(HYPERPS_CALL_VM_MAP, handle, gpa | READ_WRITE_EXECUTE, frame, count, NULL);
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
