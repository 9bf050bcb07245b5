// SPDX-License-Identifier: MIT
/* MSRs of L2: which it reaches without an exit, and the lists of VMCS12. docs/nested.md, "MSRs of L2". */
#include "memory_service.h"
#include "nested.h"

/* What passes if L1's bitmap lets it, too: nothing that the host itself does not have without an exit. */
static const struct {
	u32 first, last;
	bool read, write;
} passing[] = {
	{ MSR_IA32_TSC, MSR_IA32_TSC, true, false }, /* with L1's offset */
	{ MSR_IA32_SPEC_CTRL, MSR_IA32_SPEC_CTRL, true, true },
	{ MSR_IA32_PRED_CMD, MSR_IA32_PRED_CMD, false, true },
	{ MSR_IA32_MPERF, MSR_IA32_APERF, true, false },
	{ MSR_IA32_FLUSH_CMD, MSR_IA32_FLUSH_CMD, false, true },
	{ MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_EIP, true, true }, /* in the VMCS, like FS and GS base */
	{ MSR_IA32_XFD, MSR_IA32_XFD_ERR, true, true },
	{ MSR_CORE_C3_RESIDENCY, MSR_CORE_C7_RESIDENCY, true, false },
	{ MSR_CORE_C1_RESIDENCY, MSR_CORE_C1_RESIDENCY, true, false },
	{ MSR_IA32_FS_BASE, MSR_IA32_KERNEL_GS_BASE, true, true },
};

/* Bytes of a bitmap behind which nothing passes: writes of the high MSRs are its last quarter. */
#define BITMAP_BYTES 3112

/* Bit of an MSR in a bitmap: reads of low MSRs, of high ones, then writes. */
static u32 bitmap_bit(u32 msr, bool write)
{
	return (write ? 0x4000 : 0) + (msr >> 31 ? 0x2000 : 0) + msr % 0x2000;
}

void nested_merge_msrs(struct nested *n)
{
	const u8 *theirs = (const u8 *)n->second;

	__builtin_memset(n->msr_bitmap, 0xff, PAGE_SIZE);
	if (!(nested_get(n, VMCS_PRIMARY_CONTROLS) & PRIMARY_USE_MSR_BITMAPS) ||
	    !memory_read_host(nested_get(n, VMCS_MSR_BITMAP), n->second, BITMAP_BYTES))
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(passing); i++)
		for (u32 msr = passing[i].first; msr <= passing[i].last; msr++)
			for (unsigned write = !passing[i].read; write <= passing[i].write; write++) {
				u32 bit = bitmap_bit(msr, write);

				if (!(theirs[bit / 8] & 1 << bit % 8))
					n->msr_bitmap[bit / 8] &= ~(1 << bit % 8);
			}
}

/* SDM, "VM-Entry Controls for MSRs". */
struct msr_entry {
	u32 msr, reserved;
	u64 value;
};

/* False: it is in no HOST frame, or its MSR is not one that a list may have. */
static bool read_entry(u64 gpa, struct msr_entry *entry)
{
	if (!memory_read_host(gpa, entry, sizeof(*entry)) || entry->reserved)
		return false;
	switch (entry->msr) {
	case MSR_IA32_PERF_GLOBAL_CTRL:
	case MSR_IA32_PEBS_ENABLE:
	case MSR_IA32_STAR ... MSR_IA32_FMASK:
	case MSR_IA32_KERNEL_GS_BASE:
	case MSR_IA32_TSC_AUX:
		return true;
	default:
		return false;
	}
}

u32 nested_load_msrs(u64 gpa, u64 count)
{
	struct msr_entry entry;

	for (u32 i = 1; i <= count; i++, gpa += sizeof(entry))
		if (!read_entry(gpa, &entry) ||
		    (entry.msr == MSR_IA32_PEBS_ENABLE ? entry.value != 0 : !wrmsr_checked(entry.msr, entry.value)))
			return i;
	return 0;
}

u32 nested_store_msrs(u64 gpa, u64 count)
{
	struct msr_entry entry;

	for (u32 i = 1; i <= count; i++, gpa += sizeof(entry)) {
		if (!read_entry(gpa, &entry) || !rdmsr_checked(entry.msr, &entry.value))
			return i;
		/* Where the frame has left the host meanwhile, the value is lost. */
		(void)memory_write_host(gpa + offsetof(struct msr_entry, value), &entry.value, sizeof(entry.value));
	}
	return 0;
}
