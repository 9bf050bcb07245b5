// SPDX-License-Identifier: MIT
#include "ept.h"

#define ENTRIES 512

static unsigned level_shift(unsigned level)
{
	return PAGE_SHIFT + 9 * (level - 1);
}

static u64 level_size(unsigned level)
{
	return BIT(level_shift(level));
}

void *page_pool_take(struct page_pool *pool)
{
	u64 *page = (u64 *)(pool->linear + pool->used);

	if (pool->size - pool->used < PAGE_SIZE)
		return NULL;
	pool->used += PAGE_SIZE;
	for (unsigned i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		page[i] = 0;
	return page;
}

void *page_pool_linear(const struct page_pool *pool, hpa_t hpa)
{
	if (hpa.value < pool->base.value || hpa.value - pool->base.value >= pool->used)
		return NULL;
	return pool->linear + (hpa.value - pool->base.value);
}

hpa_t page_pool_hpa(const struct page_pool *pool, const void *page)
{
	return HPA(pool->base.value + (u64)((const u8 *)page - pool->linear));
}

u64 ept_tables_needed(unsigned physical_address_bits, bool has_1g_pages)
{
	u64 size = BIT(physical_address_bits), pages = 1;
	/* Each MTRR boundary (20 of up to 10 variable ranges, 88 fixed ones in one table) and each end of the monitor's range
	 * costs at most one page directory and one page table. */
	u64 reserve = 64;

	for (unsigned level = has_1g_pages ? 3 : 2; level <= 4; level++)
		pages += ALIGN_UP(size, level_size(level + 1)) / level_size(level + 1);
	return pages + reserve;
}

bool ept_init(struct ept *ept, struct page_pool *pool, unsigned levels, unsigned largest_leaf)
{
	*ept = (struct ept){ .pool = pool, .levels = levels, .largest_leaf = largest_leaf };
	ept->root = page_pool_take(pool);
	return ept->root;
}

/* Entry of gpa in the table of `level`; makes the tables above it. NULL: the pool is dry, or a leaf is in the way. */
static u64 *entry_at(struct ept *ept, gpa_t gpa, unsigned level)
{
	u64 *table = ept->root;

	for (unsigned l = ept->levels;; l--) {
		u64 *entry = &table[(gpa.value >> level_shift(l)) % ENTRIES];

		if (l == level)
			return entry;
		if (!*entry) {
			u64 *next = page_pool_take(ept->pool);

			if (!next)
				return NULL;
			*entry = page_pool_hpa(ept->pool, next).value | EPT_RWX;
		}
		if (*entry & EPT_LARGE)
			return NULL;
		table = page_pool_linear(ept->pool, HPA(*entry & EPT_ADDRESS));
		if (!table)
			return NULL;
	}
}

bool ept_map(struct ept *ept, gpa_t gpa, hpa_t hpa, u64 size, u64 permissions, u64 memory_type)
{
	u64 limit = BIT(level_shift(ept->levels + 1));

	if (gpa.value >= limit || size > limit - gpa.value)
		return false;
	while (size) {
		unsigned level = ept->largest_leaf;
		u64 *entry;

		while (level > 1 && (((gpa.value | hpa.value) & (level_size(level) - 1)) || size < level_size(level)))
			level--;
		entry = entry_at(ept, gpa, level);
		if (!entry || *entry)
			return false;
		*entry = hpa.value | permissions | memory_type << EPT_MEMORY_TYPE_SHIFT | (level > 1 ? EPT_LARGE : 0);
		ept->leaves[level]++;
		gpa.value += level_size(level);
		hpa.value += level_size(level);
		size -= level_size(level);
	}
	return true;
}

u64 ept_lookup(const struct ept *ept, gpa_t gpa, unsigned *level)
{
	const u64 *table = ept->root;

	*level = 0;
	if (gpa.value >= BIT(level_shift(ept->levels + 1)))
		return 0;
	for (unsigned l = ept->levels; l >= 1 && table; l--) {
		u64 entry = table[(gpa.value >> level_shift(l)) % ENTRIES];

		if (!entry)
			return 0;
		if (l == 1 || (entry & EPT_LARGE)) {
			*level = l;
			return entry;
		}
		table = page_pool_linear(ept->pool, HPA(entry & EPT_ADDRESS));
	}
	return 0;
}

u64 ept_pointer(const struct ept *ept)
{
	const u64 write_back = 6;

	return page_pool_hpa(ept->pool, ept->root).value | (ept->levels - 1ULL) << 3 | write_back;
}
