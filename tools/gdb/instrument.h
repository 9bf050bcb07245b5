/* SPDX-License-Identifier: MIT */
/* Bochs's instrumentation: of all its hooks only the one before each instruction. */
#undef BX_INSTRUMENTATION
#define BX_INSTRUMENTATION 0
#include "../stubs/instrument.h" /* all hooks, empty */
#undef BX_INSTRUMENTATION
#define BX_INSTRUMENTATION 1

/* Bit n is set: look closer at an instruction whose address ends in these six bits. */
extern Bit64u gdb_mask;
void gdb_before_instruction(unsigned cpu);

#undef BX_INSTR_BEFORE_EXECUTION
#define BX_INSTR_BEFORE_EXECUTION(cpu, i)                                                                              \
	do {                                                                                                           \
		if (gdb_mask >> (BX_CPU_THIS_PTR gen_reg[BX_64BIT_REG_RIP].rrx & 63) & 1)                              \
			gdb_before_instruction(cpu);                                                                   \
	} while (0)
