// SPDX-License-Identifier: MIT
/* mm/page_mark.c and boot/host_view.c: odd memory maps, ends of the table, and that the counters always agree with the marks. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "host_view.h"
#include "manager.h"
#include "memory_type.h"

#define RESERVED 0
#define CONVENTIONAL 7
#define RUNTIME_DATA 6
#define ACPI_NVS 10
#define MMIO 11

/* All of it write-back, but for 64 KiB that some tests leave out of their map. */
#define BITS 40
#define UNCACHED 0x50000ULL
static const struct mtrr_state mtrr = {
	.capability = 1,
	.msr = { [MTRR_BASE(0)] = UNCACHED | MEMORY_TYPE_UC,
		 [MTRR_MASK(0)] = (BIT(BITS) - 0x10000) | MTRR_MASK_VALID,
		 [MTRR_DEFAULT] = MTRR_ENABLE | MEMORY_TYPE_WB },
};

static struct page_marks build(const struct boot_memory_range *ranges, u32 count)
{
	struct page_marks marks;
	u64 bytes = page_marks_bytes(ranges, count);
	u64 *table = aligned_alloc(PAGE_SIZE, bytes + PAGE_SIZE);

	/* A guard behind the table: it must stay as it is. */
	for (u64 i = 0; i < (bytes + PAGE_SIZE) / sizeof(u64); i++)
		table[i] = 0xdeadbeef;
	page_marks_init(&marks, table, ranges, count, &mtrr, BITS);
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
	assert_int_equal(page_mark_state(&marks, 0x4f), HYPERPS_FRAME_HOST);
	assert_true(page_marks_are(&marks, UNCACHED / PAGE_SIZE, 0x10, HYPERPS_FRAME_DEVICE));
	assert_int_equal(page_mark_state(&marks, 0x60), HYPERPS_FRAME_HOST);
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

#define REGION 0x10000000ULL /* where the test can have memory at the address that stands for the physical one */
#define REGION_SIZE 0x800000ULL
#define LOW 0x8a000ULL
#define LOW_SIZE 0x6000ULL
#define POOL 0x100000ULL /* its offset in the region */
#define RAM_END 0x20000000ULL
#define KVM_POOL 0x1c000000ULL
#define KVM_POOL_SIZE 0x600000ULL
#define DEVICES 0x1fff0000ULL

/*
 * The view that the loader leaves to the monitor, whose pages will be at other addresses then. The last range is a device's
 * (RMRR), in RAM that is the host's otherwise.
 */
static void check_view(unsigned largest_leaf, u64 kvm_pool_size)
{
	static const struct boot_memory_range map[] = { { 0, 0xa0000, CONVENTIONAL, 0 },
							{ 0x100000, RAM_END - 0x100000, CONVENTIONAL, 0 },
							{ DEVICES, 0x3000, 0, 0 } };
	struct vmx_capabilities capabilities = { .physical_address_bits = BITS, .ept_levels = 4 };
	struct boot_info *info = (struct boot_info *)(REGION + 0x1000);
	u64 *table = (u64 *)(REGION + 0x2000), leaves[4] = { 0 };
	struct ept ept;
	struct page_pool pool;

	assert_ptr_equal(mmap((void *)REGION, REGION_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 (void *)REGION);
	assert_true(0x2000 + page_marks_bytes(map, 2) <= POOL + REGION_SIZE / 4);
	*info = (struct boot_info){ .region_base = REGION,
				    .region_size = REGION_SIZE,
				    .free = REGION_SIZE - PAGE_SIZE,
				    .low_base = LOW,
				    .low_size = LOW_SIZE,
				    .kvm_pool_base = kvm_pool_size ? KVM_POOL : 0,
				    .kvm_pool_size = kvm_pool_size,
				    .mtrr = mtrr };
	assert_false(host_view_build(info, &capabilities, largest_leaf, table, map, 1)); /* above all RAM */
	assert_false(host_view_build(info, &capabilities, largest_leaf, table, map, 3)); /* no room */
	info->free = POOL + REGION_SIZE / 4;
	if (kvm_pool_size) {
		info->kvm_pool_base = RAM_END - PAGE_SIZE;
		assert_false(
			host_view_build(info, &capabilities, largest_leaf, table, map, 3)); /* its end has no marks */
		info->kvm_pool_base = KVM_POOL;
	}
	assert_true(host_view_build(info, &capabilities, largest_leaf, table, map, 3));

	assert_ptr_equal(info->pool.linear, (void *)MONITOR_VA);
	assert_ptr_equal(info->marks.mark, (void *)(MONITOR_VA + 0x2000));
	assert_ptr_equal(info->pool.marks, (void *)((u64)&info->marks - REGION + MONITOR_VA));
	assert_ptr_equal(info->host_view.pool, (void *)((u64)&info->pool - REGION + MONITOR_VA));
	pool = info->pool;
	pool.linear = (u8 *)REGION;
	ept = info->host_view;
	ept.pool = &pool;
	ept.root = (u64 *)((u64)ept.root - MONITOR_VA + REGION);
	info->marks.mark = table;
	assert_counts(&info->marks);
	for (u64 address = 0; address < BIT(BITS);) {
		struct ept_run run = ept_run(&ept, GPA(address), 1);
		u64 size = run.level ? ept_level_size(run.level) : PAGE_SIZE, type = MEMORY_TYPE_WB;
		bool own = address - REGION < REGION_SIZE || address - LOW < LOW_SIZE ||
			   address - KVM_POOL < kvm_pool_size;

		if (address - UNCACHED < 0x10000)
			type = MEMORY_TYPE_UC;
		assert_int_equal(run.entry, own ? 0
						: address | type << EPT_MEMORY_TYPE_SHIFT | EPT_RWX |
							    (run.level > 1 ? EPT_LARGE : 0));
		if (address < RAM_END)
			assert_int_equal(page_mark_state(&info->marks, address / PAGE_SIZE) == HYPERPS_FRAME_MONITOR,
					 own);
		leaves[run.level]++;
		address += size;
	}
	for (unsigned level = 1; level < 4; level++)
		assert_int_equal(leaves[level], ept.leaves[level]);
	assert_int_equal(ept.leaves[3], largest_leaf == 3 ? BIT(BITS - 30) - 1 : 0);
	assert_int_equal(ept.largest_leaf, largest_leaf);
	for (u64 frame = DEVICES / PAGE_SIZE - 1; frame <= DEVICES / PAGE_SIZE + 3; frame++)
		assert_int_equal(page_mark_state(&info->marks, frame),
				 frame - DEVICES / PAGE_SIZE < 3 ? HYPERPS_FRAME_DEVICE : HYPERPS_FRAME_HOST);
	munmap((void *)REGION, REGION_SIZE);
}

static void view(void **state)
{
	(void)state;
	check_view(3, 0);
	check_view(3, KVM_POOL_SIZE);
	check_view(2, 0); /* where a DMA-remapping unit has no 1 GiB pages */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordinary_map), cmocka_unit_test(odd_maps), cmocka_unit_test(types),
		cmocka_unit_test(moves),        cmocka_unit_test(view),
	};

	return cmocka_run_group_tests_name("page_mark", tests, NULL, NULL);
}
