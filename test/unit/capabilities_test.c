// SPDX-License-Identifier: MIT
/*
 * vmx/capabilities.c and boot/choose_capabilities.c, on a CPU whose registers are the test's: what the loader chooses can
 * be used where it was chosen, and which differences between CPUs are refused. unfit.py has unfit CPUs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "capabilities.h"
#include "../../boot/choose_capabilities.c"

static u64 msrs[0x800];
static struct cpuid_result leaf1, leaf7, leaf_d;
static unsigned address_bits;

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	switch (leaf) {
	case 0:
		return (struct cpuid_result){ .eax = 0xd };
	case 1:
		return leaf1;
	case 7:
		return leaf7;
	case 0x80000000:
		return (struct cpuid_result){ .eax = 0x80000008 };
	case 0x80000008:
		return (struct cpuid_result){ .eax = address_bits };
	default:
		return leaf_d;
	}
}

u64 rdmsr(u32 msr)
{
	return msrs[msr];
}

#define ANY_CONTROL 0xffffffff00000000

/* A CPU that allows each control and needs none. */
static int setup(void **state)
{
	(void)state;
	memset(msrs, 0, sizeof(msrs));
	leaf1 = (struct cpuid_result){ .ecx = BIT(5) };
	leaf7 = (struct cpuid_result){ .ebx = BIT(7) | BIT(20), .edx = BIT(29) };
	leaf_d = (struct cpuid_result){ .eax = 0xe7 };
	address_bits = 46;
	msrs[MSR_IA32_FEATURE_CONTROL] = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	msrs[MSR_IA32_ARCH_CAPABILITIES] = 1;
	msrs[MSR_IA32_VMX_BASIC] = 0x00da040000000012;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		msrs[words[i].msr] = ANY_CONTROL;
	msrs[MSR_IA32_VMX_VMFUNC] = 1;
	msrs[MSR_IA32_VMX_MISC] = 5 | VMX_MISC_WAIT_FOR_SIPI;
	msrs[MSR_IA32_VMX_EPT_VPID_CAP] = (EPT_CAP_USED & ~EPT_CAP_WALK_5) | EPT_CAP_EXECUTE_ONLY;
	msrs[MSR_IA32_VMX_CR0_FIXED0] = 0x80000021;
	msrs[MSR_IA32_VMX_CR0_FIXED1] = 0xffffffff;
	msrs[MSR_IA32_VMX_CR4_FIXED0] = 0x2000;
	msrs[MSR_IA32_VMX_CR4_FIXED1] = 0x3767ff;
	return 0;
}

static void chosen_is_accepted(void **state)
{
	struct vmx_capabilities chosen, other;

	(void)state;
	assert_null(choose_capabilities(&chosen));
	assert_null(vmx_compare_this_cpu(&chosen));
	assert_true(chosen.gate && chosen.feature[HYPERPS_FEATURE_EPT_1G] && chosen.feature[HYPERPS_FEATURE_VPID]);
	assert_int_equal(chosen.timer_rate, 5);
	assert_int_equal(chosen.xcr0, 0xe7);
	assert_int_equal(chosen.ept_levels, 4);
	/* Wider addresses need five levels; without them what is above is left out, on all CPUs. */
	address_bits = 52;
	assert_null(choose_capabilities(&chosen));
	assert_int_equal(chosen.physical_address_bits, 48);
	assert_null(vmx_compare_this_cpu(&chosen));
	msrs[MSR_IA32_VMX_EPT_VPID_CAP] |= EPT_CAP_WALK_5;
	assert_null(choose_capabilities(&other));
	assert_int_equal(other.ept_levels, 5);
	assert_null(vmx_compare_this_cpu(&other));
	msrs[MSR_IA32_VMX_EPT_VPID_CAP] &= ~EPT_CAP_WALK_5;
	assert_non_null(vmx_compare_this_cpu(&other));
}

/* On a CPU that offers nothing optional, or insists on controls, the loader's choice still is valid. */
static void least(void **state)
{
	struct vmx_capabilities chosen;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		msrs[words[i].msr] = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		msrs[words[i].msr] |= (u64)words[i].required << 32;
	msrs[MSR_IA32_VMX_TRUE_EXIT_CTLS] |= BIT(0) | BIT(32);
	assert_null(choose_capabilities(&chosen));
	assert_null(vmx_compare_this_cpu(&chosen));
	assert_true(chosen.exit & 1);
	assert_false(chosen.gate || chosen.feature[HYPERPS_FEATURE_VPID]);
	/* Each required control is missed. */
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		u64 all = msrs[words[i].msr];

		msrs[words[i].msr] &= ~((u64)(words[i].required & -words[i].required) << 32);
		assert_non_null(choose_capabilities(&chosen));
		msrs[words[i].msr] = all;
	}
}

