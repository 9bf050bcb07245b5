/* SPDX-License-Identifier: MIT */
/*
 * Instructions that may raise #GP in VMX root on a value that the host chose: they report it instead of stopping the
 * CPU.
 */
#ifndef EXCEPTION_H
#define EXCEPTION_H

#include "types.h"

#define FAULTING_INSTRUCTION(instruction, fixup)                                                                       \
	"1: " instruction "\n"                                                                                         \
	".pushsection .exception_fixups, \"a\"\n"                                                                      \
	".quad 1b, " fixup "\n"                                                                                        \
	".popsection\n"

/* Writes an MSR; false if the CPU refuses the value or the MSR (#GP). */
static inline bool wrmsr_checked(u32 msr, u64 value)
{
	asm goto(FAULTING_INSTRUCTION("wrmsr", "%l[fault]")
		 :
		 : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32))
		 : "memory"
		 : fault);
	return true;
fault:
	return false;
}

/* Reads an MSR into *value; false if the CPU has no such MSR (#GP). */
static inline bool rdmsr_checked(u32 msr, u64 *value)
{
	u32 low, high;

	asm goto(FAULTING_INSTRUCTION("rdmsr", "%l[fault]") : "=a"(low), "=d"(high) : "c"(msr) : "memory" : fault);
	*value = (u64)high << 32 | low;
	return true;
fault:
	return false;
}

/* Writes XCR0; false if the CPU refuses the value (#GP). CR4.OSXSAVE must be set. */
static inline bool xsetbv_checked(u64 value)
{
	asm goto(FAULTING_INSTRUCTION("xsetbv", "%l[fault]")
		 :
		 : "c"(0), "a"((u32)value), "d"((u32)(value >> 32))
		 : "memory"
		 : fault);
	return true;
fault:
	return false;
}

#endif
