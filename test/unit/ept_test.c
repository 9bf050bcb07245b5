// SPDX-License-Identifier: MIT
/* mm/ept.c against a reference: every mapped address translates, every other does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ept.h"
#include "host_view.h"
#include "pagetable.h"

#define POOL_PAGES 512
#define POOL_BASE 0x7f0000ULL
#define POOL_FRAME (POOL_BASE / PAGE_SIZE)

static struct page_pool pool;
static u64 mark[POOL_FRAME + POOL_PAGES];
static struct page_marks marks;

static int setup(void **state)
{
	(void)state;
	marks = (struct page_marks){ .mark = mark, .frames = ARRAY_SIZE(mark) };
	memset(mark, 0, sizeof(mark));
	marks.count[HYPERPS_FRAME_DEVICE] = marks.frames;
	page_marks_set(&marks, POOL_FRAME, POOL_PAGES, HYPERPS_FRAME_MONITOR);
	pool = (struct page_pool){ .linear = aligned_alloc(PAGE_SIZE, POOL_PAGES * PAGE_SIZE),
				   .base = HPA(POOL_BASE),
				   .size = POOL_PAGES * PAGE_SIZE,
				   .marks = &marks };
	memset(pool.linear, 0xa5, pool.size);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(pool.linear);
	return 0;
}

/* The leaf entry that maps gpa, with its level in *level (0: none; the value is then 0). */
static u64 ept_lookup(const struct ept *ept, gpa_t gpa, unsigned *level)
{
	struct ept_run run = ept_run(ept, gpa, 1);

	*level = run.level;
	return run.entry;
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
	/* Where a table is, though nothing is mapped at the first address. */
	assert_true(ept_map(&ept, GPA(4 * PAGE_SIZE_1G + PAGE_SIZE), HPA(0), PAGE_SIZE, EPT_RWX, 6));
	assert_false(ept_map(&ept, GPA(4 * PAGE_SIZE_1G), HPA(0), PAGE_SIZE_2M, EPT_RWX, 6));
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

/* Splitting changes no translation; merging takes the same table out again, into quarantine. */
static void split_and_merge(void **state)
{
	const u64 gpa = PAGE_SIZE_1G + 3 * PAGE_SIZE_2M, page = gpa + 7 * PAGE_SIZE;
	struct ept ept;
	u64 *entry, old;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_1G), HPA(PAGE_SIZE_1G), PAGE_SIZE_1G, EPT_RWX, 6));
	entry = ept_entry(&ept, GPA(page), 1);
	assert_non_null(entry);
	assert_maps(&ept, page, page, EPT_RWX, 6, 1);
	assert_maps(&ept, gpa + PAGE_SIZE_2M, gpa + PAGE_SIZE_2M, EPT_RWX, 6, 2);
	assert_int_equal(ept.leaves[1], 512);
	assert_int_equal(ept.leaves[2], 511);
	assert_int_equal(ept.leaves[3], 0);

	/* A hole; another address; another right: no merge. */
	old = *entry;
	ept_set_entry(&ept, entry, 1, 0);
	assert_absent(&ept, page);
	assert_int_equal(ept.leaves[1], 511);
	assert_false(ept_merge(&ept, GPA(page), 1));
	ept_set_entry(&ept, entry, 1, old + PAGE_SIZE);
	assert_false(ept_merge(&ept, GPA(page), 1));
	ept_set_entry(&ept, entry, 1, old & ~EPT_WRITE);
	assert_false(ept_merge(&ept, GPA(page), 1));
	ept_set_entry(&ept, entry, 1, old);
	entry = ept_entry(&ept, GPA(gpa), 1);
	ept_set_entry(&ept, entry, 1, 0);
	assert_false(ept_merge(&ept, GPA(page), 1));
	ept_set_entry(&ept, entry, 1, gpa | (old & ~EPT_ADDRESS));
	/* A table among them, or first of all: no merge of the level above. */
	assert_false(ept_merge(&ept, GPA(page), 2));
	assert_non_null(ept_entry(&ept, GPA(PAGE_SIZE_1G), 1));
	assert_false(ept_merge(&ept, GPA(page), 2));
	assert_true(ept_merge(&ept, GPA(PAGE_SIZE_1G), 1));

	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], 1);
	assert_true(ept_merge(&ept, GPA(page), 1));
	assert_maps(&ept, page, page, EPT_RWX, 6, 2);
	assert_true(ept_merge(&ept, GPA(page), 2));
	assert_maps(&ept, page, page, EPT_RWX, 6, 3);
	assert_int_equal(ept.leaves[1] + ept.leaves[2], 0);
	assert_int_equal(ept.leaves[3], 1);
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], 3);
	/* No leaf is larger, and the root is never replaced. */
	assert_false(ept_merge(&ept, GPA(page), 3));
	assert_false(ept_merge(&ept, GPA(page), 4));
	assert_false(ept_merge(&ept, GPA(0), 1));
}

