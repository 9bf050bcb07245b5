/* SPDX-License-Identifier: MIT */
/* What a guest sees of the CPU and may do with it. What is not listed is not there. Pure. */
#ifndef POLICY_H
#define POLICY_H

#include "cpu_features.h"
#include "msr_policy.h"

struct guest_cpuid_state {
	u64 cr4; /* the guest's */
	u64 xcr0_supported; /* the bits of XCR0 that the guest may set; 0: it gets no XSAVE, and nothing that needs it */
	u32 xsave_bytes; /* of an XSAVE area with all of these, in standard format */
	u32 index, vcpus; /* the vCPU's, and how many its VM has */
};

/* *r comes as this CPU's answer, with the guest's XCR0 in place, and becomes the guest's. */
void guest_cpuid(u32 leaf, u32 subleaf, const struct guest_cpuid_state *state, struct cpuid_result *r);

/* The bits of CR4 that a guest may set that got these answers of leaf 1 and of leaf 7, subleaf 0. */
u64 guest_cr4_allowed(u32 leaf1_ecx, u32 leaf1_edx, u32 leaf7_ebx, u32 leaf7_ecx);

/* What a guest's access is: denied unless listed. */
enum msr_access guest_msr_access(u32 msr, bool write);

#endif