/* The first one's five levels are not used with narrow addresses. More than the first one has is no harm: it is not used. What a CPU lacks of the gate is its own. */
static void harmless_differences(void **state)
{
	struct vmx_capabilities first, other;

	(void)state;
	msrs[MSR_IA32_VMX_PROCBASED_CTLS2] &= ~(SECONDARY_RDTSCP << 32);
	msrs[MSR_IA32_VMX_EPT_VPID_CAP] |= EPT_CAP_WALK_5;
	assert_null(choose_capabilities(&first));
	msrs[MSR_IA32_VMX_PROCBASED_CTLS2] |= SECONDARY_RDTSCP << 32;
	msrs[MSR_IA32_VMX_EPT_VPID_CAP] &= ~(EPT_CAP_EXECUTE_ONLY | EPT_CAP_WALK_5);
	msrs[MSR_IA32_VMX_CR4_FIXED1] |= BIT(31);
	assert_null(vmx_compare_this_cpu(&first));
	other = first;
	vmx_read_features(&other);
	assert_true(first.gate && !other.gate && !other.feature[HYPERPS_FEATURE_EPT_EXECUTE_ONLY]);
	assert_int_equal(other.cr4_fixed1, msrs[MSR_IA32_VMX_CR4_FIXED1]);
}

static void any_difference_that_matters_is_refused(void **state)
{
	const struct {
		u32 msr;
		u64 flip;
	} differences[] = {
		{ MSR_IA32_VMX_BASIC, 1 }, /* revision */
		{ MSR_IA32_VMX_BASIC, BIT(50) }, /* memory type */
		{ MSR_IA32_VMX_TRUE_PINBASED_CTLS, PIN_NMI_EXITING << 32 },
		{ MSR_IA32_VMX_TRUE_PINBASED_CTLS, PIN_EXTERNAL_INTERRUPT_EXITING << 32 },
		{ MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_USE_IO_BITMAPS << 32 },
		{ MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_HLT_EXITING << 32 },
		{ MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_CR3_LOAD_EXITING }, /* must be on */
		{ MSR_IA32_VMX_PROCBASED_CTLS2, SECONDARY_XSAVES << 32 },
		{ MSR_IA32_VMX_PROCBASED_CTLS2, SECONDARY_WBINVD_EXITING << 32 },
		{ MSR_IA32_VMX_TRUE_EXIT_CTLS, EXIT_SAVE_EFER << 32 },
		{ MSR_IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_LOAD_EFER << 32 },
		{ MSR_IA32_VMX_MISC, 1 },
		{ MSR_IA32_VMX_MISC, VMX_MISC_WAIT_FOR_SIPI },
		{ MSR_IA32_VMX_EPT_VPID_CAP, EPT_CAP_1G },
		{ MSR_IA32_VMX_EPT_VPID_CAP, EPT_CAP_INVEPT_ALL },
		{ MSR_IA32_VMX_EPT_VPID_CAP, EPT_CAP_INVVPID_ALL },
		{ MSR_IA32_VMX_CR0_FIXED0, BIT(5) },
		{ MSR_IA32_VMX_CR4_FIXED0, BIT(13) },
	};
	struct vmx_capabilities first;

	(void)state;
	assert_null(choose_capabilities(&first));
	for (size_t i = 0; i < ARRAY_SIZE(differences); i++) {
		msrs[differences[i].msr] ^= differences[i].flip;
		assert_non_null(vmx_compare_this_cpu(&first));
		msrs[differences[i].msr] ^= differences[i].flip;
	}
	assert_null(vmx_compare_this_cpu(&first));
	address_bits = 39;
	assert_non_null(vmx_compare_this_cpu(&first));
	address_bits = 46;
	leaf_d.eax ^= BIT(9);
	assert_non_null(vmx_compare_this_cpu(&first));
	leaf_d.eax ^= BIT(9);
	/* XSAVE on one of them. */
	msrs[MSR_IA32_VMX_CR4_FIXED1] &= ~CR4_OSXSAVE;
	assert_non_null(vmx_compare_this_cpu(&first));
	assert_null(choose_capabilities(&first));
	assert_null(vmx_compare_this_cpu(&first));
	msrs[MSR_IA32_VMX_CR4_FIXED1] |= CR4_OSXSAVE;
	assert_non_null(vmx_compare_this_cpu(&first));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(chosen_is_accepted, setup),
		cmocka_unit_test_setup(least, setup),
		cmocka_unit_test_setup(harmless_differences, setup),
		cmocka_unit_test_setup(any_difference_that_matters_is_refused, setup),
	};

	return cmocka_run_group_tests_name("capabilities", tests, NULL, NULL);
}
