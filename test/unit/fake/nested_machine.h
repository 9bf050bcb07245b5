/* SPDX-License-Identifier: MIT */
/*
 * A machine of one CPU on which the host is L1: for unit tests of nested/, which include it once. Capabilities, VMCS01 as the
 * monitor makes it, a VMCS12 that passes every check, and what nested/ calls of the other parts.
 */
#ifndef NESTED_MACHINE_H
#define NESTED_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cpu_features.h"
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "memory_service.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"
#include "vmcs.h"
#include "vmcs_model.h"

#define PHYSICAL_BITS 46
#define L1_RIP 0xffffffff81000000ULL /* of its VMLAUNCH or VMRESUME */
#define L1_EXIT_RIP 0xffffffff81000100ULL /* host RIP of VMCS12 */
#define PRIMARY_MUST 0x04006172U
#define EXIT_MUST 0x00036dfbU
#define ENTRY_MUST 0x000011fbU

struct monitor monitor;
static struct boot_info boot;
static struct cpu_area area;
static struct nested nested;
static u64 vmcs12[2][VMCS12_WORDS];
static u64 roots[SHADOW_ROOTS][512] __attribute__((aligned(4096)));
static u8 shadow_page[PAGE_SIZE] __attribute__((aligned(4096)));
static u8 vmcs02[PAGE_SIZE] __attribute__((aligned(4096))), bitmap[PAGE_SIZE] __attribute__((aligned(4096)));
static u32 secondary_may = SECONDARY_EPT | SECONDARY_RDTSCP | SECONDARY_VPID | SECONDARY_WBINVD_EXITING |
			   SECONDARY_UNRESTRICTED_GUEST | SECONDARY_PAUSE_LOOP_EXITING | SECONDARY_INVPCID |
			   SECONDARY_ENCLS_EXITING | SECONDARY_XSAVES | SECONDARY_USER_WAIT_PAUSE;
static bool misc_without_29;
static u64 seed = 88172645463325252ULL;
static unsigned locks; /* mm_lock is taken so many times */

static const u64 cr0_fixed[2] = { CR0_PE | CR0_NE | CR0_PG, 0xffffffff };
static const u64 cr4_fixed[2] = { CR4_VMXE, 0x03ffffff };

static u64 random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dULL;
}

static u64 chance(u64 n)
{
	return (random64() >> 16) % n;
}

void *read_gs_0(void)
{
	return &area.cpu;
}

hpa_t hpa_of(const void *object)
{
	return HPA((u64)object);
}

void vmx_exit(void);
void vmx_exit(void)
{
}

void nested_exit_entry(void);
void nested_exit_entry(void)
{
}

void port_write_bitmaps(void)
{
}

struct mm *memory_lock(void)
{
	assert_int_equal(locks, 0);
	locks++;
	return NULL;
}

void memory_unlock(void)
{
	assert_int_equal(locks, 1);
	locks--;
}

u64 rdmsr(u32 msr)
{
	switch (msr) {
	case MSR_IA32_VMX_BASIC:
		return MODEL_REVISION | BIT(54) | BIT(55) | 6ULL << 50;
	case MSR_IA32_VMX_TRUE_PINBASED_CTLS:
		return 0xff00000016;
	case MSR_IA32_VMX_TRUE_PROCBASED_CTLS:
		return 0xfff9fffe00000000 | PRIMARY_MUST;
	case MSR_IA32_VMX_PROCBASED_CTLS2:
		return (u64)(secondary_may | (model_shadowing ? SECONDARY_VMCS_SHADOWING : 0)) << 32;
	case MSR_IA32_VMX_TRUE_EXIT_CTLS:
		return 0x01ffffff00000000 | EXIT_MUST;
	case MSR_IA32_VMX_TRUE_ENTRY_CTLS:
		return 0x0003ffff00000000 | ENTRY_MUST;
	case MSR_IA32_VMX_MISC:
		return BIT(5) | BIT(6) | BIT(8) | (misc_without_29 ? 0 : BIT(29)) | BIT(30);
	case MSR_IA32_VMX_CR0_FIXED0:
	case MSR_IA32_VMX_CR0_FIXED1:
		return cr0_fixed[msr - MSR_IA32_VMX_CR0_FIXED0];
	case MSR_IA32_VMX_CR4_FIXED0:
	case MSR_IA32_VMX_CR4_FIXED1:
		return cr4_fixed[msr - MSR_IA32_VMX_CR4_FIXED0];
	case MSR_IA32_VMX_EPT_VPID_CAP:
		return 0x00000f0106f34141;
	case MSR_IA32_PAT:
		return PAT_RESET;
	default:
		return 0;
	}
}

u64 read_register(const char *name)
{
	if (!strcmp(name, "cr0"))
		return CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
	if (!strcmp(name, "cr4"))
		return CR4_PAE | CR4_MCE | CR4_VMXE | CR4_OSFXSR | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP;
	return 0;
}

