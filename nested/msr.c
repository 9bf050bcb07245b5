// SPDX-License-Identifier: MIT
/* MSRs of L2: which it reaches without an exit, and the lists of VMCS12. docs/nested.md, "MSRs of L2". */
#include "memory_service.h"
#include "nested.h"

/* Words of an MSR bitmap: reads of low MSRs, of high ones, writes of either. */
#define READ_LOW(msr) ((msr) / 64)
#define READ_HIGH(msr) (128 + (msr) % 0x2000 / 64)
#define WRITE_LOW(msr) (256 + READ_LOW(msr))
#define WRITE_HIGH(msr) (256 + READ_HIGH(msr))
#define MSR_BIT(msr) BIT((msr) % 64)

/*
 * What passes if L1's bitmap lets it, too: nothing that the host itself does not have without an exit. TSC: with L1's offset.
 * SYSENTER, FS and GS base are in the VMCS.
 */
#define PASSING_WORDS 13
static const u16 words[PASSING_WORDS] = {
	READ_LOW(MSR_IA32_TSC),          READ_LOW(MSR_IA32_SPEC_CTRL),    READ_LOW(MSR_IA32_MPERF),
	READ_LOW(MSR_IA32_SYSENTER_CS),  READ_LOW(MSR_IA32_XFD),          READ_LOW(MSR_CORE_C3_RESIDENCY),
	READ_LOW(MSR_CORE_C1_RESIDENCY), READ_HIGH(MSR_IA32_FS_BASE),     WRITE_LOW(MSR_IA32_SPEC_CTRL),
	WRITE_LOW(MSR_IA32_FLUSH_CMD),   WRITE_LOW(MSR_IA32_SYSENTER_CS), WRITE_LOW(MSR_IA32_XFD),
	WRITE_HIGH(MSR_IA32_FS_BASE),
};
#define SYSENTER (7 * MSR_BIT(MSR_IA32_SYSENTER_CS))
#define XFD (MSR_BIT(MSR_IA32_XFD) | MSR_BIT(MSR_IA32_XFD_ERR))
#define BASES (7 * MSR_BIT(MSR_IA32_FS_BASE))
static const u64 passing[PASSING_WORDS] = {
	MSR_BIT(MSR_IA32_TSC),
	MSR_BIT(MSR_IA32_SPEC_CTRL),
	MSR_BIT(MSR_IA32_MPERF) | MSR_BIT(MSR_IA32_APERF),
	SYSENTER,
	XFD,
	7 * MSR_BIT(MSR_CORE_C3_RESIDENCY),
	MSR_BIT(MSR_CORE_C1_RESIDENCY),
	BASES,
	MSR_BIT(MSR_IA32_SPEC_CTRL) | MSR_BIT(MSR_IA32_PRED_CMD),
	MSR_BIT(MSR_IA32_FLUSH_CMD),
	SYSENTER,
	XFD,
	BASES,
};

void nested_merge_msrs(struct nested *n)
{
	u64 theirs[PASSING_WORDS], *bitmap = n->msr_bitmap;

	if (!(nested_get(n, VMCS_PRIMARY_CONTROLS) & PRIMARY_USE_MSR_BITMAPS) ||
	    !memory_read_host_words(nested_get(n, VMCS_MSR_BITMAP), theirs, words, PASSING_WORDS))
		__builtin_memset(theirs, 0xff, sizeof(theirs));
	UNROLL
	for (unsigned i = 0; i < PASSING_WORDS; i++)
		bitmap[words[i]] = theirs[i] | ~passing[i];
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