static void no_merge_when_unaligned(void **state)
{
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 2));
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_2M), HPA(PAGE_SIZE), PAGE_SIZE_2M, EPT_RWX, 6));
	assert_false(ept_merge(&ept, GPA(PAGE_SIZE_2M), 1));
	/* 512 large pages, but the CPU has no larger ones. */
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_1G), HPA(PAGE_SIZE_1G), PAGE_SIZE_1G, EPT_RWX, 6));
	assert_false(ept_merge(&ept, GPA(PAGE_SIZE_1G), 2));
}

/* What is there from gpa on, as a caller searches: from table to table. */
static u64 search(const struct ept *ept, u64 gpa, u64 *budget, bool *found)
{
	for (u64 before = *budget + 1; *budget && *budget < before && gpa < BIT(48);) {
		before = *budget;
		gpa = ept_next(ept, GPA(gpa), budget, found).value;
		if (*found)
			break;
	}
	return gpa;
}

/* A large page in the place of a table, an empty table that goes, and the search for what is there. */
static void tables_that_go(void **state)
{
	struct ept ept;
	bool found;
	u64 budget = 1000;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	assert_int_equal(search(&ept, 0, &budget, &found), BIT(48));
	assert_false(found);
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_2M + PAGE_SIZE), HPA(0), 2 * PAGE_SIZE, EPT_RWX, 6));
	budget = 1000;
	assert_int_equal(search(&ept, 0, &budget, &found), PAGE_SIZE_2M + PAGE_SIZE);
	assert_true(found);
	budget = 1; /* used up where the search has left the first 2 MiB behind */
	assert_int_equal(search(&ept, 0, &budget, &found), PAGE_SIZE_2M);
	assert_false(found);
	assert_int_equal(budget, 0);

	ept_set_entry(&ept, ept_entry(&ept, GPA(PAGE_SIZE_2M), 2), 2, PAGE_SIZE_2M | EPT_LARGE | EPT_RWX | 6 << 3);
	assert_maps(&ept, PAGE_SIZE_2M, PAGE_SIZE_2M, EPT_RWX, 6, 2);
	assert_int_equal(ept.leaves[1], 0);
	assert_int_equal(ept.leaves[2], 1);
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], 1);
	ept_drop_table(&ept, GPA(PAGE_SIZE_2M), 1); /* there is none */
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], 1);
	ept_set_entry(&ept, ept_entry(&ept, GPA(PAGE_SIZE_2M), 2), 2, 0);
	ept_drop_table(&ept, GPA(PAGE_SIZE_2M), 2);
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], 2);
	assert_absent(&ept, PAGE_SIZE_2M);
}

