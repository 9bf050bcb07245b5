// SPDX-License-Identifier: MIT
#include "page_mark.h"

void page_mark_set(struct page_marks *marks, u64 frame, u64 state, u64 vm, u64 page)
{
	marks->count[marks->mark[frame] & MARK_STATE]--;
	marks->mark[frame] = state | vm << MARK_VM_SHIFT | page << MARK_PAGE_SHIFT;
	marks->count[state]++;
}

void page_marks_move(struct page_marks *marks, u64 frame, u64 count, u64 from, u64 to, u64 vm, u64 page)
{
	u64 value = to | vm << MARK_VM_SHIFT | page << MARK_PAGE_SHIFT;

#pragma GCC unroll 8
	for (u64 i = frame; i < frame + count; i++, value += BIT(MARK_PAGE_SHIFT))
		marks->mark[i] = value;
	marks->count[from] -= count;
	marks->count[to] += count;
}

u64 page_marks_same(const struct page_marks *marks, u64 frame, u64 count)
{
	u64 same = 1;

	while (same < count && !((marks->mark[frame] ^ marks->mark[frame + same]) & MARK_STATE))
		same++;
	return same;
}

bool page_marks_are(const struct page_marks *marks, u64 frame, u64 count, u64 state)
{
	u64 all = MARK_STATE, any = 0;

	if (frame >= marks->frames || count > marks->frames - frame)
		return false;
#pragma GCC unroll 8
	for (u64 i = frame; i < frame + count; i++) {
		all &= marks->mark[i];
		any |= marks->mark[i];
	}
	return !count || (all == state && (any & MARK_STATE) == state);
}

void page_marks_name(struct page_marks *marks, u64 frame, u64 count, u64 generation)
{
	for (u64 i = frame; i < frame + count; i++)
		if (page_mark_state(marks, i) == HYPERPS_FRAME_HOST)
			marks->mark[i] = (marks->mark[i] & ~(MARK_SHADOW << MARK_SHADOW_SHIFT)) |
					 generation << MARK_SHADOW_SHIFT;
}

bool page_marks_are_named(const struct page_marks *marks, u64 frame, u64 count, u64 generation)
{
#pragma GCC unroll 8
	for (u64 i = frame; i < frame + count; i++)
		if (marks->mark[i] >> MARK_SHADOW_SHIFT == generation)
			return true;
	return false;
}

u64 page_mark_state(const struct page_marks *marks, u64 frame)
{
	return frame < marks->frames ? marks->mark[frame] & MARK_STATE : HYPERPS_FRAME_DEVICE;
}
