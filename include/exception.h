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

#define DEFINE_CHECKED_WRITE(name, instruction)                                                                        \
	static inline bool name(u32 number, u64 value)                                                                 \
	{                                                                                                              \
		asm goto(FAULTING_INSTRUCTION(instruction, "%l[fault]")                                                \
			 :                                                                                             \
			 : "c"(number), "a"((u32)value), "d"((u32)(value >> 32))                                       \
			 : "memory"                                                                                    \
			 : fault);                                                                                     \
		return true;                                                                                           \
fault:                                                                                                                 \
		return false;                                                                                          \
	}

/* Write an MSR, or XCR0 (number 0; CR4.OSXSAVE must be set); false if the CPU refuses the value or the number (#GP). */
DEFINE_CHECKED_WRITE(wrmsr_checked, "wrmsr")
DEFINE_CHECKED_WRITE(xsetbv_checked, "xsetbv")

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

#endif
