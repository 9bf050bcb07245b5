// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile host against the memory calls: what it gave to a VM it cannot read, write, map elsewhere or give twice, on
 * any CPU, and it comes back zeroed. The same accesses work before the memory is given away.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>

#include <asm/word-at-a-time.h>

#include "calls.h"
#include "tap.h"

#define ORDER 10 /* 4 MiB: more than VM_MAP gives in one step */
#define FRAMES (1UL << ORDER)
#define SINGLES 40

static unsigned long monitor_base;
module_param(monitor_base, ulong, 0);
TAP_PARTS;

static void expect(struct seq_file *out, s64 got, s64 wanted, const char *what)
{
	tap_check(out, got == wanted, "%s gives %lld (%lld)", what, wanted, got);
}

static void check_owners(struct seq_file *out, u64 handle, u64 other, u64 given, u64 own)
{
	if (part("double")) {
		expect(out, map(handle, 0x40000000, given, 1), HYPERPS_ERROR_OWNER, "a given frame at a second gpa");
		expect(out, map(other, 0, given, 1), HYPERPS_ERROR_OWNER, "a given frame to a second VM");
	}
	if (part("remap"))
		expect(out, map(handle, PAGE_SIZE, own, 1), HYPERPS_ERROR_OWNER, "another frame at a populated gpa");
	if (part("owner")) {
		expect(out, map(other, 0, given + 1, 1), HYPERPS_ERROR_OWNER, "another VM's frame");
		expect(out, map(other, 0, monitor_base >> PAGE_SHIFT, 1), HYPERPS_ERROR_OWNER,
		       "the monitor's own frame");
		expect(out, map(other, 0, 0xfee00, 1), HYPERPS_ERROR_OWNER, "a device's frame");
	}
}

static void check_arguments(struct seq_file *out, u64 handle, u64 other, u64 own)
{
	expect(out, map(other, 0, ~0ULL, 1), HYPERPS_ERROR_OWNER, "frame 2^64-1");
	expect(out, map(other, 0, ~0ULL - 1, 4), HYPERPS_ERROR_OWNER, "frames that wrap");
	expect(out, map(other, 0, own, 0), HYPERPS_ERROR_INVALID, "no frames");
	expect(out, map(other, 0, own, ~0ULL), HYPERPS_ERROR_INVALID, "2^64-1 frames");
	expect(out, map(other, 0, own, HYPERPS_MAP_FRAMES + 1), HYPERPS_ERROR_INVALID, "2^18 + 1 frames");
	expect(out, map(other, ~0xfffULL, own, 1), HYPERPS_ERROR_INVALID, "the last gpa of 64 bits");
	expect(out, map(other, 7, own, 1), HYPERPS_ERROR_INVALID, "permissions in VM_MAP");
	expect(out, map(~0ULL, 0, own, 1), HYPERPS_ERROR_NO_VM, "VM 2^64-1");
	expect(out, map(handle + (1ULL << 32), 0, own, 1), HYPERPS_ERROR_NO_VM, "another generation of the VM");
	expect(out, call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0, NULL), HYPERPS_ERROR_STATE,
	       "reclaim of a living VM");
}

static s64 declare(u64 handle, u64 gpa_and_permissions, u64 count)
{
	return call(HYPERPS_CALL_VM_DECLARE, handle, gpa_and_permissions, count, 0, NULL);
}

/* The VM's RAM is what it declares before it is sealed, and nothing else. */
static void check_ranges(struct seq_file *out, u64 own)
{
	u64 handle, ranges, gpa;

	expect(out, call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0, &handle), 0, "VM_CREATE");
	expect(out, map(handle, 0, own, 1), HYPERPS_ERROR_PERMISSION, "VM_MAP with nothing declared");
	expect(out, declare(handle, HYPERPS_RANGE_MMIO | 1, 1), HYPERPS_ERROR_INVALID, "MMIO with a permission");
	expect(out, declare(handle, 2, 1), HYPERPS_ERROR_INVALID, "write without read");
	expect(out, declare(handle, 1, 0), HYPERPS_ERROR_INVALID, "an empty range");
	expect(out, declare(handle, 1, ~0ULL), HYPERPS_ERROR_INVALID, "a range of 2^64-1 pages");
	expect(out, declare(handle, ~0xfffULL | 1, 2), HYPERPS_ERROR_INVALID, "a range that wraps");
	expect(out, declare(handle, 1, VIEW_PAGES + 1), HYPERPS_ERROR_INVALID, "a range past 2^46");
	expect(out, declare(handle, 0x10000 | READ_WRITE_EXECUTE, 4), 0, "VM_DECLARE");
	expect(out, declare(handle, 0x13000 | 1, 2), HYPERPS_ERROR_OWNER, "a range that overlaps");
	expect(out, declare(handle, 0xe000 | HYPERPS_RANGE_MMIO, 1), 0, "VM_DECLARE of MMIO");
	expect(out, map(handle, 0xe000, own, 1), HYPERPS_ERROR_PERMISSION, "VM_MAP into MMIO");
	for (ranges = 2, gpa = 0x14000; !declare(handle, gpa | 1, 2); ranges++)
		gpa += 0x2000;
	expect(out, ranges, HYPERPS_VM_RANGES, "the number of ranges that can be declared");
	expect(out, map(handle, 0xf000, own, 1), HYPERPS_ERROR_PERMISSION, "the page below the first range");
	expect(out, map(handle, gpa, own, 1), HYPERPS_ERROR_PERMISSION, "the page above the last range");
	expect(out, map(handle, 0x13000, own, 2), HYPERPS_ERROR_PERMISSION, "pages of two ranges");
	expect(out, map(handle, 0x13000, own, 1), 0, "the last page of a range");
	expect(out, finish(HYPERPS_CALL_VM_SYNC, handle), 0, "VM_SYNC");
	expect(out, finish(HYPERPS_CALL_VM_SEAL, handle), 0, "VM_SEAL");
	expect(out, declare(handle, 1, 1), HYPERPS_ERROR_STATE, "VM_DECLARE after VM_SEAL");
	expect(out, finish(HYPERPS_CALL_VM_DESTROY, handle), 0, "VM_DESTROY");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, handle), 0, "VM_RECLAIM");
}

