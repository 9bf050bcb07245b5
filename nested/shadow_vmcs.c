// SPDX-License-Identifier: MIT
/* VMCS shadowing (SDM): L1 reads and writes hot fields of the current VMCS12 without an exit. docs/nested.md, "Shadow". */
#include "monitor.h"
#include "nested.h"
#include "vmcs.h"

/* What an exit of L2 changes, that which L1 only reads in front; then what L1 alone changes. */
#define BY_EXITS                                                                                                       \
	NESTED_INFORMATION, VMCS_EXIT_REASON, VMCS_EXIT_INTERRUPTION_INFO, VMCS_EXIT_QUALIFICATION, NESTED_HOT_READ,   \
		NESTED_HOT, VMCS_ENTRY_INTERRUPTION_INFO
#define BY_L1                                                                                                          \
	VMCS_ENTRY_EXCEPTION_ERROR_CODE, VMCS_ENTRY_INSTRUCTION_LENGTH, VMCS_PRIMARY_CONTROLS,                         \
		VMCS_HOST_SELECTOR(SEGMENT_FS), VMCS_HOST_SELECTOR(SEGMENT_GS), VMCS_HOST_FS_BASE, VMCS_HOST_GS_BASE,  \
		VMCS_HOST_RSP
static const vmcs_field_t shadowed[] = { BY_EXITS, BY_L1 };
#define READ_ONLY 13
#define CHANGED_BY_EXITS 18

/* "VMREAD and VMWRITE Bitmaps": a bit for each encoding that exits. */
static u8 bitmaps[2][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

void nested_shadow_init(void)
{
	__builtin_memset(bitmaps, 0xff, sizeof(bitmaps));
	for (unsigned i = 0; i < ARRAY_SIZE(shadowed); i++)
		for (unsigned write = 0; write <= (i >= READ_ONLY); write++)
			bitmaps[write][shadowed[i].encoding / 8] &= ~(1 << shadowed[i].encoding % 8);
}

/* An NMI in between only latches what it brings: it must not write into what L1 reads. */
static void load_shadow(struct cpu *cpu, const struct nested *n)
{
	cpu->vmcs_current = false;
	vmptrld(n->shadow_vmcs_hpa);
}

static inline void write_fields(const struct nested *n, unsigned count)
{
	const u64 *page = n->page;

	UNROLL
	for (unsigned i = 0; i < count; i++)
		vmwrite(shadowed[i], vmcs12_get(page, shadowed[i]));
	/* What the CPU keeps of it goes to memory, where VMREAD and VMWRITE of L1's look. */
	vmclear(n->shadow_vmcs_hpa);
}

void nested_shadow_on(struct cpu *cpu, struct nested *n)
{
	if (!n->has_shadowing)
		return;
	load_shadow(cpu, n);
	write_fields(n, ARRAY_SIZE(shadowed));
	vmcs_load_host(cpu);
	vmwrite(VMCS_VMREAD_BITMAP, hpa_of(bitmaps[0]).value);
	vmwrite(VMCS_VMWRITE_BITMAP, hpa_of(bitmaps[1]).value);
	vmwrite(VMCS_LINK_POINTER, n->shadow_vmcs_hpa.value);
	cpu->shadowing = true;
	vmcs_write_secondary(cpu);
}

void nested_shadow_off(struct cpu *cpu, struct nested *n)
{
	nested_shadow_read(cpu, n);
	if (!cpu->shadowing)
		return;
	cpu->shadowing = false;
	vmwrite(VMCS_LINK_POINTER, NO_ADDRESS);
	vmcs_write_secondary(cpu);
}

void nested_shadow_read(struct cpu *cpu, struct nested *n)
{
	u64 *page = n->page;

	if (!cpu->shadowing)
		return;
	load_shadow(cpu, n);
	UNROLL
	for (unsigned i = READ_ONLY; i < ARRAY_SIZE(shadowed); i++)
		page[nested_word(shadowed[i].encoding)] = vmread(shadowed[i]);
	vmclear(n->shadow_vmcs_hpa);
	vmcs_load_host(cpu);
}

void nested_shadow_write(struct cpu *cpu, const struct nested *n)
{
	if (!cpu->shadowing)
		return;
	load_shadow(cpu, n);
	write_fields(n, CHANGED_BY_EXITS);
}
