// SPDX-License-Identifier: MIT
#include "ranges.h"

/* Replaces the ranges [first, last) by count others; false if there is no room. */
static bool replace(struct ranges *set, u64 first, u64 last, const struct range *by, u64 count)
{
	u64 rest = set->count - last;

	if (first + count + rest > RANGES)
		return false;
	__builtin_memmove(&set->range[first + count], &set->range[last], rest * sizeof(set->range[0]));
	for (u64 i = 0; i < count; i++)
		set->range[first + i] = by[i];
	set->count = first + count + rest;
	return true;
}

bool ranges_add(struct ranges *set, u64 start, u64 end)
{
	struct range all = { start, end };
	u64 first = 0, last;

	if (start >= end)
		return true;
	while (first < set->count && set->range[first].end < start)
		first++;
	for (last = first; last < set->count && set->range[last].start <= end; last++) {
		if (set->range[last].start < all.start)
			all.start = set->range[last].start;
		if (set->range[last].end > all.end)
			all.end = set->range[last].end;
	}
	return replace(set, first, last, &all, 1);
}

bool ranges_remove(struct ranges *set, u64 start, u64 end)
{
	struct range left[2];
	u64 first = 0, last, count = 0;

	if (start >= end)
		return true;
	while (first < set->count && set->range[first].end <= start)
		first++;
	for (last = first; last < set->count && set->range[last].start < end; last++) {
		if (set->range[last].start < start)
			left[count++] = (struct range){ set->range[last].start, start };
		if (set->range[last].end > end)
			left[count++] = (struct range){ end, set->range[last].end };
	}
	return replace(set, first, last, left, count);
}

bool ranges_contain(const struct ranges *set, u64 start, u64 end)
{
	for (u64 i = 0; i < set->count; i++)
		if (set->range[i].start <= start && end <= set->range[i].end)
			return true;
	return false;
}

u64 ranges_highest(const struct ranges *set, u64 bytes, u64 limit)
{
	for (u64 i = set->count; i--;) {
		u64 start = ALIGN_UP(set->range[i].start, PAGE_SIZE), end = set->range[i].end;

		if (end > limit)
			end = limit;
		end = ALIGN_DOWN(end, PAGE_SIZE);
		if (start < end && end - start >= bytes)
			return ALIGN_DOWN(end - bytes, PAGE_SIZE);
	}
	return 0;
}
