// SPDX-License-Identifier: GPL-2.0
/*
 * Donates 2 MiB to the monitor's pool, once: no CPU reaches them any more, VMs are made of them, and they don't come
 * back. Also what must be refused. The memory stays allocated here for ever.
 */
#include <linux/gfp.h>
#include <linux/mm.h>

#include "calls.h"
#include "tap.h"

#define ORDER 9
#define FRAMES (1UL << ORDER)
#define VMS 40
#define EPTP_ADDRESS 0x000ffffffffff000ULL

static unsigned long monitor_base;
module_param(monitor_base, ulong, 0);
static bool refusals_only;
module_param(refusals_only, bool, 0);

static void expect(struct seq_file *out, s64 got, s64 wanted, const char *what)
{
	tap_check(out, got == wanted, "%s gives %lld (%lld)", what, wanted, got);
}

static s64 donate(u64 frame)
{
	return call(HYPERPS_CALL_POOL_DONATE, frame, 0, 0, 0, NULL);
}

static void check_refusals(struct seq_file *out, u64 frame)
{
	u64 handle;

	expect(out, donate(frame + 1), HYPERPS_ERROR_INVALID, "donating 2 MiB that are not aligned");
	expect(out, donate(~0ULL), HYPERPS_ERROR_INVALID, "donating frame 2^64-1");
	expect(out, donate(~0ULL << ORDER), HYPERPS_ERROR_INVALID, "donating the last 2 MiB of 2^64 frames");
	expect(out, donate(1ULL << 30), HYPERPS_ERROR_INVALID, "donating the 2 MiB at 4 TiB");
	expect(out, donate((1ULL << 30) - FRAMES), HYPERPS_ERROR_OWNER, "donating the 2 MiB below 4 TiB");
	expect(out, donate(monitor_base >> PAGE_SHIFT), HYPERPS_ERROR_OWNER, "donating the monitor's own memory");
	expect(out, donate(0xfee00), HYPERPS_ERROR_OWNER, "donating a device's memory");
	expect(out, create(0, VIEW_PAGES, &handle), 0, "VM_CREATE");
	expect(out, map(handle, 0, frame + FRAMES - 1, 1), 0, "VM_MAP of the last frame");
	expect(out, donate(frame), HYPERPS_ERROR_OWNER, "donating 2 MiB with a frame of a VM");
	expect(out, finish(HYPERPS_CALL_VM_DESTROY, handle), 0, "VM_DESTROY");
	expect(out, donate(frame), HYPERPS_ERROR_OWNER, "donating 2 MiB with a frame of a destroyed VM");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, handle), 0, "VM_RECLAIM");
}

/* How many of the VMs that are made now have their view's root in the donated memory. */
static int count_roots(struct seq_file *out, struct page *page, u64 frame)
{
	static u64 handles[VMS];
	int made, count = 0;
	u64 words[8];

	for (made = 0; made < VMS; made++) {
		u64 root;

		if (create(0, VIEW_PAGES, &handles[made]) || map(handles[made], 0, page_to_pfn(page + made), 1) ||
		    finish(HYPERPS_CALL_VM_SYNC, handles[made]) ||
		    read_words(HYPERPS_OBJECT_VM | (u64)(u32)handles[made] << 32, 0, words))
			break;
		root = (words[offsetof(struct hyperps_vm, view_eptp) / sizeof(u64)] & EPTP_ADDRESS) >> PAGE_SHIFT;
		count += root >= frame && root < frame + FRAMES;
	}
	tap_check(out, made == VMS, "%d VMs are made", made);
	while (made--)
		if (finish(HYPERPS_CALL_VM_DESTROY, handles[made]) || finish(HYPERPS_CALL_VM_RECLAIM, handles[made]))
			tap_check(out, false, "VM %d goes again", made);
	return count;
}

static int show_donate(struct seq_file *out, void *unused)
{
	struct page *chunk = alloc_pages(GFP_KERNEL, ORDER),
		    *other = alloc_pages(GFP_KERNEL, get_order(VMS * PAGE_SIZE));
	u64 frame, state;
	void *address;
	int roots, cpus = num_online_cpus();

	if (!chunk || !other) {
		tap_check(out, false, "allocating 2 MiB");
		return 0;
	}
	frame = page_to_pfn(chunk);
	address = page_address(chunk);
	check_refusals(out, frame);
	if (refusals_only) {
		__free_pages(chunk, ORDER);
		__free_pages(other, get_order(VMS * PAGE_SIZE));
		return 0;
	}
	tap_check(out, cpus_with_access(address) == cpus, "positive control: %d CPUs have access before", cpus);
	expect(out, donate(frame), 0, "POOL_DONATE");
	roots = count_roots(out, other, frame);
	tap_check(out, roots, "%d VMs have their root in the donated memory", roots);
	tap_check(out, !cpus_with_access(address), "no CPU has access to the first page");
	tap_check(out, !cpus_with_access(address + (FRAMES - 1) * PAGE_SIZE), "no CPU has access to the last page");
	tap_check(out, cpus_with_access(page_address(other)) == cpus, "positive control: to another page all have");
	expect(out, donate(frame), HYPERPS_ERROR_OWNER, "donating it again");
	expect(out, call(HYPERPS_CALL_FRAME_QUERY, 0, frame, 0, 0, &state), HYPERPS_ERROR_OWNER, "FRAME_QUERY of it");
	__free_pages(other, get_order(VMS * PAGE_SIZE));
	return 0;
}

TAP_MODULE("vm_donate", show_donate, "Donates 2 MiB to the monitor's pool");
