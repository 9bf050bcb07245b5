// SPDX-License-Identifier: MIT
/*
 * host_cpu/instruction.c: the leaves that exit.asm answers itself are those that filter_cpuid() leaves as they are; VMX is
 * there with `kvm` on, and nothing else differs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cpu_features.h"
#include "host_cpu.h"
#include "monitor.h"
#include "stop.h"

struct monitor monitor;

void panic_stop(void)
{
	abort();
}

/* Whatever the CPU answers: all ones, or all zeros, since a bit may also be set. */
static bool filters(u32 leaf, u32 subleaf)
{
	struct cpuid_result ones = { ~0U, ~0U, ~0U, ~0U }, zeros = { 0 }, r = ones, z = zeros;

	filter_cpuid(leaf, subleaf, &r);
	filter_cpuid(leaf, subleaf, &z);
	return memcmp(&r, &ones, sizeof(r)) || memcmp(&z, &zeros, sizeof(z));
}

static void unfiltered_leaves(void **state)
{
	(void)state;
	for (u32 leaf = 0; leaf < 32; leaf++) {
		bool any = false;

		for (u32 subleaf = 0; subleaf < 64; subleaf++) {
			any |= filters(leaf, subleaf);
			/* Of this one exit.asm answers the other subleaves. */
			if (leaf == 0xd && subleaf != 1)
				assert_false(filters(leaf, subleaf));
		}
		assert_int_equal(any, (CPUID_FILTERED_LEAVES >> leaf) & 1);
	}
	for (u32 leaf = 0x80000000; leaf < 0x80000100; leaf++)
		assert_false(filters(leaf, 0));
	/* An outer hypervisor's leaves are not below 32, and not extended ones: they come here. */
	assert_true(filters(0x40000000, 0) && filters(0x4fffffff, 0));
}

static void vmx(void **state)
{
	const struct cpuid_result answers[] = { { ~0U, ~0U, ~0U, ~0U }, { 0 } };

	(void)state;
	for (unsigned i = 0; i < 2 * 32 * 4; i++) {
		struct cpuid_result with = answers[i % 2], without = with;
		u32 leaf = i / 8, subleaf = i / 2 % 4;

		monitor.kvm = true;
		filter_cpuid(leaf, subleaf, &with);
		monitor.kvm = false;
		filter_cpuid(leaf, subleaf, &without);
		if (leaf == 1) {
			/* What the CPU says: with an outer hypervisor it may have none. */
			assert_int_equal(with.ecx & BIT(CPUID_VMX), answers[i % 2].ecx & BIT(CPUID_VMX));
			assert_int_equal(without.ecx & BIT(CPUID_VMX), 0);
			assert_int_equal(with.ecx & BIT(CPUID_SMX), 0);
			with.ecx &= ~(u32)BIT(CPUID_VMX);
		}
		assert_memory_equal(&with, &without, sizeof(with));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(unfiltered_leaves), cmocka_unit_test(vmx) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
