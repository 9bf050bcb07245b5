// SPDX-License-Identifier: MIT
#include "ept.h"
#include "cache.h"

#define ENTRIES 512

static unsigned level_shift(unsigned level)
{
	return PAGE_SHIFT + 9 * (level - 1);
}

u64 ept_level_size(unsigned level)
{
	return BIT(level_shift(level));
}

bool ept_init(struct ept *ept, struct page_pool *pool, unsigned levels, unsigned largest_leaf)
{
	*ept = (struct ept){ .pool = pool, .levels = levels, .largest_leaf = largest_leaf };
	ept->root = page_pool_take(pool);
	return ept->root;
}

/* A pending leaf has bits 2:0 clear, so an entry with any of them that is no leaf points to a table. */
static bool is_table(u64 entry, unsigned level)
{
	return level > 1 && (entry & EPT_RWX) && !(entry & EPT_LARGE);
}

static u64 *table_of(const struct ept *ept, u64 entry)
{
	return page_pool_linear(ept->pool, HPA(entry & EPT_ADDRESS));
}

/* The entry for gpa in the lowest table that there is, down to that of `last`. *level: that table's. */
static inline u64 *walk(const struct ept *ept, gpa_t gpa, unsigned last, unsigned *level)
{
	u64 *table = ept->root, *entry;

	for (*level = ept->levels;; --*level) {
		entry = &table[(gpa.value >> level_shift(*level)) % ENTRIES];
		if (*level == last || !is_table(*entry, *level))
			return entry;
		table = table_of(ept, *entry);
	}
}

/*
 * What has changed in a table reaches memory before what changes next: a DMA-remapping unit may read tables past the caches
 * (docs/dma.md).
 */
static void changed(const struct ept *ept, const u64 *entry, u64 count)
{
	if (ept->write_back)
		write_back(entry, count * sizeof(*entry));
}

/* Replaces a leaf of `level` by a table of leaves that map the same, or an empty entry by an empty table. */
static bool split(struct ept *ept, u64 *entry, unsigned level)
{
	u64 *table = page_pool_take(ept->pool);
	u64 large = level - 1 > 1 ? EPT_LARGE : 0;

	if (!table)
		return false;
	if (*entry) {
		for (u64 i = 0; i < ENTRIES; i++)
			table[i] = (*entry & ~EPT_LARGE) + i * ept_level_size(level - 1) + large;
		ept->leaves[level]--;
		ept->leaves[level - 1] += ENTRIES;
	}
	changed(ept, table, ENTRIES);
	*entry = page_pool_hpa(ept->pool, table).value | EPT_RWX;
	changed(ept, entry, 1);
	return true;
}

u64 *ept_entry(struct ept *ept, gpa_t gpa, unsigned level)
{
	u64 *entry;
	unsigned found;

	do
		entry = walk(ept, gpa, level, &found);
	while (found > level && split(ept, entry, found));
	return found == level ? entry : NULL;
}

/* The table to which this entry pointed goes back to the pool. */
static void put_table(struct ept *ept, u64 entry)
{
	page_pool_put(ept->pool, (entry & EPT_ADDRESS) >> PAGE_SHIFT);
}

void ept_set_entry(struct ept *ept, u64 *entry, unsigned level, u64 value)
{
	u64 old = *entry, *table = is_table(old, level) ? table_of(ept, old) : NULL;

	/* Only a page table: what is larger than 2 MiB is never replaced as a whole. */
	for (unsigned i = 0; table && i < ENTRIES; i++) {
		ept->leaves[1] -= table[i] != 0;
		/* Whoever still knows the table, a device has no second try, finds there what takes its place. */
		if (value)
			table[i] = (value & ~EPT_LARGE) + i * PAGE_SIZE;
	}
	if (table)
		changed(ept, table, ENTRIES);
	*entry = value;
	changed(ept, entry, 1);
	ept->leaves[level] += value != 0;
	if (table)
		put_table(ept, old);
	else
		ept->leaves[level] -= old != 0;
}

