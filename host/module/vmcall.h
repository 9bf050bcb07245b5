/* SPDX-License-Identifier: GPL-2.0 */
/* VMCALL, as the monitor takes it: the one place in kernel code that knows its registers. */
#ifndef VMCALL_H
#define VMCALL_H

#include <linux/types.h>
#include <asm/asm.h>

#include <hyperps/abi.h>

#define HYPERPS_ARGUMENTS 4
#define HYPERPS_RESULTS (HYPERPS_READ_BYTES / sizeof(u64))

/*
 * Returns what RAX holds: 0, an error code, or the vector of the fault that VMCALL raised, a positive number. The result
 * words are what the other registers hold then.
 */
static inline s64 hyperps_vmcall(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS])
{
	register u64 r8 asm("r8") = argument[3];
	register u64 r9 asm("r9");
	register u64 r10 asm("r10");
	register u64 r11 asm("r11");
	u64 rax = number, rbx = 0, rdx = argument[2], rsi = argument[1], rdi = argument[0];

	asm volatile("1: vmcall\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "+a"(rax), "+b"(rbx), "+d"(rdx), "+S"(rsi), "+D"(rdi), "+r"(r8), "=r"(r9), "=r"(r10), "=r"(r11)
		     :
		     : "memory", "cc");
	result[0] = rbx;
	result[1] = rdx;
	result[2] = rsi;
	result[3] = rdi;
	result[4] = r8;
	result[5] = r9;
	result[6] = r10;
	result[7] = r11;
	return rax;
}

#endif
