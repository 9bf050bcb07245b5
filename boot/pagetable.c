// SPDX-License-Identifier: MIT
#include "pagetable.h"
#include "boot_info.h"

#define ENTRIES 512
#define RX 0ULL
#define RO PTE_NX
#define RW (PTE_WRITE | PTE_NX)

static unsigned table_index(u64 va, unsigned level)
{
	return (va >> (PAGE_SHIFT + 9 * (level - 1))) % ENTRIES;
}

static u64 *table_at(const struct pagetable_pool *pool, u64 hpa)
{
	return (u64 *)((u8 *)pool->linear + (hpa - pool->hpa));
}

/* Takes a page and clears it. Returns its hpa, 0 if none is left. */
static u64 new_table(struct pagetable_pool *pool)
{
	u64 hpa = pool->hpa + pool->used * PAGE_SIZE;

	if (pool->used == pool->pages)
		return 0;
	pool->used++;
	for (unsigned i = 0; i < ENTRIES; i++)
		table_at(pool, hpa)[i] = 0;
	return hpa;
}

/*
 * Maps [va, va + size) to [hpa, hpa + size) with pages of page_size (4 KiB or 2 MiB); all are multiples of it.
 * Accessed, and dirty where writable, are preset, so that no walk writes to the tables.
 */
static bool map(struct pagetable_pool *pool, u64 pml4, u64 va, u64 hpa, u64 size, u64 page_size, u64 flags)
{
	unsigned leaf = page_size == PAGE_SIZE_2M ? 2 : 1;

	if ((va | hpa | size) & (page_size - 1))
		return false;
	if (flags & PTE_WRITE)
		flags |= PTE_DIRTY;
	if (leaf == 2)
		flags |= PTE_LARGE;
	for (u64 offset = 0; offset < size; offset += page_size) {
		u64 *table = table_at(pool, pml4);

		for (unsigned level = 4; level > leaf; level--) {
			u64 *entry = &table[table_index(va + offset, level)];

			if (!*entry) {
				u64 next = new_table(pool);

				if (!next)
					return false;
				*entry = next | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED;
			}
			table = table_at(pool, *entry & PTE_ADDRESS);
		}
		table[table_index(va + offset, leaf)] = (hpa + offset) | flags | PTE_PRESENT | PTE_ACCESSED;
	}
	return true;
}

static u64 smaller(u64 a, u64 b)
{
	return a < b ? a : b;
}

u64 pagetable_pages(u64 region_size, u64 small_size)
{
	u64 small = smaller(region_size, small_size);

	/* PML4, PDPT, page directory and table of the APIC's page, then the region's directories and tables. */
	return 4 + ALIGN_UP(region_size, PAGE_SIZE_1G) / PAGE_SIZE_1G + small / PAGE_SIZE_2M;
}

u64 pagetable_build_final(struct pagetable_pool *pool, const struct pagetable_layout *l)
{
	u64 small = smaller(l->region_size, l->small_size);
	u64 pml4;

	if (l->region_size > PAGETABLE_REGION_MAX || (l->region_base | l->region_size | small) % PAGE_SIZE_2M ||
	    l->text_end > l->rodata_end || l->rodata_end > small)
		return 0;
	pml4 = new_table(pool);
	if (!pml4)
		return 0;
	if (!map(pool, pml4, MONITOR_VA, l->region_base, l->text_end, PAGE_SIZE, RX) ||
	    !map(pool, pml4, MONITOR_VA + l->text_end, l->region_base + l->text_end, l->rodata_end - l->text_end,
		 PAGE_SIZE, RO) ||
	    !map(pool, pml4, MONITOR_VA + l->rodata_end, l->region_base + l->rodata_end, small - l->rodata_end,
		 PAGE_SIZE, RW) ||
	    !map(pool, pml4, MONITOR_VA + small, l->region_base + small, l->region_size - small, PAGE_SIZE_2M, RW) ||
	    !map(pool, pml4, MONITOR_APIC_VA, l->apic, PAGE_SIZE, PAGE_SIZE, RW | PTE_PCD | PTE_PWT) ||
	    !map(pool, pml4, MONITOR_TRAMPOLINE_DATA_VA, l->trampoline + PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, RW))
		return 0;
	return pml4;
}

u64 pagetable_build_boot(struct pagetable_pool *pool, const struct pagetable_layout *l, const u64 *final_pml4)
{
	u64 pml4 = new_table(pool);

	if (!pml4 || !map(pool, pml4, l->trampoline, l->trampoline, PAGE_SIZE, PAGE_SIZE, RX) ||
	    !map(pool, pml4, l->trampoline + PAGE_SIZE, l->trampoline + PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, RW))
		return 0;
	table_at(pool, pml4)[table_index(MONITOR_VA, 4)] = final_pml4[table_index(MONITOR_VA, 4)];
	return pml4;
}

u64 pagetable_ept_pages(unsigned physical_address_bits, bool has_1g_pages)
{
	u64 size = BIT(physical_address_bits), pages = 1;
	/*
	 * Each MTRR boundary (20 of up to 10 variable ranges, 88 fixed ones in one table) and each end of the monitor's
	 * range costs at most one page directory and one page table.
	 */
	u64 reserve = 64;

	/* What a table of each level maps: 1 GiB by a page directory, and so on. */
	for (unsigned shift = has_1g_pages ? 39 : 30; shift <= 48; shift += 9)
		pages += ALIGN_UP(size, BIT(shift)) >> shift;
	return pages + reserve;
}
