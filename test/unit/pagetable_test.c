// SPDX-License-Identifier: MIT
/*
 * The loader's page-table builder, boot/pagetable.c, against fake memory and a page walker of its own:
 *   gcc -std=gnu11 -g -fsanitize=address,undefined -Iinclude -Iboot test/unit/pagetable_test.c boot/pagetable.c
 * -lcmocka
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "boot_info.h"
#include "pagetable.h"

#define LOW_BASE 0x88000ULL
#define APIC 0xfee00000ULL
#define ENTRIES 512

/* Two pieces of fake physical memory: the tables in the region, and those in the low pages. */
static struct pagetable_pool pool, low_pool;

static const u64 *table_at(u64 hpa)
{
	const struct pagetable_pool *p =
		hpa >= low_pool.hpa && hpa < low_pool.hpa + low_pool.pages * PAGE_SIZE ? &low_pool : &pool;

	assert_true(hpa >= p->hpa && hpa < p->hpa + p->used * PAGE_SIZE);
	return (const u64 *)((const char *)p->linear + (hpa - p->hpa));
}

static void take_pool(struct pagetable_pool *p, u64 hpa, u64 pages)
{
	*p = (struct pagetable_pool){ aligned_alloc(PAGE_SIZE, pages * PAGE_SIZE), hpa, pages, 0 };
	memset(p->linear, 0xa5, pages * PAGE_SIZE); /* the builder must not rely on zeros */
}

static int free_pools(void **state)
{
	(void)state;
	free(pool.linear);
	free(low_pool.linear);
	pool.linear = low_pool.linear = NULL;
	return 0;
}

/* What the address map says of a linear address of the slot: its hpa and flags; false if it must not be mapped. */
static bool expected(const struct pagetable_layout *l, u64 va, u64 *hpa, u64 *flags)
{
	u64 offset = va - MONITOR_VA;

	*flags = PTE_PRESENT | PTE_ACCESSED | PTE_WRITE | PTE_DIRTY | PTE_NX;
	if (va == MONITOR_APIC_VA) {
		*hpa = l->apic;
		*flags |= PTE_PCD | PTE_PWT;
		return true;
	}
	if (va == MONITOR_TRAMPOLINE_DATA_VA) {
		*hpa = l->trampoline + PAGE_SIZE;
		return true;
	}
	if (offset >= l->region_size)
		return false;
	*hpa = l->region_base + offset;
	if (offset < l->text_end)
		*flags = PTE_PRESENT | PTE_ACCESSED;
	else if (offset < l->rodata_end)
		*flags = PTE_PRESENT | PTE_ACCESSED | PTE_NX;
	else if (offset >= l->small_size)
		*flags |= PTE_LARGE;
	return true;
}

struct walk {
	u64 mapped; /* bytes in the monitor's slot */
	u64 low_code, low_data; /* leaf entries of the low pages at their own addresses */
};

static void check_leaf(const struct pagetable_layout *l, u64 va, u64 entry, u64 size, struct walk *walk)
{
	u64 hpa, flags;

	assert_false((entry & PTE_WRITE) && !(entry & PTE_NX));
	assert_int_equal(entry & BIT(8), 0); /* global */
	assert_int_equal(entry & BIT(2), 0); /* user */
	if (va == LOW_BASE) {
		walk->low_code = entry;
	} else if (va == LOW_BASE + PAGE_SIZE) {
		walk->low_data = entry;
	} else {
		assert_true(expected(l, va, &hpa, &flags));
		assert_int_equal(entry, hpa | flags);
		walk->mapped += size;
	}
}

static void walk_table(const struct pagetable_layout *l, u64 table, unsigned level, u64 va, struct walk *walk)
{
	u64 size = 1ULL << (PAGE_SHIFT + 9 * (level - 1));

	for (unsigned i = 0; i < ENTRIES; i++) {
		u64 entry = table_at(table)[i], at = va + i * size;

		if (level == 4 && i >= ENTRIES / 2)
			at |= 0xffff000000000000ULL;
		if (!entry)
			continue;
		assert_true(entry & PTE_PRESENT);
		if (level == 1 || (entry & PTE_LARGE)) {
			assert_true(level <= 2);
			check_leaf(l, at, entry, size, walk);
		} else {
			walk_table(l, entry & PTE_ADDRESS, level - 1, at, walk);
		}
	}
}

