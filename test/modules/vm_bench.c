// SPDX-License-Identifier: GPL-2.0
/* Ticks of the memory calls, for `make bench`: lines "bench NAME TICKS". One CPU; the memory is the module's own. */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <asm/msr.h>

#include "calls.h"
#include "tap.h"

#define ORDER 9
#define CHUNK_FRAMES (1UL << ORDER)
#define CHUNKS 128 /* 256 MiB */
#define CALLS 1000

static struct page *chunks[CHUNKS];

static void report(struct seq_file *out, const char *name, u64 ticks, u64 count)
{
	seq_printf(out, "bench %s %llu\n", name, ticks / count);
}

/* Maps a chunk, `batch` frames with each call, at a gpa that lets no large page fit. */
static bool bench_map(struct seq_file *out, const char *name, u64 batch)
{
	u64 frame = page_to_pfn(chunks[0]), handle, start, done, left;

	if (create(0, VIEW_PAGES, &handle))
		return false;
	/* The tables are there, as in a VM that has memory already. */
	if (map(handle, 0x40000000, page_to_pfn(chunks[1]), 1) ||
	    map(handle, 0x403ff000, page_to_pfn(chunks[1]) + 1, 1))
		return false;
	start = rdtsc();
	for (done = 0; done < CHUNK_FRAMES; done += batch)
		if (map(handle, 0x40001000 + done * PAGE_SIZE, frame + done, batch))
			return false;
	report(out, name, rdtsc() - start, CHUNK_FRAMES);
	start = rdtsc();
	if (call(HYPERPS_CALL_VM_SYNC, handle, 0, 0, 0, &left))
		return false;
	if (batch == CHUNK_FRAMES)
		report(out, "sync", rdtsc() - start, 1);
	return !finish(HYPERPS_CALL_VM_SYNC, handle) && !finish(HYPERPS_CALL_VM_DESTROY, handle) &&
	       !finish(HYPERPS_CALL_VM_RECLAIM, handle);
}

static bool bench_256m(struct seq_file *out)
{
	u64 handle, start = rdtsc(), mapping = 0;
	int i;

	if (create(0, VIEW_PAGES, &handle))
		return false;
	for (i = 0; i < CHUNKS; i++) {
		u64 before = rdtsc();

		if (map(handle, (u64)i * PAGE_SIZE * CHUNK_FRAMES, page_to_pfn(chunks[i]), CHUNK_FRAMES))
			return false;
		mapping += rdtsc() - before;
	}
	report(out, "map.2m", mapping, CHUNKS);
	if (finish(HYPERPS_CALL_VM_SYNC, handle) || finish(HYPERPS_CALL_VM_DESTROY, handle) ||
	    finish(HYPERPS_CALL_VM_RECLAIM, handle))
		return false;
	report(out, "vm.create_destroy_256m", rdtsc() - start, 1);
	return true;
}

static int show_bench(struct seq_file *out, void *unused)
{
	u64 start;
	int i, got;

	for (got = 0; got < CHUNKS; got++) {
		chunks[got] = alloc_pages(GFP_KERNEL, ORDER);
		if (!chunks[got])
			break;
	}
	start = rdtsc();
	for (i = 0; i < CALLS; i++)
		call(HYPERPS_CALL_IDENTIFY, 0, 0, 0, 0, NULL);
	report(out, "gate.vmcall", rdtsc() - start, CALLS);
	if (got < CHUNKS || !bench_map(out, "map.4k.batch1", 1) || !bench_map(out, "map.4k.batch64", 64) ||
	    !bench_map(out, "map.4k.batch512", CHUNK_FRAMES) || !bench_256m(out))
		tap_check(out, false, "measuring (%d chunks of 2 MiB)", got);
	while (got--)
		__free_pages(chunks[got], ORDER);
	return 0;
}

TAP_MODULE("vm_bench", show_bench, "Measures the memory calls");
