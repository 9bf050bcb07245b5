/* SPDX-License-Identifier: MIT */
/* Which MSRs the host may read and write. Pure: also built and tested on the build host. */
#ifndef MSR_POLICY_H
#define MSR_POLICY_H

#include "types.h"

enum msr_access {
	MSR_PASS, /* the host's access goes to the CPU, without an exit */
	MSR_HANDLE, /* exits; msr.c validates it */
	MSR_DENY, /* exits; #GP */
};

/* What a read is, and what a write is. Reads pass unless listed; writes are denied unless listed. */
enum msr_access msr_read_access(u32 msr);
enum msr_access msr_write_access(u32 msr);

/* Fills a VMX MSR bitmap of 4096 bytes, which must be zero ("MSR-Bitmap Address": a set bit exits). */
void msr_policy_fill_bitmap(u8 *bitmap);

/* True if the index is an MTRR other than IA32_MTRRCAP. */
bool msr_is_mtrr(u32 msr);

#endif
