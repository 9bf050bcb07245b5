// SPDX-License-Identifier: GPL-2.0
/* Ticks of the memory calls, for `make bench`: lines "bench NAME TICKS". One CPU; the memory is the module's own. */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/sort.h>
#include <asm/msr.h>

#include "calls.h"
#include "tap.h"

#define ORDER 9
#define CHUNK_FRAMES (1UL << ORDER)
#define CHUNKS 256 /* 512 MiB */
#define CHUNKS_PER_MIB(mib) ((mib) >> 1)
#define CALLS 1000
#define SYNCS 65UL
#define SCALE_GPA 0x40000000ULL

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

static int compare_ticks(const void *a, const void *b)
{
	u64 first = *(const u64 *)a, second = *(const u64 *)b;

	return first < second ? -1 : first > second;
}

/* VM_SYNC with one page to wait for: nearly all of it is the flush. The median, which leaves out the timer. */
static bool bench_sync(struct seq_file *out)
{
	u64 frame = page_to_pfn(chunks[0]), ticks[SYNCS], handle, start, left, i;

	if (create(0, VIEW_PAGES, &handle))
		return false;
	for (i = 0; i < SYNCS; i++) {
		if (map(handle, SCALE_GPA + i * PAGE_SIZE, frame + i, 1))
			return false;
		start = rdtsc();
		if (call(HYPERPS_CALL_VM_SYNC, handle, 0, 0, 0, &left))
			return false;
		ticks[i] = rdtsc() - start;
	}
	sort(ticks, SYNCS, sizeof(*ticks), compare_ticks, NULL);
	report(out, "sync.page", ticks[SYNCS / 2], 1);
	return !finish(HYPERPS_CALL_VM_SYNC, handle) && !finish(HYPERPS_CALL_VM_DESTROY, handle) &&
	       !finish(HYPERPS_CALL_VM_RECLAIM, handle);
}

static bool bench_256m(struct seq_file *out)
{
	u64 handle, start = rdtsc(), mapping = 0;
	int i;

	if (create(0, VIEW_PAGES, &handle))
		return false;
	for (i = 0; i < CHUNKS_PER_MIB(256); i++) {
		u64 before = rdtsc();

		if (map(handle, (u64)i * PAGE_SIZE * CHUNK_FRAMES, page_to_pfn(chunks[i]), CHUNK_FRAMES))
			return false;
		mapping += rdtsc() - before;
	}
	report(out, "map.2m", mapping, CHUNKS_PER_MIB(256));
	if (finish(HYPERPS_CALL_VM_SYNC, handle) || finish(HYPERPS_CALL_VM_DESTROY, handle) ||
	    finish(HYPERPS_CALL_VM_RECLAIM, handle))
		return false;
	report(out, "vm.create_destroy_256m", rdtsc() - start, 1);
	return true;
}

/*
 * Does a page's share of the cost depend on how many there are? Maps `mib` MiB in batches of 512 frames, from an address
 * that lets only small pages fit or lets large ones fit, in a VM that has nothing yet; ticks for each 4 KiB.
 */
static bool bench_scale(struct seq_file *out, const char *kind, u64 gpa, u64 mib)
{
	u64 handle, done, start, mapping = 0, frames = mib * (SZ_1M / PAGE_SIZE), batch = min(frames, CHUNK_FRAMES);
	char name[32];
	s64 error;

	if (create(0, VIEW_PAGES, &handle))
		return false;
	for (done = 0; done < frames; done += batch) {
		start = rdtsc();
		error = map(handle, gpa + done * PAGE_SIZE, page_to_pfn(chunks[done / CHUNK_FRAMES]), batch);

		mapping += rdtsc() - start;
		if (error) {
			tap_check(out, false, "mapping at %llu of %llu MiB gives %lld", done * PAGE_SIZE / SZ_1M, mib,
				  error);
			return false;
		}
	}
	snprintf(name, sizeof(name), "%s.%llum", kind, mib);
	report(out, name, mapping, frames);
	error = finish(HYPERPS_CALL_VM_SYNC, handle);
	error = error ?: finish(HYPERPS_CALL_VM_DESTROY, handle);
	error = error ?: finish(HYPERPS_CALL_VM_RECLAIM, handle);
	if (error)
		tap_check(out, false, "ending a VM of %llu MiB gives %lld", mib, error);
	return !error;
}

static bool bench_scales(struct seq_file *out)
{
	static const u64 sizes[] = { 1, 2, 8, 32, 128, 512 }; /* MiB */
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (!bench_scale(out, "map.scale", SCALE_GPA + PAGE_SIZE, sizes[i]))
			return false;
	for (i = 1; i < ARRAY_SIZE(sizes); i++)
		if (!bench_scale(out, "map.scale.large", SCALE_GPA, sizes[i]))
			return false;
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
	    !bench_map(out, "map.4k.batch512", CHUNK_FRAMES) || !bench_sync(out) || !bench_256m(out) ||
	    !bench_scales(out))
		tap_check(out, false, "measuring (%d chunks of 2 MiB)", got);
	while (got--)
		__free_pages(chunks[got], ORDER);
	return 0;
}

TAP_MODULE("vm_bench", show_bench, "Measures the memory calls");
