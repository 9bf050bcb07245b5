/* SPDX-License-Identifier: MIT */
/* Sets of addresses, as sorted ranges that don't touch each other. Pure. */
#ifndef RANGES_H
#define RANGES_H

#include "types.h"

#define RANGES 64

struct range {
	u64 start, end; /* end: the first address behind it */
};

struct ranges {
	u64 count;
	struct range range[RANGES];
};

/* Adds or takes out [start, end). False if that would need more than RANGES; the set is then as it was. */
bool ranges_add(struct ranges *set, u64 start, u64 end);
bool ranges_remove(struct ranges *set, u64 start, u64 end);

bool ranges_contain(const struct ranges *set, u64 start, u64 end);

/* The highest page-aligned address of free bytes below limit; 0 if there are none. */
u64 ranges_highest(const struct ranges *set, u64 bytes, u64 limit);

#endif