static void check(u64 region_base, u64 region_size, u64 text_end, u64 rodata_end, u64 small_size)
{
	struct pagetable_layout l = { region_base, region_size, text_end, rodata_end, APIC, LOW_BASE, small_size };
	struct walk final = { 0 }, boot = { 0 };
	u64 pml4, boot_pml4;

	take_pool(&pool, region_base + (2 << 20) - PAGE_SIZE, pagetable_pages(region_size, small_size));
	take_pool(&low_pool, LOW_BASE + 2 * PAGE_SIZE, PAGETABLE_BOOT_PAGES);
	pml4 = pagetable_build_final(&pool, &l);
	assert_int_equal(pml4, pool.hpa);
	assert_int_equal(pool.used, pool.pages); /* pagetable_pages() is exact */

	for (unsigned i = 0; i < ENTRIES; i++)
		assert_int_equal(table_at(pml4)[i] != 0, i == 480);
	walk_table(&l, pml4, 4, 0, &final);
	assert_int_equal(final.mapped, region_size + 2 * PAGE_SIZE);
	assert_int_equal(final.low_code | final.low_data, 0);

	boot_pml4 = pagetable_build_boot(&low_pool, &l, table_at(pml4));
	assert_int_equal(boot_pml4, low_pool.hpa);
	assert_int_equal(low_pool.used, PAGETABLE_BOOT_PAGES);
	walk_table(&l, boot_pml4, 4, 0, &boot);
	assert_int_equal(boot.mapped, final.mapped);
	assert_int_equal(boot.low_code, LOW_BASE | PTE_PRESENT | PTE_ACCESSED);
	assert_int_equal(boot.low_data,
			 (LOW_BASE + PAGE_SIZE) | PTE_PRESENT | PTE_ACCESSED | PTE_WRITE | PTE_DIRTY | PTE_NX);
	free_pools(NULL);
}

static void regions(void **state)
{
	(void)state;
	check(0x10000000, 2 << 20, PAGE_SIZE, 2 * PAGE_SIZE, PAGETABLE_SMALL_PAGES);
	check(0x10000000, 4 << 20, 0x11000, 0x15000, PAGETABLE_SMALL_PAGES);
	check(0x10000000, 16 << 20, PAGE_SIZE, PAGE_SIZE, PAGETABLE_SMALL_PAGES); /* no read-only data */
	check(0x3fe00000, 18 << 20, 0x200000, 0x201000, PAGETABLE_SMALL_PAGES); /* crosses a GiB of physical memory */
	check(0x1fe00000, (1ULL << 30) + (2 << 20), 0x3000, 16 << 20, PAGETABLE_SMALL_PAGES);
	check(0x1fe00000, 256 << 20, 0x3000, 0x5000, 104 << 20);
	check(0x7fffffe00000, 64ULL << 30, 0x3000, 0x5000, PAGETABLE_SMALL_PAGES);
	check(0x100000000, PAGETABLE_REGION_MAX, 0x3000, 0x5000, PAGETABLE_SMALL_PAGES);
}

static void bad_layouts(void **state)
{
	const struct pagetable_layout good = { 0x10000000,           4 << 20, 0x1000, 0x2000, APIC, LOW_BASE,
					       PAGETABLE_SMALL_PAGES };
	struct pagetable_layout bad[10];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].region_base += PAGE_SIZE;
	bad[1].region_size += PAGE_SIZE;
	bad[2].region_size = PAGETABLE_REGION_MAX + (2 << 20);
	bad[3].text_end = 0x3000;
	bad[4].rodata_end = 6 << 20;
	bad[5].text_end = 0x800;
	bad[6].rodata_end = 0x1800;
	bad[7].apic += 8;
	bad[8].trampoline += 8;
	bad[9].small_size = 3 << 20;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		take_pool(&pool, 0x10001000, 1024);
		assert_int_equal(pagetable_build_final(&pool, &bad[i]), 0);
		free_pools(NULL);
	}
}

static void small_pools(void **state)
{
	const struct pagetable_layout l = {
		0x10000000, 20 << 20, 0x1000, 0x2000, APIC, LOW_BASE, PAGETABLE_SMALL_PAGES
	};
	u64 final[ENTRIES] = { 0 };

	(void)state;
	for (u64 pages = 1; pages < pagetable_pages(l.region_size, l.small_size); pages++) {
		take_pool(&pool, 0x10001000, pages);
		assert_int_equal(pagetable_build_final(&pool, &l), 0);
		free_pools(NULL);
	}
	for (u64 pages = 1; pages < PAGETABLE_BOOT_PAGES; pages++) {
		take_pool(&low_pool, LOW_BASE + 2 * PAGE_SIZE, pages);
		assert_int_equal(pagetable_build_boot(&low_pool, &l, final), 0);
		free_pools(NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(regions, free_pools),
		cmocka_unit_test_teardown(bad_layouts, free_pools),
		cmocka_unit_test_teardown(small_pools, free_pools),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
