// SPDX-License-Identifier: MIT
/* mm/ept.c against a reference: every mapped address translates, every other does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ept.h"

#define POOL_PAGES 512
#define POOL_BASE 0x7f0000000ULL

static struct page_pool pool;

static int setup(void **state)
{
	(void)state;
	pool = (struct page_pool){ aligned_alloc(PAGE_SIZE, POOL_PAGES * PAGE_SIZE),
				   HPA(POOL_BASE),
				   POOL_PAGES * PAGE_SIZE,
				   0,
				   NULL,
				   NULL,
				   { 0 },
				   { 0 },
				   { 0 },
				   0 };
	memset(pool.linear, 0xa5, pool.size);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(pool.linear);
	return 0;
}

static void assert_maps(const struct ept *ept, u64 gpa, u64 hpa, u64 permissions, u64 type, unsigned expected_level)
{
	unsigned level;
	u64 entry = ept_lookup(ept, GPA(gpa), &level), offset_mask = (BIT(12 + 9 * (level - 1)) - 1) & ~0xfffULL;

	assert_int_equal(level, expected_level);
	assert_int_equal((entry & EPT_ADDRESS) + (gpa & offset_mask), hpa & ~0xfffULL);
	assert_int_equal(entry & EPT_RWX, permissions);
	assert_int_equal(entry >> EPT_MEMORY_TYPE_SHIFT & 7, type);
	assert_int_equal(!!(entry & EPT_LARGE), level > 1);
}

static void assert_absent(const struct ept *ept, u64 gpa)
{
	unsigned level;

	assert_int_equal(ept_lookup(ept, GPA(gpa), &level), 0);
	assert_int_equal(level, 0);
}

static void largest_pages(void **state)
{
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	/* 4 KiB short of 1 GiB on both sides: each page size occurs. */
	assert_true(ept_map(&ept, GPA(PAGE_SIZE), HPA(PAGE_SIZE), 3 * PAGE_SIZE_1G, EPT_RWX, 6));
	assert_absent(&ept, 0);
	assert_maps(&ept, PAGE_SIZE, PAGE_SIZE, EPT_RWX, 6, 1);
	assert_maps(&ept, PAGE_SIZE_2M, PAGE_SIZE_2M, EPT_RWX, 6, 2);
	assert_maps(&ept, PAGE_SIZE_1G + 12345, PAGE_SIZE_1G + 12345, EPT_RWX, 6, 3);
	assert_maps(&ept, 3 * PAGE_SIZE_1G, 3 * PAGE_SIZE_1G, EPT_RWX, 6, 1);
	assert_absent(&ept, 3 * PAGE_SIZE_1G + PAGE_SIZE);
	assert_int_equal(ept.leaves[1], 511 + 1);
	assert_int_equal(ept.leaves[2], 511);
	assert_int_equal(ept.leaves[3], 2);
}

static void no_1g_pages(void **state)
{
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 2));
	assert_true(ept_map(&ept, GPA(0), HPA(0), PAGE_SIZE_1G, EPT_READ, 0));
	assert_int_equal(ept.leaves[3], 0);
	assert_int_equal(ept.leaves[2], 512);
	assert_maps(&ept, PAGE_SIZE_1G - 1, PAGE_SIZE_1G - 1, EPT_READ, 0, 2);
}

static void unaligned_to_each_other(void **state)
{
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	/* The guest address is 2 MiB-aligned, the host address is not: only small pages fit. */
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_2M), HPA(PAGE_SIZE), PAGE_SIZE_2M, EPT_RWX, 6));
	assert_int_equal(ept.leaves[2], 0);
	assert_maps(&ept, PAGE_SIZE_2M + 5 * PAGE_SIZE, 6 * PAGE_SIZE, EPT_RWX, 6, 1);
}

static void five_levels(void **state)
{
	struct ept ept;
	u64 high = BIT(51);

	(void)state;
	assert_true(ept_init(&ept, &pool, 5, 3));
	assert_true(ept_map(&ept, GPA(high), HPA(high), PAGE_SIZE_1G, EPT_RWX, 0));
	assert_maps(&ept, high + 4096, high + 4096, EPT_RWX, 0, 3);
	assert_int_equal(ept_pointer(&ept), POOL_BASE | 4 << 3 | 6);
}

static void refuses(void **state)
{
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_1G), HPA(0), PAGE_SIZE_1G, EPT_RWX, 6));
	/* Over a leaf, under a leaf, past the end, round the end. */
	assert_false(ept_map(&ept, GPA(PAGE_SIZE_1G), HPA(0), PAGE_SIZE_1G, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(PAGE_SIZE_1G + PAGE_SIZE), HPA(0), PAGE_SIZE, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(0), HPA(0), 2 * PAGE_SIZE_1G, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(BIT(48)), HPA(0), PAGE_SIZE, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(BIT(48) - PAGE_SIZE), HPA(0), 2 * PAGE_SIZE, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(PAGE_SIZE), HPA(0), ~0xfffULL, EPT_RWX, 6));
	assert_absent(&ept, BIT(48));
	assert_absent(&ept, ~0ULL);
}

static void dry_pool(void **state)
{
	struct ept ept;

	(void)state;
	pool.size = 3 * PAGE_SIZE;
	assert_true(ept_init(&ept, &pool, 4, 3));
	assert_false(ept_map(&ept, GPA(0), HPA(0), PAGE_SIZE, EPT_RWX, 6)); /* wants three tables below the root */
	assert_null(page_pool_take(&pool));
	assert_int_equal(page_pool_available(&pool), 0);
}

/* The loader reserves what ept_tables_needed() says: an identity map, cut up as badly as allowed for, must fit. */
static void estimate_holds(void **state)
{
	(void)state;
	for (unsigned bits = 36; bits <= 39; bits++) {
		for (unsigned leaf = 2; leaf <= 3; leaf++) {
			struct ept ept;
			u64 top = BIT(bits), cut = 0, pages = ept_tables_needed(bits, leaf == 3);

			pool.used = 0;
			assert_true(pages <= POOL_PAGES || leaf == 2);
			if (pages > POOL_PAGES)
				continue;
			pool.size = pages * PAGE_SIZE;
			assert_true(ept_init(&ept, &pool, 4, leaf));
			for (unsigned i = 0; i < 22; i++, cut += PAGE_SIZE_1G + PAGE_SIZE_2M + PAGE_SIZE)
				assert_true(ept_map(&ept, GPA(cut), HPA(cut), PAGE_SIZE_1G + PAGE_SIZE_2M + PAGE_SIZE,
						    EPT_RWX, i % 2 ? 6 : 0));
			assert_true(ept_map(&ept, GPA(cut), HPA(cut), top - cut, EPT_RWX, 6));
		}
	}
	assert_true(ept_tables_needed(52, true) >= 8192 + 16 + 1);
	assert_true(ept_tables_needed(46, true) < 256);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(largest_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(no_1g_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(unaligned_to_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(five_levels, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(dry_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(estimate_holds, setup, teardown),
	};

	return cmocka_run_group_tests_name("ept", tests, NULL, NULL);
}
