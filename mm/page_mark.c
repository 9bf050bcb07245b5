// SPDX-License-Identifier: MIT
#include "page_mark.h"

/*
 * EFI_MEMORY_TYPE (UEFI specification, "Memory Type Usage after ExitBootServices()"): what an operating system may use
 * freely. Code and data of the loader, code and data of boot services, conventional memory, ACPI reclaim memory.
 */
#define USABLE_TYPES (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(7) | BIT(9))

static bool is_usable(const struct boot_memory_range *range)
{
	return range->type < 64 && (USABLE_TYPES & BIT(range->type));
}

/* End of a range, in bytes; a range that wraps ends at the top. */
static u64 range_end(const struct boot_memory_range *range)
{
	return range->size > ~0ULL - range->base ? ~0ULL : range->base + range->size;
}

static u64 frames_needed(const struct boot_memory_range *ranges, u32 count)
{
	u64 top = 0;

	for (u32 i = 0; i < count; i++)
		if (is_usable(&ranges[i]) && range_end(&ranges[i]) > top)
			top = range_end(&ranges[i]);
	return (top < PAGE_MARK_LIMIT ? top : PAGE_MARK_LIMIT) >> PAGE_SHIFT;
}

u64 page_marks_bytes(const struct boot_memory_range *ranges, u32 count)
{
	return ALIGN_UP(frames_needed(ranges, count) * sizeof(u64), PAGE_SIZE);
}

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

void page_marks_set(struct page_marks *marks, u64 frame, u64 count, u64 state)
{
	if (frame >= marks->frames)
		return;
	if (count > marks->frames - frame)
		count = marks->frames - frame;
	for (u64 i = frame; i < frame + count; i++) {
		marks->count[marks->mark[i] & MARK_STATE]--;
		marks->mark[i] = state;
	}
	marks->count[state] += count;
}

void page_marks_init(struct page_marks *marks, u64 *table, const struct boot_memory_range *ranges, u32 count)
{
	*marks = (struct page_marks){ .mark = table, .frames = frames_needed(ranges, count) };
	for (u64 i = 0; i < marks->frames; i++)
		table[i] = HYPERPS_FRAME_DEVICE;
	marks->count[HYPERPS_FRAME_DEVICE] = marks->frames;
	/* Whole pages of RAM first; then whatever touches something else is taken back. */
	for (u32 i = 0; i < count; i++) {
		u64 first = ranges[i].base / PAGE_SIZE + (ranges[i].base % PAGE_SIZE != 0);
		u64 end = range_end(&ranges[i]) / PAGE_SIZE;

		if (is_usable(&ranges[i]) && end > first)
			page_marks_set(marks, first, end - first, HYPERPS_FRAME_HOST);
	}
	for (u32 i = 0; i < count; i++) {
		u64 first = ranges[i].base / PAGE_SIZE;
		u64 end = range_end(&ranges[i]) / PAGE_SIZE + (range_end(&ranges[i]) % PAGE_SIZE != 0);

		if (!is_usable(&ranges[i]) && ranges[i].size)
			page_marks_set(marks, first, end - first, HYPERPS_FRAME_DEVICE);
	}
}

u64 page_mark_state(const struct page_marks *marks, u64 frame)
{
	return frame < marks->frames ? marks->mark[frame] & MARK_STATE : HYPERPS_FRAME_DEVICE;
}