/* The entry that points to the table of `level` for gpa; NULL if there is no such table. */
static u64 *parent_entry(const struct ept *ept, gpa_t gpa, unsigned level)
{
	u64 *entry = walk(ept, gpa, level + 1, &level);

	return is_table(*entry, level) ? entry : NULL;
}

bool ept_merge(struct ept *ept, gpa_t gpa, unsigned level)
{
	u64 *entry = parent_entry(ept, gpa, level), *table, first;

	if (!entry || level + 1 > ept->largest_leaf)
		return false;
	table = table_of(ept, *entry);
	first = table[0];
	if (!first || is_table(first, level) || (first & EPT_ADDRESS & (ept_level_size(level + 1) - 1)))
		return false;
	for (u64 i = 1; i < ENTRIES; i++)
		if (table[i] != first + i * ept_level_size(level))
			return false;
	put_table(ept, *entry);
	*entry = first | EPT_LARGE;
	changed(ept, entry, 1);
	ept->leaves[level] -= ENTRIES;
	ept->leaves[level + 1]++;
	return true;
}

void ept_drop_table(struct ept *ept, gpa_t gpa, unsigned level)
{
	u64 *entry = parent_entry(ept, gpa, level);

	if (!entry)
		return;
	put_table(ept, *entry);
	*entry = 0;
	changed(ept, entry, 1);
}

gpa_t ept_next(const struct ept *ept, gpa_t from, u64 *budget, bool *found)
{
	u64 limit = BIT(level_shift(ept->levels + 1));

	*found = false;
	for (const u64 *first = NULL; *budget && from.value < limit; --*budget) {
		unsigned level;
		const u64 *entry = walk(ept, from, 1, &level);

		*found = *entry;
		if (*found || (first && ((u64)entry ^ (u64)first) / PAGE_SIZE))
			break;
		first = entry;
		from.value = ALIGN_DOWN(from.value, ept_level_size(level)) + ept_level_size(level);
	}
	return from;
}

u64 ept_in_table(gpa_t gpa, u64 count)
{
	u64 left = ENTRIES - gpa.value / PAGE_SIZE % ENTRIES;

	return count < left ? count : left;
}

bool ept_is_empty(const struct ept *ept, gpa_t gpa, u64 count)
{
	for (u64 n; count; count -= n, gpa.value += n * PAGE_SIZE) {
		unsigned level;
		const u64 *entry = walk(ept, gpa, 1, &level);
		u64 any = 0, entries;

		n = ept_in_table(gpa, count);
		entries = level == 1 ? n : 1;
#pragma GCC unroll 8
		for (u64 i = 0; i < entries; i++)
			any |= entry[i];
		if (any)
			return false;
	}
	return true;
}

void ept_set_run(struct ept *ept, gpa_t gpa, u64 count, u64 value)
{
	u64 *entry = ept_entry(ept, gpa, 1), step = value ? PAGE_SIZE : 0;

	ept->leaves[1] -= *entry ? count : 0;
	ept->leaves[1] += value ? count : 0;
#pragma GCC unroll 8
	for (u64 i = 0; i < count; i++, value += step)
		entry[i] = value;
	changed(ept, entry, count);
}

struct ept_run ept_run(const struct ept *ept, gpa_t gpa, u64 limit)
{
	struct ept_run run;
	const u64 *entry = walk(ept, gpa, 1, &run.level);
	u64 first = gpa.value % ept_level_size(run.level) / PAGE_SIZE, count;

	if (gpa.value >= BIT(level_shift(ept->levels + 1)) || !*entry)
		return (struct ept_run){ 0 };
	run.entry = *entry;
	run.frame = (run.entry & EPT_ADDRESS) / PAGE_SIZE + first;
	if (run.level == 1) {
		count = ept_in_table(gpa, limit);
		for (run.frames = 1; run.frames < count; run.frames++)
			if (entry[run.frames] != run.entry + run.frames * PAGE_SIZE)
				break;
	} else {
		count = ept_level_size(run.level) / PAGE_SIZE - first;
		run.frames = count < limit ? count : limit;
	}
	return run;
}

u64 ept_pointer(const struct ept *ept)
{
	return page_pool_hpa(ept->pool, ept->root).value | EPTP_FLAGS(ept->levels);
}