static bool is_zero(const void *address, size_t size)
{
	return !memchr_inv(address, 0, size);
}

/* Single frames, far apart in the VM: the list of what waits for a sync fills up. Returns how many frames went in. */
static int check_singles(struct seq_file *out, u64 handle, struct page *pages[SINGLES])
{
	bool waited = false;
	int i;

	for (i = 0; i < SINGLES; i++) {
		s64 error;

		pages[i] = alloc_page(GFP_KERNEL);
		if (!pages[i])
			break;
		memset(page_address(pages[i]), 0xaa, PAGE_SIZE);
		error = map(handle, 0x100000000ULL + i * 0x40000000ULL, page_to_pfn(pages[i]), 1);
		if (error == HYPERPS_ERROR_AGAIN) {
			waited = true;
			error = finish(HYPERPS_CALL_VM_SYNC, handle);
			if (!error)
				error = map(handle, 0x100000000ULL + i * 0x40000000ULL, page_to_pfn(pages[i]), 1);
		}
		if (error) {
			__free_page(pages[i]);
			break;
		}
	}
	tap_check(out, i == SINGLES && waited, "%d single frames go in, with a sync on the way", i);
	return i;
}

/* Linux reads whole words of names, past their end and into the next page, which may be a VM's. */
static void check_read_past_end(struct seq_file *out, u64 handle, struct page *pair)
{
	u8 *bytes = page_address(pair);
	unsigned long word;

	memset(bytes, 0x11, 2 * PAGE_SIZE);
	word = load_unaligned_zeropad(bytes + PAGE_SIZE - 3);
	tap_check(out, word == 0x1111111111111111, "positive control: a word across two pages is read (%lx)", word);
	expect(out, map(handle, 0x3fff00000000, page_to_pfn(pair) + 1, 1), 0, "VM_MAP of the second one");
	/* Until then a translation that some CPU still has may reach it. */
	expect(out, finish(HYPERPS_CALL_VM_SYNC, handle), 0, "VM_SYNC");
	word = load_unaligned_zeropad(bytes + PAGE_SIZE - 3);
	tap_check(out, word == 0x111111, "what lies in a VM's page reads as zeros then (%lx)", word);
}

/* Calls that are to be repeated until they are done: in their middle others come, which end the VM. */
static void check_continuations(struct seq_file *out, struct page *chunk)
{
	u64 handle, frame = page_to_pfn(chunk), left = 0;

	expect(out, create(0, VIEW_PAGES, &handle), 0, "VM_CREATE and VM_DECLARE");
	expect(out, map(handle, 0, frame, FRAMES), 0, "positive control: VM_MAP of 4 MiB");
	expect(out, finish(HYPERPS_CALL_VM_SYNC, handle), 0, "VM_SYNC");
	expect(out, call(HYPERPS_CALL_VM_SEAL, handle, 0, 0, 0, &left), 0, "the first step of VM_SEAL");
	tap_check(out, left, "positive control: it is not all");
	expect(out, map(handle, FRAMES * PAGE_SIZE, frame, 1), HYPERPS_ERROR_STATE, "VM_MAP in its middle");
	expect(out, call(HYPERPS_CALL_VM_DESTROY, handle, 0, 0, 0, &left), 0, "VM_DESTROY in its middle");
	expect(out, call(HYPERPS_CALL_VM_SEAL, handle, 0, 0, 0, NULL), HYPERPS_ERROR_STATE, "VM_SEAL's next step");
	expect(out, call(HYPERPS_CALL_VM_SYNC, handle, 0, 0, 0, NULL), HYPERPS_ERROR_STATE, "VM_SYNC then");
	if (left)
		expect(out, finish(HYPERPS_CALL_VM_DESTROY, handle), 0, "VM_DESTROY");
	expect(out, call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0, &left), 0, "the first step of VM_RECLAIM");
	tap_check(out, left, "positive control: it is not all");
	expect(out, map(handle, 0, frame, 1), HYPERPS_ERROR_STATE, "VM_MAP in its middle");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, handle), 0, "VM_RECLAIM");
	expect(out, call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0, NULL), HYPERPS_ERROR_NO_VM, "another VM_RECLAIM");
	tap_check(out, is_zero(page_address(chunk), FRAMES * PAGE_SIZE), "all pages come back zeroed");
}

