/* SPDX-License-Identifier: MIT */
/*
 * What the CPU's VMX can do, and the control words that the monitor uses on it, as the loader chooses them. Also compiled
 * into the loader.
 */
#ifndef CAPABILITIES_H
#define CAPABILITIES_H

#include "types.h"
#include "hyperps/abi.h"

struct vmx_capabilities {
	u64 basic; /* IA32_VMX_BASIC */
	u64 ept_vpid; /* IA32_VMX_EPT_VPID_CAP, without what is not used */
	u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
	u32 pin, primary, secondary, exit, entry; /* control words as the monitor sets them for the host's VMCS */
	u32 guest_pin, guest_primary, guest_secondary; /* those of the guests' VMCS that differ */
	u32 timer_rate; /* a tick of the preemption timer is 2^timer_rate of the TSC's */
	u64 xcr0; /* what XCR0 can hold; 0 without XSAVE */
	u32 physical_address_bits;
	u32 ept_levels; /* 4, or 5 where physical addresses are wider than 48 bits */
	bool feature[HYPERPS_FEATURES]; /* enum hyperps_feature: the CPU has it */
	bool gate; /* the CPU has all that the gate needs */
};

/* Fills in what may differ from CPU to CPU: the features, and the bits of CR0 and CR4 that can be 1. */
void vmx_read_features(struct vmx_capabilities *out);

/* What XCR0 can hold on this CPU; 0 without XSAVE. */
u64 vmx_xcr0(void);

/* Whether this CPU can run under what was chosen for *first, the boot CPU. Returns NULL, or what differs. */
const char *vmx_compare_this_cpu(const struct vmx_capabilities *first);

#endif
