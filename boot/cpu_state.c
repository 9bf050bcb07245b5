// SPDX-License-Identifier: MIT
#include "loader.h"
#include "memory_type.h"
#include "msr_policy.h"
#include "cpu_features.h"

/* Access rights as in "Guest Register State": LAR's byte 1 and bits 15:12 of its word 1, then bit 16 for unusable. */
#define ACCESS_RIGHTS 0xf0ff
#define UNUSABLE BIT(16)
#define TYPE_ACCESSED BIT(0)
#define TYPE_BUSY_TSS 0xb
#define BUSY_TSS_PRESENT 0x8b
#define TSS_LIMIT 0x67

struct table_register {
	u16 limit;
	u64 base;
} __attribute__((packed));

#define READ_SELECTOR(instruction)                                                                                     \
	({                                                                                                             \
		u64 selector;                                                                                          \
		asm volatile(instruction : "=r"(selector));                                                            \
		(u16) selector;                                                                                        \
	})

/* LAR; 0 if the selector is null or names nothing. */
static u32 load_access_rights(u16 selector)
{
	u32 rights = 0;

	asm volatile("lar %1, %0" : "+r"(rights) : "r"((u32)selector) : "cc");
	return rights >> 8 & ACCESS_RIGHTS;
}

static u32 load_limit(u16 selector)
{
	u32 limit = 0;

	asm volatile("lsl %1, %0" : "+r"(limit) : "r"((u32)selector) : "cc");
	return limit;
}

/* Base address in a descriptor of the GDT; system segments have 16 bytes. */
static u64 descriptor_base(const struct boot_cpu_state *state, u16 selector, bool system)
{
	const u64 *descriptor = (const u64 *)(state->gdt_base + (selector & ~7));
	u64 base = (descriptor[0] >> 16 & 0xffffff) | (descriptor[0] >> 56) << 24;

	return system ? base | descriptor[1] << 32 : base;
}

static struct boot_segment capture(const struct boot_cpu_state *state, u16 selector, bool system)
{
	struct boot_segment segment = { .selector = selector, .access_rights = UNUSABLE };

	if ((selector & ~3) == 0)
		return segment;
	segment.access_rights = load_access_rights(selector);
	segment.limit = load_limit(selector);
	segment.base = descriptor_base(state, selector, system);
	if (!segment.access_rights)
		segment.access_rights = UNUSABLE;
	else if (!system)
		segment.access_rights |= TYPE_ACCESSED; /* it was, when the register was loaded */
	return segment;
}

void cpu_state_capture(struct boot_cpu_state *state)
{
	struct table_register table;

	state->cr0 = READ_REGISTER(cr0);
	state->cr3 = READ_REGISTER(cr3);
	state->cr4 = READ_REGISTER(cr4);
	state->efer = rdmsr(MSR_IA32_EFER);
	asm volatile("sgdt %0" : "=m"(table));
	state->gdt_base = table.base;
	state->gdt_limit = table.limit;
	asm volatile("sidt %0" : "=m"(table));
	state->idt_base = table.base;
	state->idt_limit = table.limit;

	state->segment[SEGMENT_ES] = capture(state, READ_SELECTOR("mov %%es, %0"), false);
	state->segment[SEGMENT_CS] = capture(state, READ_SELECTOR("mov %%cs, %0"), false);
	state->segment[SEGMENT_SS] = capture(state, READ_SELECTOR("mov %%ss, %0"), false);
	state->segment[SEGMENT_DS] = capture(state, READ_SELECTOR("mov %%ds, %0"), false);
	state->segment[SEGMENT_FS] = capture(state, READ_SELECTOR("mov %%fs, %0"), false);
	state->segment[SEGMENT_GS] = capture(state, READ_SELECTOR("mov %%gs, %0"), false);
	state->segment[SEGMENT_FS].base = rdmsr(MSR_IA32_FS_BASE);
	state->segment[SEGMENT_GS].base = rdmsr(MSR_IA32_GS_BASE);
	state->segment[SEGMENT_LDTR] = capture(state, READ_SELECTOR("sldt %0"), true);
	state->segment[SEGMENT_TR] = capture(state, READ_SELECTOR("str %0"), true);
	/* Firmware often runs without a task register, but VM entry refuses an unusable one. */
	if (state->segment[SEGMENT_TR].access_rights & UNUSABLE)
		state->segment[SEGMENT_TR] =
			(struct boot_segment){ .limit = TSS_LIMIT, .access_rights = BUSY_TSS_PRESENT };
	else
		state->segment[SEGMENT_TR].access_rights |= TYPE_BUSY_TSS;
}

void mtrr_capture(struct mtrr_state *mtrr)
{
	*mtrr = (struct mtrr_state){ 0 };
	if (!(cpuid(1, 0).edx & BIT(12)))
		return;
	mtrr->capability = rdmsr(MSR_IA32_MTRRCAP);
	for (u32 msr = MSR_IA32_MTRR_PHYSBASE0; msr <= MSR_IA32_MTRR_DEF_TYPE; msr++) {
		bool is_variable = msr < MSR_IA32_MTRR_FIX64K_00000;
		bool is_there = is_variable ? (msr - MSR_IA32_MTRR_PHYSBASE0) / 2 < (mtrr->capability & MTRRCAP_COUNT)
					    : msr == MSR_IA32_MTRR_DEF_TYPE || (mtrr->capability & MTRRCAP_FIXED);

		if (msr_is_mtrr(msr) && is_there)
			mtrr->msr[msr - MSR_IA32_MTRR_PHYSBASE0] = rdmsr(msr);
	}
}
