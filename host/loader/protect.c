// SPDX-License-Identifier: MIT
#include "protect.h"

#define SYSTEM_CALL_VECTOR 0x80 /* an interrupt with it would be a system call that no program made */

void protect_fill(struct protect_list *list, const struct loader_table *loader, const struct ram *ram)
{
	struct range range[RAM_RANGES];

	*list = (struct protect_list){
		.version = PROTECT_VERSION,
		.entry = loader->entry,
		.cr3 = loader->cr3,
		.argument = HANDOVER_ADDRESS,
		.stub = STUB_ADDRESS,
		.ranges = layout_ranges(ram, range),
		.runs = 1,
		.forbidden = { 0xffffffff, 0, BIT(SYSTEM_CALL_VECTOR % 64), 0 },
		.run = { { LOADER_ADDRESS, (loader->measured_end - LOADER_ADDRESS) / PAGE_SIZE } },
	};
	for (u64 i = 0; i < list->ranges; i++)
		list->range[i] = (struct protect_run){ range[i].start, (range[i].end - range[i].start) / PAGE_SIZE };
}

static u8 *add(u8 *to, const void *data, u64 bytes)
{
	__builtin_memcpy(to, data, bytes);
	return to + bytes;
}

static u8 *add_number(u8 *to, u64 number)
{
	return add(to, &number, sizeof(number));
}

u64 protect_stream(const struct protect_list *list, const u8 *loader, u8 *stream)
{
	u8 *to = add(stream, "HyperPS protect", 16);

	to = add_number(to, 1);
	to = add(to, &list->entry, 4 * sizeof(u64));
	to = add_number(to, list->shared_bit);
	to = add(to, list->forbidden, sizeof(list->forbidden));
	to = add_number(to, list->ranges);
	for (u64 i = 0; i < list->ranges; i++) {
		to = add_number(to, list->range[i].gpa);
		to = add_number(to, list->range[i].pages * PAGE_SIZE);
	}
	to = add_number(to, list->run[0].pages);
	for (u64 i = 0; i < list->run[0].pages; i++) {
		to = add_number(to, list->run[0].gpa + i * PAGE_SIZE);
		to = add(to, loader + i * PAGE_SIZE, PAGE_SIZE);
	}
	return to - stream;
}
