// SPDX-License-Identifier: MIT
/*
 * nested/capability.c, on CPUs whose registers are the test's, with what the loader chooses there: each bit of each MSR is
 * what docs/nested.md, "MSRs", says; stock kvm_intel takes it; what a CPU may lack, and how CPUs may differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "capabilities.h"
#include "nested.h"
#include "vmcs.h"
#include "../../boot/choose_capabilities.c"

#define FIRST 0x480
#define LAST 0x493
#define MSR(name) msrs[MSR_IA32_VMX_##name]

struct monitor monitor;
static struct boot_info boot;
static u64 msrs[0x800];

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	switch (leaf) {
	case 1:
		return (struct cpuid_result){ .ecx = BIT(CPUID_VMX) };
	case 0x80000000:
		return (struct cpuid_result){ .eax = 0x80000008 };
	case 0x80000008:
		return (struct cpuid_result){ .eax = 46 };
	default:
		return (struct cpuid_result){ .eax = leaf ? 7 : 0xd };
	}
}

u64 rdmsr(u32 msr)
{
	return msrs[msr];
}

/* A server of 2017 or later. */
static void recent_cpu(void)
{
	memset(msrs, 0, sizeof(msrs));
	msrs[MSR_IA32_FEATURE_CONTROL] = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	MSR(BASIC) = 0x00da040000000004;
	MSR(PINBASED_CTLS) = MSR(TRUE_PINBASED_CTLS) = 0x000000ff00000016;
	MSR(PROCBASED_CTLS) = 0xfff9fffe0401e172;
	MSR(TRUE_PROCBASED_CTLS) = 0xfff9fffe04006172;
	MSR(PROCBASED_CTLS2) = 0x02ffffff00000000 | SECONDARY_USER_WAIT_PAUSE << 32;
	MSR(EXIT_CTLS) = 0x01ffffff00036dff;
	MSR(TRUE_EXIT_CTLS) = 0x01ffffff00036dfb;
	MSR(ENTRY_CTLS) = 0x0003ffff000011ff;
	MSR(TRUE_ENTRY_CTLS) = 0x0003ffff000011fb;
	MSR(MISC) = 0x7004c1e7;
	MSR(CR0_FIXED0) = 0x80000021;
	MSR(CR0_FIXED1) = 0xffffffff;
	MSR(CR4_FIXED0) = 0x2000;
	MSR(CR4_FIXED1) = 0x03ffffff;
	MSR(VMCS_ENUM) = 0x34;
	MSR(EPT_VPID_CAP) = 0x00000f0106f34141;
	MSR(VMFUNC) = 1;
}

/* Each bit that may be 1 is. */
static void generous_cpu(void)
{
	recent_cpu();
	for (u32 msr = MSR_IA32_VMX_PINBASED_CTLS; msr <= MSR_IA32_VMX_ENTRY_CTLS; msr++)
		msrs[msr] |= 0xffffffff00000000;
	for (u32 msr = MSR_IA32_VMX_TRUE_PINBASED_CTLS; msr <= MSR_IA32_VMX_TRUE_ENTRY_CTLS; msr++)
		msrs[msr] |= 0xffffffff00000000;
	MSR(PROCBASED_CTLS2) = 0xffffffff00000000;
	MSR(EPT_VPID_CAP) = ~0ULL;
	MSR(MISC) = ~0ULL;
	MSR(BASIC) |= BIT(54) | BIT(56);
	MSR(CR4_FIXED1) = ~0ULL;
}

/* Nothing that loader, monitor and kvm_intel can do without. */
static void least_cpu(void)
{
	recent_cpu();
	MSR(BASIC) &= ~BIT(54);
	MSR(TRUE_PINBASED_CTLS) = 0x0000007f00000016;
	MSR(TRUE_PROCBASED_CTLS) = 0xb7b9fefe04006172 & ~(PRIMARY_NMI_WINDOW_EXITING << 32);
	MSR(PROCBASED_CTLS2) = (SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST | SECONDARY_WBINVD_EXITING) << 32;
	MSR(TRUE_EXIT_CTLS) = 0x003eefff00036dfb;
	MSR(TRUE_ENTRY_CTLS) = 0x0000d3ff000011fb;
	MSR(MISC) = VMX_MISC_WAIT_FOR_SIPI;
	MSR(CR4_FIXED1) = 0x27ff;
	MSR(EPT_VPID_CAP) = EPT_CAP_WALK_4 | EPT_CAP_WB | EPT_CAP_2M | EPT_CAP_INVEPT | EPT_CAP_INVEPT_ALL;
}

