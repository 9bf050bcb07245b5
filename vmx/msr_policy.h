/* SPDX-License-Identifier: MIT */
/* Which MSRs the host may read and write; and MSR bitmaps, for guests as well. Pure: also built and tested on the build machine. */
#ifndef MSR_POLICY_H
#define MSR_POLICY_H

#include "types.h"

enum msr_access {
	MSR_PASS, /* the host's access goes to the CPU, without an exit */
	MSR_HANDLE, /* exits; msr.c validates it */
	MSR_DENY, /* exits; #GP */
};

/* What the host's access is. Reads pass unless listed; writes are denied unless listed. */
enum msr_access host_msr_access(u32 msr, bool write);

/* Fills a VMX MSR bitmap, which must be zero ("MSR-Bitmap Address": a set bit exits), for a policy like that one. */
void msr_fill_bitmap(u8 bitmap[4096], enum msr_access (*access)(u32 msr, bool write));

/* True if the index is an MTRR other than IA32_MTRRCAP. */
bool msr_is_mtrr(u32 msr);

#endif
