// SPDX-License-Identifier: MIT
#include "memory_type.h"

#define FIXED_END 0x100000ULL

/*
 * The 88 fixed ranges: 8 of 64 KiB, 16 of 16 KiB, 64 of 4 KiB; eight to a register, lowest address in the lowest byte.
 */
static u64 fixed_type(const struct mtrr_state *mtrr, u64 address, u64 *end)
{
	bool is_64k = address < 0x80000, is_16k = !is_64k && address < 0xc0000;
	u64 size = is_64k ? 0x10000 : is_16k ? 0x4000 : 0x1000;
	u64 index = (address - (is_64k ? 0 : is_16k ? 0x80000 : 0xc0000)) / size;

	*end = ALIGN_DOWN(address, size) + size;
	return mtrr->msr[(is_64k   ? MTRR_FIX64K
			  : is_16k ? MTRR_FIX16K
				   : MTRR_FIX4K) +
			 index / 8] >>
		       (index % 8 * 8) &
	       0xff;
}

/*
 * Overlapping ranges: uncacheable wins, then write-through over write-back; other mixtures are undefined and count as
 * UC.
 */
static u64 combine(u64 a, u64 b)
{
	if (a == b)
		return a;
	if ((a == MEMORY_TYPE_WT && b == MEMORY_TYPE_WB) || (a == MEMORY_TYPE_WB && b == MEMORY_TYPE_WT))
		return MEMORY_TYPE_WT;
	return MEMORY_TYPE_UC;
}

u64 memory_type_at(const struct mtrr_state *mtrr, unsigned bits, hpa_t hpa, u64 *end)
{
	u64 address = hpa.value, top = BIT(bits), type = MEMORY_TYPE_UC;
	u64 count = mtrr->capability & MTRRCAP_COUNT;
	bool found = false;

	*end = top;
	if (!(mtrr->msr[MTRR_DEFAULT] & MTRR_ENABLE))
		return MEMORY_TYPE_UC;
	if ((mtrr->capability & MTRRCAP_FIXED) && (mtrr->msr[MTRR_DEFAULT] & MTRR_FIXED_ENABLE) &&
	    address < FIXED_END) {
		type = fixed_type(mtrr, address, end);
		return memory_type_is_defined(type) ? type : MEMORY_TYPE_UC;
	}
	for (u64 i = 0; i < count && i < MTRR_VARIABLE_MAX; i++) {
		u64 mask = mtrr->msr[MTRR_MASK(i)] & (top - 1) & ~(PAGE_SIZE - 1);
		u64 base, size, next, range_type = mtrr->msr[MTRR_BASE(i)] & 0xff;

		if (!(mtrr->msr[MTRR_MASK(i)] & MTRR_MASK_VALID) || !mask)
			continue;
		/*
		 * Firmware that counts fewer address bits than the CPU has (memory encryption takes some) means all the
		 * upper ones.
		 */
		mask |= (top - 1) & -(1ULL << (63 - __builtin_clzll(mask)));
		base = mtrr->msr[MTRR_BASE(i)] & mask;
		/*
		 * The type can change only at a multiple of the mask's lowest bit. In a mask without holes, which is
		 * all that firmware uses, those are the range's two ends; with holes the ranges recur and each multiple
		 * is looked at.
		 */
		size = mask & -mask;
		next = ALIGN_DOWN(address, size) + size;
		if ((address & mask) == base) {
			type = found ? combine(type, range_type) : range_type;
			found = true;
		} else if (mask == top - size) {
			next = base > address ? base : *end;
		}
		if (next < *end)
			*end = next;
	}
	if (!found)
		type = mtrr->msr[MTRR_DEFAULT] & MTRR_DEF_TYPE;
	return memory_type_is_defined(type) ? type : MEMORY_TYPE_UC;
}
