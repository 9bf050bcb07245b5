// SPDX-License-Identifier: MIT
#include "host_view.h"
#include "manager.h"
#include "memory_type.h"

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

void page_marks_init(struct page_marks *marks, u64 *table, const struct boot_memory_range *ranges, u32 count,
		     const struct mtrr_state *mtrr, unsigned bits)
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
	for (u64 at = 0, end; at < BIT(bits) && at >> PAGE_SHIFT < marks->frames; at = end)
		if (memory_type_at(mtrr, bits, HPA(at), &end) != MEMORY_TYPE_WB)
			page_marks_set(marks, at >> PAGE_SHIFT, (end - at) >> PAGE_SHIFT, HYPERPS_FRAME_DEVICE);
}

bool ept_map(struct ept *ept, gpa_t gpa, hpa_t hpa, u64 size, u64 permissions, u64 memory_type)
{
	u64 limit = ept_level_size(ept->levels + 1);

	if (gpa.value >= limit || size > limit - gpa.value)
		return false;
	while (size) {
		unsigned level = ept->largest_leaf;
		u64 *entry;

		while (level > 1 &&
		       (((gpa.value | hpa.value) & (ept_level_size(level) - 1)) || size < ept_level_size(level)))
			level--;
		/* Before ept_entry(), which would split it: is anything there? */
		if (!ept_is_empty(ept, gpa, 1))
			return false;
		entry = ept_entry(ept, gpa, level);
		if (!entry || *entry)
			return false;
		ept_set_entry(ept, entry, level,
			      hpa.value | permissions | memory_type << EPT_MEMORY_TYPE_SHIFT |
				      (level > 1 ? EPT_LARGE : 0));
		gpa.value += ept_level_size(level);
		hpa.value += ept_level_size(level);
		size -= ept_level_size(level);
	}
	return true;
}

/* Where the monitor's memory begins above `address`; or, if it lies in that (*own), where that ends. */
static u64 own_memory(const struct boot_info *info, u64 address, bool *own)
{
	const struct {
		u64 base, size;
	} parts[] = { { info->region_base, info->region_size },
		      { info->low_base, info->low_size },
		      { info->kvm_pool_base, info->kvm_pool_size } };
	u64 next = ~0ULL;

	*own = false;
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		if (address - parts[i].base < parts[i].size) {
			*own = true;
			return parts[i].base + parts[i].size;
		}
		if (parts[i].base > address && parts[i].base < next)
			next = parts[i].base;
	}
	return next;
}

static bool map_all(const struct boot_info *info, struct ept *view, unsigned bits)
{
	for (u64 address = 0, end, next; address < BIT(bits); address = end) {
		u64 type = memory_type_at(&info->mtrr, bits, HPA(address), &end);
		bool own;
		u64 limit = own_memory(info, address, &own);

		while (end < BIT(bits) && memory_type_at(&info->mtrr, bits, HPA(end), &next) == type)
			end = next;
		if (own || end > limit)
			end = limit;
		if (!own && !ept_map(view, GPA(address), HPA(address), end - address, EPT_RWX, type))
			return false;
	}
	return true;
}

/* An object in the region, as the monitor sees it. */
static void *in_monitor(const struct boot_info *info, void *object)
{
	return (void *)(MONITOR_VA + ((u64)object - info->region_base));
}

bool host_view_build(struct boot_info *info, const struct vmx_capabilities *capabilities, unsigned largest_leaf,
		     u64 *table, const struct boot_memory_range *ranges, u32 count)
{
	unsigned bits = capabilities->physical_address_bits;
	struct page_marks *marks = &info->marks;
	struct page_pool *pool = &info->pool;
	struct ept *view = &info->host_view;

	page_marks_init(marks, table, ranges, count, &info->mtrr, bits);
	page_marks_set(marks, info->region_base >> PAGE_SHIFT, info->region_size >> PAGE_SHIFT, HYPERPS_FRAME_MONITOR);
	page_marks_set(marks, info->low_base >> PAGE_SHIFT, info->low_size >> PAGE_SHIFT, HYPERPS_FRAME_MONITOR);
	page_marks_set(marks, info->kvm_pool_base >> PAGE_SHIFT, info->kvm_pool_size >> PAGE_SHIFT,
		       HYPERPS_FRAME_MONITOR);
	*pool = (struct page_pool){ .linear = (u8 *)info->region_base,
				    .base = HPA(info->region_base),
				    .size = info->region_size,
				    .used = info->free,
				    .direct = (u8 *)MONITOR_DIRECT_VA,
				    .marks = marks };
	if (info->region_base + info->region_size > marks->frames << PAGE_SHIFT ||
	    info->kvm_pool_base + info->kvm_pool_size > marks->frames << PAGE_SHIFT ||
	    !ept_init(view, pool, capabilities->ept_levels, largest_leaf) || !map_all(info, view, bits) ||
	    page_pool_available(pool) < MM_POOL_RESERVE)
		return false;
	pool->linear = in_monitor(info, pool->linear);
	pool->marks = in_monitor(info, marks);
	marks->mark = in_monitor(info, marks->mark);
	view->pool = in_monitor(info, pool);
	view->root = in_monitor(info, view->root);
	return true;
}
