// SPDX-License-Identifier: MIT
/* boot/memory_type.c: types, the ends it promises, and overlaps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "memory_type.h"

#define BITS 40
#define TOP BIT(BITS)

static struct mtrr_state enabled(u64 default_type, u64 count)
{
	return (struct mtrr_state){ .capability = MTRRCAP_FIXED | count,
				    .msr[MTRR_DEFAULT] = MTRR_ENABLE | default_type };
}

static void set(struct mtrr_state *mtrr, unsigned n, u64 base, u64 size, u64 type)
{
	mtrr->msr[MTRR_BASE(n)] = base | type;
	mtrr->msr[MTRR_MASK(n)] = (TOP - size) | MTRR_MASK_VALID;
}

static void assert_range(const struct mtrr_state *mtrr, u64 at, u64 type, u64 expected_end)
{
	u64 end;

	assert_int_equal(memory_type_at(mtrr, BITS, HPA(at), &end), type);
	assert_int_equal(end, expected_end);
}

/*
 * Whatever the registers hold: the end lies above the address and at most at the top, and the type is the same up to
 * it.
 */
static void assert_consistent(const struct mtrr_state *mtrr, u64 limit)
{
	u64 end;

	for (u64 at = 0; at < limit; at = end) {
		u64 type = memory_type_at(mtrr, BITS, HPA(at), &end), unused;

		assert_true(end > at && end <= TOP);
		assert_true(memory_type_is_defined(type));
		assert_int_equal(memory_type_at(mtrr, BITS, HPA(at + (end - at) / 2), &unused), type);
		assert_int_equal(memory_type_at(mtrr, BITS, HPA(end - 1), &unused), type);
	}
}

static void disabled_is_uncacheable(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 0);

	(void)state;
	mtrr.msr[MTRR_DEFAULT] &= ~MTRR_ENABLE;
	assert_range(&mtrr, 0x1234000, MEMORY_TYPE_UC, TOP);
}

static void default_type_alone(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 8);

	(void)state;
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, TOP);
}

static void variable_ranges(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 2);

	(void)state;
	set(&mtrr, 0, 0x80000000, 0x80000000, MEMORY_TYPE_UC);
	set(&mtrr, 1, 0x800000000, 0x800000000, MEMORY_TYPE_UC);
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, 0x80000000);
	assert_range(&mtrr, 0x80000000, MEMORY_TYPE_UC, 0x100000000);
	assert_range(&mtrr, 0x100000000, MEMORY_TYPE_WB, 0x800000000);
	assert_range(&mtrr, 0x900000000, MEMORY_TYPE_UC, 0x1000000000);
	assert_range(&mtrr, 0x1000000000, MEMORY_TYPE_WB, TOP);
	/* Registers past the count do not exist. */
	set(&mtrr, 2, 0, 0x1000, MEMORY_TYPE_UC);
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, 0x80000000);
}

static void overlaps(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_UC, 6);

	(void)state;
	set(&mtrr, 0, 0, 0x100000000, MEMORY_TYPE_WB);
	set(&mtrr, 1, 0xc0000000, 0x40000000, MEMORY_TYPE_UC);
	set(&mtrr, 2, 0x40000000, 0x40000000, MEMORY_TYPE_WT);
	set(&mtrr, 3, 0x10000000, 0x10000000, MEMORY_TYPE_WC);
	set(&mtrr, 4, 0x60000000, 0x20000000, MEMORY_TYPE_WB); /* after the WT */
	set(&mtrr, 5, 0, 0x8000000, MEMORY_TYPE_WB);
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, 0x8000000);
	assert_range(&mtrr, 0x8000000, MEMORY_TYPE_WB, 0x10000000);
	assert_range(&mtrr, 0x10000000, MEMORY_TYPE_UC, 0x20000000); /* WB with WC is undefined: UC */
	assert_range(&mtrr, 0x40000000, MEMORY_TYPE_WT, 0x60000000);
	assert_range(&mtrr, 0x60000000, MEMORY_TYPE_WT, 0x80000000);
	assert_range(&mtrr, 0xc0000000, MEMORY_TYPE_UC, 0x100000000);
	assert_consistent(&mtrr, TOP);
}