static int show_memory(struct seq_file *out, void *unused)
{
	struct page *chunk = alloc_pages(GFP_KERNEL, ORDER), *own = alloc_page(GFP_KERNEL), *singles[SINGLES];
	struct page *pair = alloc_pages(GFP_KERNEL, 1);
	u64 handle, other, frame = page_to_pfn(chunk), state, dirty = 0;
	u64 *address = page_address(chunk);
	int i, count, cpus = num_online_cpus();

	if (!chunk || !own || !pair) {
		tap_check(out, false, "allocating 4 MiB");
		return 0;
	}
	for (i = 0; i < FRAMES * PAGE_SIZE / sizeof(u64); i++)
		address[i] = PATTERN;
	if (part("arguments"))
		check_ranges(out, page_to_pfn(own));
	expect(out, create(0, VIEW_PAGES, &handle), 0, "VM_CREATE and VM_DECLARE");
	expect(out, create(0, VIEW_PAGES, &other), 0, "a second VM_CREATE and VM_DECLARE");
	/* Fills the TLB of every CPU, too. */
	tap_check(out, cpus_with_access(address) == cpus, "positive control: %d CPUs have access before", cpus);
	expect(out, map(handle, 0, frame, FRAMES), 0, "positive control: VM_MAP of 4 MiB");
	call(HYPERPS_CALL_FRAME_QUERY, handle, frame, 0, 0, &state);
	expect(out, state, HYPERPS_FRAME_TO_VM, "FRAME_QUERY before the sync");
	expect(out, finish(HYPERPS_CALL_VM_SYNC, handle), 0, "VM_SYNC");
	call(HYPERPS_CALL_FRAME_QUERY, handle, frame + FRAMES - 1, 0, 0, &state);
	expect(out, state, HYPERPS_FRAME_PRIVATE, "FRAME_QUERY after the sync");
	tap_check(out, cpus_with_access(address) == 0, "no CPU has access to the first page");
	tap_check(out, cpus_with_access((void *)address + (FRAMES - 1) * PAGE_SIZE) == 0,
		  "no CPU has access to the last page");
	tap_check(out, cpus_with_access(page_address(own)) == cpus,
		  "positive control: all CPUs have access to another page");
	check_owners(out, handle, other, frame, page_to_pfn(own));
	if (part("arguments"))
		check_arguments(out, handle, other, page_to_pfn(own));
	check_read_past_end(out, handle, pair);
	count = check_singles(out, handle, singles);
	tap_check(out, count > 0 && cpus_with_access(page_address(singles[0])) == 0,
		  "no CPU has access to a single frame");

	expect(out, finish(HYPERPS_CALL_VM_DESTROY, handle), 0, "VM_DESTROY");
	tap_check(out, cpus_with_access(address) == 0, "no CPU has access between destroy and reclaim");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, handle), 0, "VM_RECLAIM");
	expect(out, call(HYPERPS_CALL_VM_DESTROY, handle, 0, 0, 0, NULL), HYPERPS_ERROR_NO_VM, "a second VM_DESTROY");
	expect(out, finish(HYPERPS_CALL_VM_DESTROY, other), 0, "VM_DESTROY of the empty VM");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, other), 0, "VM_RECLAIM of the empty VM");
	tap_check(out, is_zero(address, FRAMES * PAGE_SIZE), "the 4 MiB are the host's again, all zero");
	for (i = 0; i < count; i++)
		dirty += !is_zero(page_address(singles[i]), PAGE_SIZE);
	tap_check(out, !dirty, "the single frames are the host's again, all zero");
	tap_check(out, cpus_with_access(address) == cpus, "all CPUs have access again");
	if (part("continue"))
		check_continuations(out, chunk);
	for (i = 0; i < count; i++)
		__free_page(singles[i]);
	__free_page(own);
	__free_pages(chunk, ORDER);
	__free_pages(pair, 1);
	return 0;
}

TAP_MODULE("vm_memory", show_memory, "Checks what the host can do to a VM's memory");
