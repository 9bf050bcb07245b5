// SPDX-License-Identifier: MIT
/* mm/page_mark.c: odd memory maps, ends of the table, and that the counters always agree with the marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "page_mark.h"

#define RESERVED 0
#define CONVENTIONAL 7
#define RUNTIME_DATA 6
#define ACPI_NVS 10
#define MMIO 11

static struct page_marks build(const struct boot_memory_range *ranges, u32 count)
{
	struct page_marks marks;
	u64 bytes = page_marks_bytes(ranges, count);
	u64 *table = aligned_alloc(PAGE_SIZE, bytes + PAGE_SIZE);

	/* A guard behind the table: it must stay as it is. */
	for (u64 i = 0; i < (bytes + PAGE_SIZE) / sizeof(u64); i++)
		table[i] = 0xdeadbeef;
	page_marks_init(&marks, table, ranges, count);
	assert_true(marks.frames * sizeof(u64) <= bytes);
	assert_int_equal(table[bytes / sizeof(u64)], 0xdeadbeef);
	return marks;
}

static void assert_counts(const struct page_marks *marks)
{
	u64 count[HYPERPS_FRAME_STATES] = { 0 };

	for (u64 i = 0; i < marks->frames; i++)
		count[page_mark_state(marks, i)]++;
	for (unsigned state = 0; state < HYPERPS_FRAME_STATES; state++)
		assert_int_equal(count[state], marks->count[state]);
}

static void ordinary_map(void **state)
{
	static const struct boot_memory_range map[] = {
		{ 0, 0xa0000, CONVENTIONAL, 0 },         { 0x100000, 0x700000, 3, 0 },
		{ 0x800000, 0x8000, ACPI_NVS, 0 },       { 0x808000, 0x7f8000, CONVENTIONAL, 0 },
		{ 0x1000000, 0x10000, RUNTIME_DATA, 0 }, { 0xe0000000, 0x10000000, MMIO, 0 },
	};
	struct page_marks marks = build(map, ARRAY_SIZE(map));

	(void)state;
	assert_int_equal(marks.frames, 0x1000);
	assert_int_equal(page_mark_state(&marks, 0), HYPERPS_FRAME_HOST);
	assert_int_equal(page_mark_state(&marks, 0x9f), HYPERPS_FRAME_HOST);
	assert_int_equal(page_mark_state(&marks, 0xa0), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x803), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x1000), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0xe0000), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, ~0ULL), HYPERPS_FRAME_DEVICE);
	assert_counts(&marks);
	page_marks_set(&marks, 0x200, 0x100, HYPERPS_FRAME_MONITOR);
	page_marks_set(&marks, 0xfff, ~0ULL, HYPERPS_FRAME_MONITOR);
	page_marks_set(&marks, ~0ULL, ~0ULL, HYPERPS_FRAME_MONITOR);
	assert_int_equal(marks.count[HYPERPS_FRAME_MONITOR], 0x101);
	assert_counts(&marks);
	free(marks.mark);
}

static void odd_maps(void **state)
{
	static const struct boot_memory_range overlapping[] = {
		{ 0x10000, 0x10000, RESERVED, 0 }, /* listed before what it overlaps */
		{ 0, 0x100000, CONVENTIONAL, 0 },      { 0x5000, 0, RESERVED, 0 }, /* empty */
		{ 0x30800, 0x800, RESERVED, 0 }, /* half a page */
		{ 0x200800, 0x1000, CONVENTIONAL, 0 }, /* no whole page */
		{ 0x300800, 0x2000, CONVENTIONAL, 0 }, /* one whole page */
		{ ~0xfffULL, 0x10000, RESERVED, 0 }, /* wraps */
	};
	static const struct boot_memory_range huge[] = { { 0, 0x1000, CONVENTIONAL, 0 },
							 { ~0xffffULL, ~0ULL, CONVENTIONAL, 0 } };
	struct page_marks marks = build(overlapping, ARRAY_SIZE(overlapping));

	(void)state;
	assert_int_equal(page_mark_state(&marks, 0x10), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x1f), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x20), HYPERPS_FRAME_HOST);
	assert_int_equal(page_mark_state(&marks, 0x5), HYPERPS_FRAME_HOST);
	assert_int_equal(page_mark_state(&marks, 0x30), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x200), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x300), HYPERPS_FRAME_DEVICE);
	assert_int_equal(page_mark_state(&marks, 0x301), HYPERPS_FRAME_HOST);
	assert_counts(&marks);
	free(marks.mark);

	assert_int_equal(page_marks_bytes(huge, 2), PAGE_MARK_LIMIT / PAGE_SIZE * sizeof(u64));
	assert_int_equal(page_marks_bytes(huge, 0), 0);
	assert_int_equal(page_marks_bytes(overlapping, 1), 0);
}

/* What the UEFI specification calls free after ExitBootServices() is the host's, and nothing else is. */
static void types(void **state)
{
	(void)state;
	for (u32 type = 0; type < 20; type++) {
		bool is_ram = type == 1 || type == 2 || type == 3 || type == 4 || type == 7 || type == 9;
		const struct boot_memory_range map[] = { { 0, 0x2000, type, 0 }, { 0x2000, 0x1000, CONVENTIONAL, 0 } };
		struct page_marks marks = build(map, ARRAY_SIZE(map));

		assert_int_equal(page_mark_state(&marks, 1), is_ram ? HYPERPS_FRAME_HOST : HYPERPS_FRAME_DEVICE);
		assert_true(page_marks_are(&marks, 2, 1, HYPERPS_FRAME_HOST));
		assert_int_equal(page_marks_are(&marks, 1, 2, HYPERPS_FRAME_HOST), is_ram);
		assert_int_equal(page_marks_are(&marks, 1, 2, HYPERPS_FRAME_DEVICE), false);
		assert_counts(&marks);
		free(marks.mark);
	}
}

static void moves(void **state)
{
	static const struct boot_memory_range map[] = { { 0, 0x10000, CONVENTIONAL, 0 }, { 0x1000, 0x1000, 1, 0 } };
	struct page_marks marks = build(map, ARRAY_SIZE(map)); /* the range that ends highest comes first */

	(void)state;
	page_marks_move(&marks, 4, 3, HYPERPS_FRAME_HOST, HYPERPS_FRAME_TO_VM, 5, 0x77);
	for (u64 i = 0; i < 3; i++)
		assert_int_equal(marks.mark[4 + i],
				 HYPERPS_FRAME_TO_VM | 5 << MARK_VM_SHIFT | (0x77 + i) << MARK_PAGE_SHIFT);
	assert_counts(&marks);
	assert_true(page_marks_are(&marks, 4, 3, HYPERPS_FRAME_TO_VM));
	assert_false(page_marks_are(&marks, 3, 3, HYPERPS_FRAME_TO_VM));
	assert_false(page_marks_are(&marks, 4, 4, HYPERPS_FRAME_TO_VM));
	assert_true(page_marks_are(&marks, 4, 0, HYPERPS_FRAME_HOST));
	assert_false(page_marks_are(&marks, 15, 2, HYPERPS_FRAME_HOST));
	assert_false(page_marks_are(&marks, 16, 0, HYPERPS_FRAME_HOST));
	assert_false(page_marks_are(&marks, 4, ~0ULL, HYPERPS_FRAME_HOST));
	free(marks.mark);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordinary_map),
		cmocka_unit_test(odd_maps),
		cmocka_unit_test(types),
		cmocka_unit_test(moves),
	};

	return cmocka_run_group_tests_name("page_mark", tests, NULL, NULL);
}
