/* SPDX-License-Identifier: MIT */
/*
 * What the loader makes and the monitor goes on with, as data: the state of mm/ (page marks, the pool of pages, the host
 * view) and what was chosen for the CPUs' VMX. The functions that work on them are in mm/ and vmx/.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "types.h"
#include "hyperps/abi.h"

struct page_marks {
	u64 *mark; /* by frame number */
	u64 frames; /* marks in the table */
	u64 count[HYPERPS_FRAME_STATES]; /* frames by state */
};

struct page_list {
	u64 head; /* frame number; the page field of its mark is the next one */
	u64 count;
};

struct page_pool {
	u8 *linear; /* where the first range is mapped */
	hpa_t base; /* the same byte's host-physical address; page-aligned */
	u64 size; /* bytes */
	u64 used; /* bytes handed out once */
	u8 *direct; /* linear address = direct + hpa of a page outside that range */
	struct page_marks *marks;
	struct page_list free, incoming, waiting;
	u64 waiting_epoch; /* `waiting` is safe when every CPU has flushed after this epoch had begun */
};

struct ept {
	struct page_pool *pool;
	u64 *root; /* linear */
	unsigned levels; /* 4 or 5 */
	unsigned largest_leaf; /* level of the largest leaf: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB */
	u64 leaves[4]; /* leaves by level, [1] to [3] */
	bool write_back; /* entries must reach memory: a DMA-remapping unit reads them past the caches */
};

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

#endif
