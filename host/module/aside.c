// SPDX-License-Identifier: GPL-2.0
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "aside.h"
#include "call.h"

#define SHARE_OF_LINUX 8
#define LEAST_FRAMES 512 /* what the host has below 1 MiB is no memory for VMs */

bool aside_is_hosts(struct page *page, unsigned int order)
{
	unsigned long i;

	for (i = 0; i < 1UL << order; i++)
		if (vm_call(HYPERPS_CALL_FRAME_QUERY, 0, page_to_pfn(page) + i, 0, 0) != HYPERPS_FRAME_HOST)
			return false;
	return true;
}

static bool host_has_frames(void)
{
	u64 words[HYPERPS_RESULTS];
	const struct hyperps_frames *frames = (const struct hyperps_frames *)words;

	static_assert(offsetofend(struct hyperps_frames, count[HYPERPS_FRAME_HOST]) <= sizeof(words));
	return !vm_read_object(0, HYPERPS_OBJECT_FRAMES, words) && frames->count[HYPERPS_FRAME_HOST] >= LEAST_FRAMES;
}

bool aside_keep(struct list_head *list, unsigned int order)
{
	bool found = false;

	if (!host_has_frames())
		return false;
	while (!found && !fatal_signal_pending(current) &&
	       si_mem_available() > (long)(totalram_pages() / SHARE_OF_LINUX)) {
		struct page *page = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY, order);

		if (!page)
			break;
		found = aside_is_hosts(page, order);
		if (found) {
			__free_pages(page, order);
		} else {
			set_page_private(page, order);
			list_add(&page->lru, list);
		}
		cond_resched();
	}
	return found;
}

void aside_complain(void)
{
	pr_err_once(
		"Linux has no memory left that VMs can have: the monitor gives them only RAM that was there at the "
		"boot, "
		"and that the firmware's MTRRs made write-back. Correct the firmware setup, or update the firmware\n");
}

void aside_give_back(struct list_head *list)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, list, lru)
	{
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		__free_pages(page, order);
		cond_resched();
	}
}
