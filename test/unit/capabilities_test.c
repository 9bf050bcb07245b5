// SPDX-License-Identifier: MIT
/*
 * vmx/capabilities.c: which differences between CPUs are refused. The check of a CPU itself is a live test (unfit.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "capabilities.h"
#include "vmx.h"

static const struct vmx_capabilities first = {
	.basic = 0x00da040000000012,
	.ept_vpid = EPT_CAP_1G | EPT_CAP_2M | EPT_CAP_INVVPID_ALL,
	.cr0_fixed0 = 0x80000021,
	.cr0_fixed1 = 0xffffffff,
	.cr4_fixed0 = 0x2000,
	.cr4_fixed1 = 0x3767ff,
	.xcr0 = 0xe7,
	.pin = 0x16,
	.primary = 0x90000000,
	.secondary = 0x8a,
	.exit = 0x3c0204,
	.entry = 0xc204,
	.physical_address_bits = 46,
	.ept_levels = 4,
};

static void same_is_accepted(void **state)
{
	struct vmx_capabilities other = first;

	(void)state;
	assert_null(vmx_compare_capabilities(&first, &other));
	/* More than the first one has is no harm: it is not used. */
	other.ept_vpid |= EPT_CAP_EXECUTE_ONLY;
	other.cr4_fixed1 |= BIT(31);
	assert_null(vmx_compare_capabilities(&first, &other));
}

static void any_difference_that_matters_is_refused(void **state)
{
	struct vmx_capabilities others[] = { first, first, first, first, first, first, first, first, first,
					     first, first, first, first, first, first, first, first, first };

	(void)state;
	others[0].basic ^= 1; /* revision */
	others[1].basic ^= BIT(50); /* memory type */
	others[2].pin ^= BIT(6);
	others[3].primary ^= BIT(7);
	others[4].secondary ^= BIT(5);
	others[5].exit ^= BIT(20);
	others[6].entry ^= BIT(15);
	others[7].physical_address_bits = 39;
	others[8].ept_levels = 5;
	others[9].ept_vpid &= ~EPT_CAP_1G;
	others[10].ept_vpid &= ~EPT_CAP_INVVPID_ALL;
	others[11].cr0_fixed0 ^= BIT(5);
	others[12].cr4_fixed0 ^= BIT(13);
	others[13].guest_pin ^= BIT(6);
	others[14].guest_primary ^= BIT(10);
	others[15].guest_secondary ^= BIT(3);
	others[16].timer_rate ^= 5;
	others[17].xcr0 ^= BIT(9);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_non_null(vmx_compare_capabilities(&first, &others[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_is_accepted),
		cmocka_unit_test(any_difference_that_matters_is_refused),
	};

	return cmocka_run_group_tests_name("capabilities", tests, NULL, NULL);
}