/* Many entries of one page table at once, and what is found there afterwards. */
static void runs(void **state)
{
	const u64 gpa = 3 * PAGE_SIZE_2M - 4 * PAGE_SIZE, value = 0x100000 | EPT_RWX | 6 << EPT_MEMORY_TYPE_SHIFT;
	struct ept_run run;
	struct ept ept;

	(void)state;
	assert_true(ept_init(&ept, &pool, 4, 3));
	assert_int_equal(ept_in_table(GPA(gpa), 3), 3);
	assert_int_equal(ept_in_table(GPA(gpa), 5), 4);
	assert_true(ept_is_empty(&ept, GPA(gpa), 8));
	assert_non_null(ept_entry(&ept, GPA(gpa), 1)); /* an empty table is empty, too */
	assert_true(ept_is_empty(&ept, GPA(gpa), 8));
	ept_set_run(&ept, GPA(gpa), 4, value);
	ept_set_run(&ept, GPA(gpa + 4 * PAGE_SIZE), 4, value + 4 * PAGE_SIZE);
	assert_int_equal(ept.leaves[1], 8);
	for (u64 i = 0; i < 8; i++)
		assert_maps(&ept, gpa + i * PAGE_SIZE, 0x100000 + i * PAGE_SIZE, EPT_RWX, 6, 1);
	assert_false(ept_is_empty(&ept, GPA(gpa - 3 * PAGE_SIZE), 4));
	assert_true(ept_is_empty(&ept, GPA(gpa - 3 * PAGE_SIZE), 3));
	assert_false(ept_is_empty(&ept, GPA(gpa + 7 * PAGE_SIZE), 2));
	assert_true(ept_is_empty(&ept, GPA(gpa + 8 * PAGE_SIZE), 1000));

	/* A run ends with the table, with the limit, and where a frame does not follow. */
	run = ept_run(&ept, GPA(gpa), 100);
	assert_int_equal(run.frames, 4);
	assert_int_equal(run.frame, 0x100);
	assert_int_equal(run.level, 1);
	assert_int_equal(ept_run(&ept, GPA(gpa), 3).frames, 3);
	assert_int_equal(ept_run(&ept, GPA(gpa - PAGE_SIZE), 3).frames, 0);
	ept_set_run(&ept, GPA(gpa + 2 * PAGE_SIZE), 1, 0);
	assert_int_equal(ept.leaves[1], 7);
	assert_int_equal(ept_run(&ept, GPA(gpa), 100).frames, 2);

	/* In the middle of a large page. */
	assert_true(ept_map(&ept, GPA(PAGE_SIZE_1G), HPA(PAGE_SIZE_1G), PAGE_SIZE_2M, EPT_RWX, 6));
	assert_false(ept_is_empty(&ept, GPA(PAGE_SIZE_1G + PAGE_SIZE), 1));
	run = ept_run(&ept, GPA(PAGE_SIZE_1G + 500 * PAGE_SIZE), 100);
	assert_int_equal(run.frames, 12);
	assert_int_equal(run.frame, PAGE_SIZE_1G / PAGE_SIZE + 500);
	assert_int_equal(run.level, 2);
	assert_int_equal(ept_run(&ept, GPA(PAGE_SIZE_1G), 100).frames, 100);
}

/* The loader reserves what pagetable_ept_pages() says: an identity map, cut up as badly as allowed for, must fit. */
static void estimate_holds(void **state)
{
	(void)state;
	for (unsigned bits = 36; bits <= 39; bits++) {
		for (unsigned leaf = 2; leaf <= 3; leaf++) {
			struct ept ept;
			u64 top = BIT(bits), cut = 0, pages = pagetable_ept_pages(bits, leaf == 3);

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
	assert_true(pagetable_ept_pages(52, true) >= 8192 + 16 + 1);
	assert_true(pagetable_ept_pages(46, true) < 256);
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
		cmocka_unit_test_setup_teardown(split_and_merge, setup, teardown),
		cmocka_unit_test_setup_teardown(no_merge_when_unaligned, setup, teardown),
		cmocka_unit_test_setup_teardown(tables_that_go, setup, teardown),
		cmocka_unit_test_setup_teardown(runs, setup, teardown),
		cmocka_unit_test_setup_teardown(estimate_holds, setup, teardown),
	};

	return cmocka_run_group_tests_name("ept", tests, NULL, NULL);
}