static void (*const cpus[])(void) = { recent_cpu, generous_cpu, least_cpu };

/* These bits where the CPU has them in bits 63:32. */
static u32 bits_of(u32 msr, const u8 *bits, unsigned count)
{
	u32 word = 0;

	for (unsigned i = 0; i < count; i++)
		word |= msrs[msr] & BIT(32 + bits[i]) ? (u32)BIT(bits[i]) : 0;
	return word;
}

#define CPU_HAS(msr, ...) bits_of(msr, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

static u64 controls(u32 must, u32 may)
{
	return (u64)(must | may) << 32 | must;
}

static bool vpid(void)
{
	return CPU_HAS(0x48b, 5) && (msrs[0x48c] & BIT(32)) && (msrs[0x48c] & BIT(41)) && (msrs[0x48c] & BIT(42));
}

/* The document's table. False: #GP. */
static bool documented(u32 msr, u64 *value)
{
	u32 primary = CPU_HAS(0x48e, 2, 3, 7, 9, 10, 11, 15, 16, 19, 20, 22, 23, 28, 29, 30, 31), secondary;
	bool global_ctrl = CPU_HAS(0x48f, 12) && CPU_HAS(0x490, 13);

	switch (msr) {
	case 0x480:
		*value = 0x48505331 | 4096ULL << 32 | 6ULL << 50 | BIT(55) | (msrs[msr] & (BIT(54) | BIT(56)));
		return true;
	case 0x481:
	case 0x48d:
		*value = 0x0000003f0000003f;
		return true;
	case 0x482:
		*value = controls(0x0401e172 | BIT(24), primary);
		return true;
	case 0x48e:
		*value = controls(0x04006172 | BIT(24), primary);
		return true;
	case 0x48b:
		secondary = CPU_HAS(0x48b, 1, 6, 7, 10);
		secondary |= CPU_HAS(0x48b, 3, 12, 20, 26) & boot.capabilities.secondary;
		*value = controls(0, secondary | (vpid() ? (u32)BIT(5) : 0));
		return true;
	case 0x483:
	case 0x48f:
		*value = controls(0x36dfb | BIT(2) | BIT(9) | BIT(15),
				  CPU_HAS(0x48f, 18, 19, 20, 21) | (global_ctrl ? BIT(12) : 0));
		return true;
	case 0x484:
	case 0x490:
		*value = controls(0x11fb | BIT(2), CPU_HAS(0x490, 9, 14, 15) | (global_ctrl ? BIT(13) : 0));
		return true;
	case 0x485:
		*value = BIT(5) | (msrs[msr] & (BIT(6) | BIT(30)));
		return true;
	case 0x486 ... 0x488:
		*value = msrs[msr];
		return true;
	case 0x489:
		*value = msrs[msr] & (CR4_ALLOWED | BIT(13));
		return true;
	case 0x48a:
		*value = 0;
		for (unsigned i = 0; i < nested_field_count; i++)
			if ((nested_fields[i].last & 0x3fe) > *value)
				*value = nested_fields[i].last & 0x3fe;
		return true;
	case 0x48c:
		*value = BIT(6) | BIT(14) | BIT(16) | BIT(20) | BIT(25) | BIT(26) |
			 (vpid() ? BIT(32) | BIT(40) | BIT(41) | BIT(42) | BIT(43) : 0);
		return true;
	default:
		return false;
	}
}

static void expect_documented(void)
{
	for (u32 msr = FIRST - 2; msr <= LAST + 2; msr++) {
		u64 value, wanted;
		bool there = documented(msr, &wanted);

		assert_int_equal(nested_msr(msr, &value), there);
		if (there && value != wanted)
			fail_msg("MSR %x is %016lx, not %016lx", msr, value, wanted);
	}
	assert_false(nested_msr(0, &(u64){ 0 }) || nested_msr(~0U, &(u64){ 0 }));
}

/* The word that a hypervisor puts together as the SDM says; false: what it insists on is not there. */
static bool take(u32 msr, u32 required, u32 optional, u32 *word)
{
	u64 capability;

	assert_true(nested_msr(msr, &capability));
	assert_int_equal((u32)capability & ~(capability >> 32), 0);
	*word = ((required | optional) & (u32)(capability >> 32)) | (u32)capability;
	return !(required & ~*word);
}