/* Each test on a CPU without VMCS shadowing, and with it. */
static int without_shadowing(void **state)
{
	(void)state;
	model_shadowing = false;
	return 0;
}

static int with_shadowing(void **state)
{
	(void)state;
	model_shadowing = true;
	return 0;
}

#define BOTH_WAYS(test) cmocka_unit_test_setup(test, without_shadowing), cmocka_unit_test_setup(test, with_shadowing)

/* As L1's VMWRITE and VMREAD: without an exit where the CPU does it, else as nested/instruction.c. */
static void set12(vmcs_field_t field, u64 value)
{
	const struct nested_field *found = nested_field(field.encoding);

	assert_non_null(found);
	if (nested.state == NESTED_ROOT && model_access(model_vmcs(area.vmcs), field, &value, true))
		return;
	if (!(found->flags & NESTED_SHADOW_WRITE)) {
		nested_fetch(&nested);
		nested.dirty = true;
	}
	if (nested.state == NESTED_ROOT)
		nested_shadow_off(&area.cpu, &nested);
	nested_set(&nested, field, value);
	if (nested.state == NESTED_ROOT)
		nested_shadow_on(&area.cpu, &nested);
}

static u64 get12(vmcs_field_t field)
{
	const struct nested_field *found = nested_field(field.encoding);
	u64 value;

	assert_non_null(found);
	if (nested.state == NESTED_ROOT && model_access(model_vmcs(area.vmcs), field, &value, false))
		return value;
	if (nested.state == NESTED_ROOT && !(found->flags & NESTED_SHADOW_WRITE) && (found->flags & NESTED_SAVED))
		nested_fetch(&nested);
	return nested_get(&nested, field);
}

static u64 get01(vmcs_field_t field)
{
	return *model_field(model_vmcs(area.vmcs), field);
}

static u64 get02(vmcs_field_t field)
{
	return *model_field(model_vmcs(vmcs02), field);
}

static void set02(vmcs_field_t field, u64 value)
{
	model_write(model_vmcs(vmcs02), field, value);
}

/* The CPU's capabilities as the loader would choose them. */
static void choose(struct vmx_capabilities *c)
{
	*c = (struct vmx_capabilities){
		.basic = rdmsr(MSR_IA32_VMX_BASIC),
		.cr0_fixed0 = cr0_fixed[0],
		.cr0_fixed1 = cr0_fixed[1],
		.cr4_fixed0 = cr4_fixed[0],
		.cr4_fixed1 = cr4_fixed[1],
		.pin = 0x16 | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS,
		.primary = PRIMARY_MUST | PRIMARY_USE_IO_BITMAPS | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS,
		.secondary = secondary_may & ~(SECONDARY_WBINVD_EXITING | SECONDARY_PAUSE_LOOP_EXITING),
		.exit = EXIT_MUST | EXIT_HOST_64 | EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER |
			EXIT_LOAD_EFER,
		.entry = ENTRY_MUST | ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | ENTRY_IA32E_GUEST,
		.guest_pin = 0x16 | PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS |
			     PIN_PREEMPTION_TIMER,
		.physical_address_bits = PHYSICAL_BITS,
		.ept_levels = 4,
	};
}

/* L1 in 64-bit mode, at its VMLAUNCH. */
static const struct boot_cpu_state l1 = {
	.rip = L1_RIP,
	.rsp = 0xffffc90000010000,
	.rflags = 2,
	.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
	.cr3 = 0x5000,
	.cr4 = CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_SMEP | CR4_SMAP,
	.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
	.gdt_limit = 0x7f,
	.idt_limit = 0xfff,
	.segment = { [SEGMENT_ES] = { .access_rights = 0x10000 },
		     [SEGMENT_CS] = { .selector = 0x10, .limit = ~0U, .access_rights = 0xa09b },
		     [SEGMENT_SS] = { .selector = 0x18, .limit = ~0U, .access_rights = 0xc093 },
		     [SEGMENT_DS... SEGMENT_LDTR] = { .access_rights = 0x10000 },
		     [SEGMENT_TR] = { .selector = 0x40, .limit = 0x206f, .access_rights = 0x8b } },
};

