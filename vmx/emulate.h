/* SPDX-License-Identifier: MIT */
/* Instructions of the virtual CPU whose VMCS is current: skipped, or done for it. */
#ifndef EMULATE_H
#define EMULATE_H

#include "cpu.h"

/* Moves past the instruction that exited, or past so many bytes, as the CPU would have. */
void skip_instruction(void);
void skip_bytes(u64 bytes);

/* Lets the bits of CR0 that the monitor owns read as in value, in the current VMCS. */
void cr0_follow(u64 value);

/*
 * XSETBV as the CPU would, with these bits of XCR0 supported, or a #GP for it. Returns whether it was done. The CPU
 * itself judges which combinations of bits are valid.
 */
bool execute_xsetbv(const struct registers *regs, u64 supported);

/* Whether a basic exit reason is an instruction that raises #UD in hosts and guests, wherever it is executed. */
bool is_undefined_instruction(u32 reason);

/* Gives a read shadow the bits of the value that are in the mask. */
void follow(vmcs_field_t shadow, u64 mask, u64 value);

#endif