/* Registers that don't count: valid but without a mask; a mask but not valid; more than there can be. */
static void ignored_registers(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 0xff);

	(void)state;
	mtrr.msr[MTRR_MASK(0)] = MTRR_MASK_VALID;
	set(&mtrr, 1, 0x40000000, 0x40000000, MEMORY_TYPE_WT);
	mtrr.msr[MTRR_MASK(1)] &= ~MTRR_MASK_VALID;
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, TOP);
	set(&mtrr, MTRR_VARIABLE_MAX - 1, 0x40000000, 0x40000000, MEMORY_TYPE_WT);
	assert_range(&mtrr, 0x40000000, MEMORY_TYPE_WT, 0x80000000);
}

static void fixed_ranges(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_UC, 1);

	(void)state;
	set(&mtrr, 0, 0, 0x40000000, MEMORY_TYPE_WB);
	mtrr.msr[MTRR_DEFAULT] |= MTRR_FIXED_ENABLE;
	mtrr.msr[MTRR_FIX64K] = 0x0606060606060606;
	mtrr.msr[MTRR_FIX16K] = 0x0606060606060600;
	mtrr.msr[MTRR_FIX4K + 7] = 0x0506060606060606;
	assert_range(&mtrr, 0x70000, MEMORY_TYPE_WB, 0x80000);
	assert_range(&mtrr, 0x80000, MEMORY_TYPE_UC, 0x84000);
	assert_range(&mtrr, 0x84000, MEMORY_TYPE_WB, 0x88000);
	assert_range(&mtrr, 0xa0000, MEMORY_TYPE_UC, 0xa4000);
	assert_range(&mtrr, 0xff000, MEMORY_TYPE_WP, 0x100000);
	assert_range(&mtrr, 0x100000, MEMORY_TYPE_WB, 0x40000000);
	mtrr.msr[MTRR_FIX4K + 7] = 0x02ULL << 56; /* a reserved encoding */
	assert_range(&mtrr, 0xff000, MEMORY_TYPE_UC, 0x100000);
	assert_consistent(&mtrr, TOP);
}

static void mask_with_holes(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 1);

	(void)state;
	/*
	 * Every other 16 MiB of each 32 MiB below 64 MiB ... and again in each 64 MiB further up: bit 25 does not
	 * count.
	 */
	mtrr.msr[MTRR_BASE(0)] = 0x1000000 | MEMORY_TYPE_UC;
	mtrr.msr[MTRR_MASK(0)] = ((TOP - 0x1000000) & ~BIT(25)) | MTRR_MASK_VALID;
	assert_range(&mtrr, 0x1000000, MEMORY_TYPE_UC, 0x2000000);
	assert_range(&mtrr, 0x2000000, MEMORY_TYPE_WB, 0x3000000);
	assert_range(&mtrr, 0x3000000, MEMORY_TYPE_UC, 0x4000000);
	assert_consistent(&mtrr, 0x10000000);
}

/*
 * Firmware with a mask of fewer bits than the CPU has: the range does not recur further up, and ends where it should.
 */
static void short_mask(void **state)
{
	struct mtrr_state mtrr = enabled(MEMORY_TYPE_WB, 1);

	(void)state;
	mtrr.msr[MTRR_BASE(0)] = 0x80000000 | MEMORY_TYPE_UC;
	mtrr.msr[MTRR_MASK(0)] = (BIT(36) - 0x80000000) | MTRR_MASK_VALID;
	assert_range(&mtrr, 0, MEMORY_TYPE_WB, 0x80000000);
	assert_range(&mtrr, 0x80000000, MEMORY_TYPE_UC, 0x100000000);
	assert_range(&mtrr, 0x100000000, MEMORY_TYPE_WB, TOP);
}

static void random_registers(void **state)
{
	u64 seed = 88172645463325252ULL;
	struct mtrr_state mtrr;

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		u64 *words = (u64 *)&mtrr;

		for (unsigned i = 0; i < sizeof(mtrr) / sizeof(u64); i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			words[i] = seed;
		}
		mtrr.capability = (mtrr.capability & MTRRCAP_FIXED) | (mtrr.capability & 3);
		assert_consistent(&mtrr, 0x200000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(disabled_is_uncacheable), cmocka_unit_test(default_type_alone),
		cmocka_unit_test(variable_ranges),         cmocka_unit_test(overlaps),
		cmocka_unit_test(ignored_registers),       cmocka_unit_test(fixed_ranges),
		cmocka_unit_test(mask_with_holes),         cmocka_unit_test(short_mask),
		cmocka_unit_test(random_registers),
	};

	return cmocka_run_group_tests_name("memory_type", tests, NULL, NULL);
}