/* VMCS01 is current, L1 in VMX operation with a VMCS12 of zeros. */
static void start_machine(void)
{
	void (*hook)(void) = model_hook;

	model_hook = NULL;
	model_reset();
	choose(&boot.capabilities);
	boot.final_cr3 = 0x7000;
	monitor = (struct monitor){ .boot = &boot, .host_eptp = 0x1000 | 0x1e, .kvm = true, .other_cpus_taken = true };
	monitor.msr_bitmap = bitmap;
	area.cpu = (struct cpu){ .self = &area.cpu, .capabilities = boot.capabilities, .nested = &nested };
	memset(vmcs12, 0, sizeof(vmcs12));
	nested = (struct nested){ .page = vmcs12[0],
				  .second = vmcs12[1],
				  .vmxon_region = 0x1000,
				  .msr_bitmap = (u64 *)bitmap,
				  .vmcs02 = vmcs02,
				  .shadow_vmcs = (u32 *)shadow_page,
				  .shadow_vmcs_hpa = HPA((u64)shadow_page),
				  .current = 0x2000,
				  .last_violation = NO_ADDRESS };
	for (unsigned i = 0; i < SHADOW_ROOTS; i++)
		nested.shadow.root[i] = roots[i];
	*(u32 *)area.vmcs = MODEL_REVISION;
	vmclear(hpa_of(area.vmcs));
	vmptrld(hpa_of(area.vmcs));
	host_vmcs_init(&area.cpu, &l1);
	vmwrite(VMCS_CR4_READ_SHADOW, vmread(VMCS_CR4_READ_SHADOW) | CR4_VMXE);
	model_enter(true, false);
	*model_field(model_current, VMCS_EXIT_INSTRUCTION_LENGTH) = 3;
	assert_null(nested_capability_init());
	nested_begin(&area.cpu);
	nested.state = NESTED_ROOT;
	nested_shadow_init();
	nested_shadow_on(&area.cpu, &nested);
	model_hook = hook;
}

/* Guest in 64-bit mode, as KVM starts it; each field that takes any value has a value of its own. */
static void valid_vmcs12(void)
{
	static const struct {
		vmcs_field_t field;
		u64 value;
	} values[] = {
		{ VMCS_VPID, 7 },
		{ VMCS_PIN_CONTROLS, 0x3f },
		{ VMCS_PRIMARY_CONTROLS, PRIMARY_MUST | PRIMARY_IO_EXITING | PRIMARY_SECONDARY_CONTROLS |
						 PRIMARY_HLT_EXITING | PRIMARY_TSC_OFFSETTING },
		{ VMCS_SECONDARY_CONTROLS, SECONDARY_EPT | SECONDARY_VPID | SECONDARY_UNRESTRICTED_GUEST },
		{ VMCS_EXIT_CONTROLS, EXIT_MUST | EXIT_HOST_64 | EXIT_SAVE_DEBUG | EXIT_ACKNOWLEDGE_INTERRUPT |
					      EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER },
		{ VMCS_ENTRY_CONTROLS,
		  ENTRY_MUST | ENTRY_LOAD_DEBUG | ENTRY_IA32E_GUEST | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER },
		{ VMCS_EPTP, 0x10000 | 0x1e },
		{ VMCS_LINK_POINTER, NO_ADDRESS },
		{ VMCS_EXCEPTION_BITMAP, BIT(VECTOR_PF) },
		{ VMCS_GUEST_CR0, CR0_PE | CR0_NE | CR0_PG | CR0_ET },
		{ VMCS_GUEST_CR3, 0x6000 },
		{ VMCS_GUEST_CR4, CR4_PAE | CR4_VMXE },
		{ VMCS_GUEST_IA32_EFER, EFER_LMA | EFER_LME },
		{ VMCS_GUEST_IA32_PAT, 0x0606060606060606 },
		{ VMCS_GUEST_RFLAGS, 2 },
		{ VMCS_GUEST_RIP, 0x100000 },
		{ VMCS_GUEST_DR7, 0x400 },
		{ VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS), 0xa09b },
		{ VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_SS), 0xc093 },
		{ VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_TR), 0x8b },
		{ VMCS_HOST_SELECTOR(SEGMENT_CS), 0x10 },
		{ VMCS_HOST_SELECTOR(SEGMENT_SS), 0x18 },
		{ VMCS_HOST_TR_SELECTOR, 0x40 },
		{ VMCS_HOST_CR0, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG },
		{ VMCS_HOST_CR3, 0x5000 },
		{ VMCS_HOST_CR4, CR4_VMXE | CR4_PAE | CR4_MCE | CR4_SMEP | CR4_SMAP },
		{ VMCS_HOST_IA32_PAT, PAT_RESET },
		{ VMCS_HOST_IA32_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE },
		{ VMCS_HOST_FS_BASE, 0x7f0000001000 },
		{ VMCS_HOST_GS_BASE, 0xffff888000001000 },
		{ VMCS_HOST_TR_BASE, 0xfffffe0000001000 },
		{ VMCS_HOST_GDTR_BASE, 0xfffffe0000002000 },
		{ VMCS_HOST_IDTR_BASE, 0xfffffe0000003000 },
		{ VMCS_HOST_SYSENTER_CS, 0x20 },
		{ VMCS_HOST_SYSENTER_ESP, 0xfffffe0000004000 },
		{ VMCS_HOST_SYSENTER_EIP, 0xffffffff81000200 },
		{ VMCS_HOST_RSP, 0xffffc90000020000 },
		{ VMCS_HOST_RIP, L1_EXIT_RIP },
	};

	nested_shadow_off(&area.cpu, &nested);
	nested_fetch(&nested);
	nested.dirty = true;
	memset(nested.page, 0, sizeof(vmcs12[0]));
	nested.page[0] = VMCS12_REVISION;
	nested_shadow_on(&area.cpu, &nested);
	for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
		set12(values[i].field, values[i].value);
}

#endif