static void both_or_neither(u32 exit, u32 exit_bit, u32 entry, u32 entry_bit)
{
	assert_int_equal(!(exit & BIT(exit_bit)), !(entry & BIT(entry_bit)));
}

/* What kvm_intel of 6.1, 6.12 and 7.x insists on when it loads: its required sets are the same. It reads the old MSRs. */
static void expect_kvm_loads(void)
{
	const u32 primary_required = BIT(2) | BIT(3) | BIT(7) | BIT(9) | BIT(10) | BIT(11) | BIT(15) | BIT(16) |
				     BIT(19) | BIT(20) | BIT(23) | BIT(24) | BIT(29);
	u32 pin, primary, secondary, exit, entry;
	u64 basic, ept;

	assert_true(nested_msr(0x480, &basic) && nested_msr(0x48c, &ept));
	assert_true((basic >> 32 & 0x1fff) <= 4096 && (basic >> 32 & 0x1fff) && !(basic & BIT(48)));
	assert_int_equal(basic >> 50 & 15, 6);
	assert_int_equal(basic & BIT(31), 0);
	/* All that it would switch on is asked for: bits that it knows, and those that are hidden. */
	assert_true(take(0x481, BIT(0) | BIT(3), ~0U, &pin));
	assert_true(take(0x482, primary_required, ~0U, &primary));
	assert_true(take(0x48b, 0, ~0U, &secondary));
	assert_true(take(0x483, BIT(2) | BIT(9) | BIT(15), ~0U, &exit));
	assert_true(take(0x484, BIT(2) | BIT(9), ~0U, &entry));
	assert_true(take(0x48d, BIT(0) | BIT(3), ~0U, &pin) && take(0x48e, primary_required, ~0U, &primary));
	both_or_neither(exit, 12, entry, 13); /* PERF_GLOBAL_CTRL */
	both_or_neither(exit, 19, entry, 14); /* PAT */
	both_or_neither(exit, 21, entry, 15); /* EFER */
	both_or_neither(exit, 23, entry, 16); /* BNDCFGS */
	both_or_neither(exit, 25, entry, 18); /* Processor Trace */
	/* Secondary controls are there, and EPT and unrestricted guest with all that it wants of them. */
	assert_true((primary & BIT(31)) && (secondary & BIT(1)) && (secondary & BIT(7)));
	assert_true((ept & BIT(6)) && (ept & BIT(14)) && (ept & BIT(20)) && (ept & BIT(26)));
	if (secondary & BIT(5))
		assert_true((ept & BIT(32)) && (ept & (BIT(41) | BIT(42))));
	/* Hidden: what an L2 could reach around L1 or the monitor with, and what the monitor needs itself. */
	assert_false(pin & (BIT(6) | BIT(7)));
	assert_false(primary & (BIT(12) | BIT(17) | BIT(21) | BIT(25) | BIT(27)));
	assert_int_equal(secondary & ~0x041014eaU, 0);
	assert_false(ept & (BIT(0) | BIT(7) | BIT(8) | BIT(17) | BIT(21) | BIT(22)));
}

/* The loader's choice on this CPU. False: HyperPS does not run there. */
static bool boot_here(void)
{
	monitor.boot = &boot;
	return !choose_capabilities(&boot.capabilities);
}

static void each_cpu(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
		cpus[i]();
		assert_true(boot_here());
		assert_null(nested_capability_init());
		expect_documented();
		expect_kvm_loads();
		assert_null(nested_compare_this_cpu());
	}
	/* The least one lacks something. */
	assert_false(boot.capabilities.secondary & SECONDARY_INVPCID);
}

/* A VMCS of the host's that has instructions off hides them; a monitor without VPID hides that. */
static void host_has_less(void **state)
{
	const u32 off[] = { SECONDARY_RDTSCP, SECONDARY_INVPCID, SECONDARY_XSAVES, SECONDARY_USER_WAIT_PAUSE,
			    SECONDARY_VPID };
	u64 before, value;

	(void)state;
	recent_cpu();
	assert_true(boot_here());
	assert_null(nested_capability_init());
	assert_true(nested_msr(MSR_IA32_VMX_PROCBASED_CTLS2, &before));
	for (unsigned i = 0; i < ARRAY_SIZE(off); i++) {
		assert_true(boot.capabilities.secondary & off[i]);
		boot.capabilities.secondary &= ~off[i];
		assert_null(nested_capability_init());
		assert_true(nested_msr(MSR_IA32_VMX_PROCBASED_CTLS2, &value));
		assert_int_equal(value, before & ~((u64)off[i] << 32));
		assert_true(nested_msr(MSR_IA32_VMX_EPT_VPID_CAP, &value));
		assert_int_equal(!(value >> 32), off[i] == SECONDARY_VPID);
		boot.capabilities.secondary |= off[i];
	}
}

