// SPDX-License-Identifier: MIT
#include "address_space.h"
#include "monitor.h"
#include "ept.h"
#include "stop.h"

volatile u64 *own_page_entry(u64 linear, unsigned last, bool make)
{
	u64 table = monitor.boot->final_cr3, *page;

	for (unsigned shift = 39;; shift -= 9) {
		volatile u64 *entry = page_pool_linear(&monitor.pool, HPA(table));

		entry += (linear >> shift) % 512;
		if (shift == last)
			return entry;
		page = !*entry && make ? page_pool_take(&monitor.pool) : NULL;
		if (page)
			*entry = hpa_of(page).value | PTE_TABLE;
		if (!(*entry & 1) || (*entry & PTE_LARGE))
			return NULL;
		table = *entry & EPT_ADDRESS;
	}
}

bool unmap_own_page(const void *page)
{
	volatile u64 *entry = own_page_entry((u64)page, PAGE_SHIFT, false);

	if (!entry)
		return false;
	*entry = 0;
	invlpg(page);
	return true;
}

void window_init(struct cpu *cpu)
{
	cpu->window = (u8 *)(MONITOR_WINDOW_VA + cpu->slot * PAGE_SIZE);
	cpu->window_entry = own_page_entry((u64)cpu->window, PAGE_SHIFT, false);
	CHECK(cpu->window_entry);
}

u8 *set_window(u64 frame, u64 flags)
{
	struct cpu *cpu = this_cpu();

	*cpu->window_entry = frame << PAGE_SHIFT | flags;
	invlpg(cpu->window);
	return cpu->window;
}