static bool lacks_what_is_needed(void)
{
	return (~msrs[MSR_IA32_VMX_TRUE_PINBASED_CTLS] >> 32 & (BIT(0) | BIT(3) | BIT(5) | BIT(6))) ||
	       (~msrs[MSR_IA32_VMX_TRUE_PROCBASED_CTLS] >> 32 &
		(BIT(2) | BIT(3) | BIT(7) | BIT(9) | BIT(10) | BIT(11) | BIT(15) | BIT(16) | BIT(19) | BIT(20) |
		 BIT(23) | BIT(24) | BIT(28) | BIT(29) | BIT(31))) ||
	       !(msrs[MSR_IA32_VMX_TRUE_EXIT_CTLS] >> 32 & BIT(15));
}

/* Each CPU, without each of its bits: either VMX is not offered, or what is offered is the document's, and KVM loads. */
static void each_bit_missing(void **state)
{
	unsigned offers = 0, refusals = 0;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
		for (u32 msr = FIRST; msr <= LAST; msr++) {
			bool fixed = msr == MSR_IA32_VMX_CR0_FIXED0 || msr == MSR_IA32_VMX_CR4_FIXED0;

			for (unsigned bit = 0; bit < 64; bit++) {
				const char *why;

				cpus[i]();
				msrs[msr] &= ~BIT(bit);
				if (fixed || !boot_here())
					continue;
				why = nested_capability_init();
				assert_int_equal(why != NULL, lacks_what_is_needed());
				refusals += why != NULL;
				if (why)
					continue;
				offers++;
				expect_documented();
				expect_kvm_loads();
			}
		}
	}
	print_message("%u CPUs to which VMX is offered, %u to which not\n", offers, refusals);
	assert_true(offers > 1000 && refusals > 20);
}

/* Also where the loader would not have gone on. */
static void needed(void **state)
{
	static const u32 words[] = { MSR_IA32_VMX_TRUE_PINBASED_CTLS, MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
				     MSR_IA32_VMX_TRUE_EXIT_CTLS };

	(void)state;
	recent_cpu();
	assert_true(boot_here());
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		for (unsigned bit = 32; bit < 64; bit++) {
			recent_cpu();
			msrs[words[i]] &= ~BIT(bit);
			assert_int_equal(nested_capability_init() != NULL, lacks_what_is_needed());
		}
	}
}

/* A CPU that lacks a bit of what L1 was told on the first is told apart; what L1 was not told of does not matter. */
static void differences(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
		u64 told[LAST + 1 - FIRST] = { 0 };

		cpus[i]();
		assert_true(boot_here());
		assert_null(nested_capability_init());
		for (u32 msr = FIRST; msr <= LAST; msr++)
			documented(msr, &told[msr - FIRST]);
		for (u32 msr = FIRST; msr <= LAST; msr++) {
			for (unsigned bit = 0; bit < 64; bit++) {
				bool lacks = false, differs;

				cpus[i]();
				msrs[msr] &= ~BIT(bit);
				for (u32 other = FIRST; other <= LAST; other++) {
					u64 here = 0;

					documented(other, &here);
					lacks |= (told[other - FIRST] & ~here) != 0;
				}
				lacks |= lacks_what_is_needed();
				differs = nested_compare_this_cpu() != NULL;
				/* What the monitor itself uses its own comparison finds. */
				if (lacks ? !differs && !vmx_compare_this_cpu(&boot.capabilities) : differs)
					fail_msg("CPU %u without bit %u of MSR %x", i, bit, msr);
			}
		}
		generous_cpu();
		assert_null(nested_compare_this_cpu());
	}
	expect_kvm_loads();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_cpu), cmocka_unit_test(host_has_less), cmocka_unit_test(each_bit_missing),
		cmocka_unit_test(needed),   cmocka_unit_test(differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
