// SPDX-License-Identifier: MIT
/*
 * mm/manager.c, one transition of the table in manager.h after the other: what each request does to marks and views,
 * and each error that it documents, after which nothing may have changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "host_view.h"
#include "manager.h"
#include "memory_type.h"

#define FRAMES (2 * PAGE_SIZE_1G / PAGE_SIZE)
#define ADDRESS_BITS 32
#define BACKED (8ULL << 20) /* the lowest physical memory: the pool, and what is donated to it */
#define POOL (2ULL << 20)
#define POOL_PAGES 512
#define DEVICE_FRAME 0xa0ULL
#define MONITOR_FRAME (POOL >> PAGE_SHIFT)
#define LOW_FRAME 0x400ULL /* the host's, backed */
#define UNCACHED (9ULL << 20) /* 1 MiB in a 2 MiB page of RAM */
#define FRAME 0x48000ULL /* in the middle of the second GiB, which is all RAM; on a 2 MiB boundary */
#define FRAMES_2M 512ULL
#define ALL_PAGES BIT(MM_VIEW_BITS - PAGE_SHIFT)

static u8 *memory, *memory_before;
static u64 *mark, *mark_before;
static struct page_marks marks;
static struct page_pool pool;
static struct ept host_view;
static struct mtrr_state mtrr;
static struct mm mm, mm_before;
static const u8 content[PAGE_SIZE] = "what each page has"; /* as far as the measurement goes */
static u64 zeroed, zeroed_last, donated_last;
static u64 measured, measured_last; /* pages, and the gpa of the last one */
static bool direct_map_fails;

/* The leaf entry that maps gpa, with its level in *level (0: none; the value is then 0). */
static u64 ept_lookup(const struct ept *ept, gpa_t gpa, unsigned *level)
{
	struct ept_run run = ept_run(ept, gpa, 1);

	*level = run.level;
	return run.entry;
}

static bool host_has(u64 frame)
{
	unsigned level;
	u64 entry = ept_lookup(&host_view, GPA(frame << PAGE_SHIFT), &level);

	return entry & EPT_RWX;
}

static unsigned host_level(u64 frame)
{
	unsigned level;

	ept_lookup(&host_view, GPA(frame << PAGE_SHIFT), &level);
	return level;
}

void mm_zero_frame(u64 frame)
{
	u64 state = page_mark_state(&marks, frame);

	assert_false(host_has(frame));
	assert_true(state == HYPERPS_FRAME_TO_VM || state == HYPERPS_FRAME_TO_HOST);
	zeroed++;
	zeroed_last = frame;
}

static void assert_state(u64 frame, u64 count, u64 state)
{
	assert_true(page_marks_are(&marks, frame, count, state));
}

void mm_measure_page(u64 slot, u64 gpa, u64 frame)
{
	assert_false(host_has(frame));
	assert_int_equal(mark[frame],
			 HYPERPS_FRAME_PRIVATE | slot << MARK_VM_SHIFT | gpa >> PAGE_SHIFT << MARK_PAGE_SHIFT);
	assert_true(!measured || gpa > measured_last);
	mm_measure(&mm, slot, gpa, content);
	measured++;
	measured_last = gpa;
}

bool mm_map_donated(u64 frame)
{
	assert_state(frame, FRAMES_2M, HYPERPS_FRAME_HOST);
	donated_last = frame;
	return !direct_map_fails;
}

static int setup(void **state)
{
	static const struct boot_memory_range map[] = { { 0, 0xa0000, 7, 0 },
							{ 0x100000, FRAMES * PAGE_SIZE - 0x100000, 7, 0 } };

	(void)state;
	memory = aligned_alloc(PAGE_SIZE, BACKED);
	memory_before = aligned_alloc(PAGE_SIZE, BACKED);
	mark = calloc(FRAMES, sizeof(*mark));
	mark_before = calloc(FRAMES, sizeof(*mark));
	memset(memory, 0x5a, BACKED);
	zeroed = measured = 0;
	mtrr = (struct mtrr_state){ .capability = 1, .msr[MTRR_DEFAULT] = MTRR_ENABLE | MEMORY_TYPE_WB };
	mtrr.msr[MTRR_BASE(0)] = UNCACHED | MEMORY_TYPE_UC;
	mtrr.msr[MTRR_MASK(0)] = (BIT(ADDRESS_BITS) - 0x100000) | MTRR_MASK_VALID;
	page_marks_init(&marks, mark, map, ARRAY_SIZE(map), &mtrr, ADDRESS_BITS);
	page_marks_set(&marks, MONITOR_FRAME, POOL_PAGES, HYPERPS_FRAME_MONITOR);
	pool = (struct page_pool){ .linear = memory + POOL,
				   .base = HPA(POOL),
				   .size = POOL_PAGES * PAGE_SIZE,
				   .direct = memory,
				   .marks = &marks };
	assert_true(ept_init(&host_view, &pool, 4, 3));
	for (u64 at = 0, end; at < BIT(ADDRESS_BITS); at = end) {
		u64 type = memory_type_at(&mtrr, ADDRESS_BITS, HPA(at), &end);

		if (at == POOL) {
			end = POOL + PAGE_SIZE_2M;
			continue;
		}
		if (at < POOL)
			end = POOL;
		assert_true(ept_map(&host_view, GPA(at), HPA(at), end - at, EPT_RWX, type));
	}
	mm = (struct mm){ .marks = &marks, .pool = &pool, .host_view = &host_view };
	mm.epoch = 1;
	assert_int_equal(host_level(FRAME), 3);
	return 0;
}

static int teardown(void **state)
{
	u64 count[HYPERPS_FRAME_STATES] = { 0 };

	(void)state;
	for (u64 frame = 0; frame < FRAMES; frame++)
		count[mark[frame] & MARK_STATE]++;
	for (unsigned i = 0; i < HYPERPS_FRAME_STATES; i++)
		assert_int_equal(count[i], marks.count[i]);
	free(memory);
	free(memory_before);
	free(mark);
	free(mark_before);
	return 0;
}

static void remember(void)
{
	memcpy(memory_before, memory, BACKED);
	memcpy(mark_before, mark, FRAMES * sizeof(*mark));
	mm_before = mm;
}

static void assert_unchanged(void)
{
	assert_memory_equal(memory, memory_before, BACKED);
	assert_false(memcmp(mark, mark_before, FRAMES * sizeof(*mark)));
	assert_memory_equal(&mm, &mm_before, sizeof(mm));
}

/* The request gives this error, and all is as it was: every mark, every entry of every view, every VM. */
#define assert_refused(request, error)                                                                                 \
	do {                                                                                                           \
		remember();                                                                                            \
		assert_int_equal((request), error);                                                                    \
		assert_unchanged();                                                                                    \
	} while (0)

static void assert_mark(u64 frame, u64 state, u64 handle, u64 gpa)
{
	assert_int_equal(mark[frame],
			 state | (handle & 0xffffffff) << MARK_VM_SHIFT | gpa >> PAGE_SHIFT << MARK_PAGE_SHIFT);
}

static struct vm *vm_of(u64 handle)
{
	return &mm.vm[handle & 0xffffffff];
}

/* Present entry that maps gpa for the VM, 0 if it can't reach anything there. */
static u64 guest_entry(u64 handle, u64 gpa)
{
	unsigned level;
	u64 entry = ept_lookup(&vm_of(handle)->view, GPA(gpa), &level);

	return entry & EPT_RWX ? entry : 0;
}

static void flush(void)
{
	mm.flushed = ++mm.epoch;
}

/* A VM all of whose addresses are RAM. */
static u64 new_vm(void)
{
	s64 handle = mm_create(&mm);

	assert_true(handle >= 0);
	assert_int_equal(mm_declare(&mm, (u64)handle, 0, ALL_PAGES, EPT_RWX), 1);
	return (u64)handle;
}

static void map_and_sync(u64 handle, u64 gpa, u64 frame, u64 count)
{
	assert_int_equal(mm_map(&mm, handle, gpa, frame, count), count);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
}

static void destroy(u64 handle)
{
	s64 result;

	do
		result = mm_destroy(&mm, handle);
	while (result == 1);
	assert_int_equal(result, 0);
}

static void finish_seal(u64 handle)
{
	s64 result;

	do
		result = mm_seal(&mm, handle);
	while (result == 1);
	assert_int_equal(result, 0);
}

static void reclaim(u64 handle)
{
	s64 result;

	flush();
	do
		result = mm_reclaim(&mm, handle);
	while (result == 1);
	assert_int_equal(result, 0);
}

/* Leaves the pool this many pages. */
static void shrink_pool(u64 pages)
{
	assert_true(pages >= pool.free.count);
	pool.size = pool.used + (pages - pool.free.count) * PAGE_SIZE;
	assert_int_equal(page_pool_available(&pool), pages);
}

/* ---- VMs ---- */

static void create(void **state)
{
	u64 handle[HYPERPS_VMS];
	struct hyperps_vm description;

	(void)state;
	mm.vm[1].generation = 0x7fffffff; /* a slot that is used up: its handles would repeat */
	for (unsigned i = 0; i < HYPERPS_VMS - 1; i++) {
		handle[i] = (u64)mm_create(&mm);
		for (unsigned j = 0; j < i; j++)
			assert_true(handle[i] != handle[j]);
		assert_int_equal(vm_of(handle[i])->state, HYPERPS_VM_OPEN);
	}
	assert_refused(mm_create(&mm), HYPERPS_ERROR_MEMORY);
	mm_describe(&mm, handle[5] & 0xffffffff, &description);
	assert_int_equal(description.state, HYPERPS_VM_OPEN);
	assert_int_equal(description.handle, handle[5]);
	assert_int_equal(description.view_eptp, ept_pointer(&vm_of(handle[5])->view));
	mm_describe(&mm, 1, &description);
	assert_int_equal(description.state, HYPERPS_VM_FREE);
	assert_int_equal(description.handle, 0);
}

static void create_in_a_dry_pool(void **state)
{
	(void)state;
	shrink_pool(MM_POOL_RESERVE - 1);
	assert_refused(mm_create(&mm), HYPERPS_ERROR_MEMORY);
	pool.size += PAGE_SIZE;
	assert_int_equal(mm_create(&mm), 0);
}

/* A handle names one VM, and once that is gone, none. */
static void handles(void **state)
{
	u64 first = new_vm(), second;

	(void)state;
	assert_refused(mm_sync(&mm, ~0ULL), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_sync(&mm, first + 1), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_sync(&mm, first + HYPERPS_VMS), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_sync(&mm, first + BIT(32)), HYPERPS_ERROR_NO_VM);
	destroy(first);
	reclaim(first);
	assert_refused(mm_sync(&mm, first), HYPERPS_ERROR_NO_VM);
	second = new_vm();
	assert_true(second != first);
	assert_refused(mm_declare(&mm, first, 0, 1, EPT_READ), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_map(&mm, first, 0, FRAME, 1), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_sync(&mm, first), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_seal(&mm, first), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_destroy(&mm, first), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_reclaim(&mm, first), HYPERPS_ERROR_NO_VM);
	assert_refused(mm_enter(&mm, first), HYPERPS_ERROR_NO_VM);
	assert_int_equal(mm_guest_frame(&mm, first, 0), HYPERPS_ERROR_NO_VM);
	assert_int_equal(mm_range(&mm, first, 0), 0);
	assert_int_equal(mm_range(&mm, ~0ULL, 0), 0);
	assert_int_equal(mm_sync(&mm, second), 0);
}

static void declare(void **state)
{
	u64 handle = (u64)mm_create(&mm), end = BIT(MM_VIEW_BITS);

	(void)state;
	assert_refused(mm_declare(&mm, handle, 1, 1, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, 0, 0, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, end, 1, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, end - PAGE_SIZE, 2, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, PAGE_SIZE, ~0ULL, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, 0, 1, EPT_WRITE), HYPERPS_ERROR_INVALID);
	for (u64 permissions = 0; permissions < 64; permissions++)
		if (permissions > HYPERPS_RANGE_MMIO || !(permissions & EPT_READ || permissions == HYPERPS_RANGE_MMIO))
			assert_refused(mm_declare(&mm, handle, 0, 1, permissions), HYPERPS_ERROR_INVALID);
	assert_refused(mm_declare(&mm, handle, 0, 1, BIT(63) | HYPERPS_RANGE_MMIO), HYPERPS_ERROR_INVALID);
	assert_int_equal(mm_declare(&mm, handle, 4 * PAGE_SIZE, 4, EPT_READ), 1);
	assert_refused(mm_declare(&mm, handle, 0, 5, EPT_READ), HYPERPS_ERROR_OWNER);
	assert_refused(mm_declare(&mm, handle, 7 * PAGE_SIZE, 1, EPT_READ), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_declare(&mm, handle, 0, 4, EPT_RWX), 2);
	for (u64 n = 2; n < HYPERPS_VM_RANGES; n++)
		assert_int_equal(mm_declare(&mm, handle, n * PAGE_SIZE_1G, 1, EPT_READ), n + 1);
	assert_refused(mm_declare(&mm, handle, end - PAGE_SIZE, 1, EPT_READ), HYPERPS_ERROR_INVALID);
	assert_int_equal(mm_seal(&mm, handle), 0);
	assert_refused(mm_declare(&mm, handle, end - PAGE_SIZE, 1, EPT_READ), HYPERPS_ERROR_STATE);
	destroy(handle);
	assert_refused(mm_declare(&mm, handle, end - PAGE_SIZE, 1, EPT_READ), HYPERPS_ERROR_STATE);
}

/* MMIO is a range like any other, but takes no frames. */
static void declare_mmio(void **state)
{
	u64 handle = (u64)mm_create(&mm);
	struct hyperps_vm description;

	(void)state;
	assert_int_equal(mm_declare(&mm, handle, 4 * PAGE_SIZE, 4, HYPERPS_RANGE_MMIO), 1);
	assert_refused(mm_declare(&mm, handle, 7 * PAGE_SIZE, 2, EPT_READ), HYPERPS_ERROR_OWNER);
	assert_refused(mm_declare(&mm, handle, 7 * PAGE_SIZE, 2, HYPERPS_RANGE_MMIO), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_declare(&mm, handle, 8 * PAGE_SIZE, 4, EPT_RWX), 2);
	assert_refused(mm_declare(&mm, handle, 9 * PAGE_SIZE, 1, HYPERPS_RANGE_MMIO), HYPERPS_ERROR_OWNER);
	mm_describe(&mm, handle & 0xffffffff, &description);
	assert_int_equal(description.ranges, 2);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE, FRAME, 1), HYPERPS_ERROR_PERMISSION);
	assert_refused(mm_map(&mm, handle, 7 * PAGE_SIZE, FRAME, 2), HYPERPS_ERROR_PERMISSION);
	assert_int_equal(mm_map(&mm, handle, 8 * PAGE_SIZE, FRAME, 1), 1);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	finish_seal(handle);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE, FRAME + 1, 1), HYPERPS_ERROR_PERMISSION);
	for (u64 n = 2; n < HYPERPS_VM_RANGES; n++)
		assert_refused(mm_declare(&mm, handle, n * PAGE_SIZE_1G, 1, HYPERPS_RANGE_MMIO), HYPERPS_ERROR_STATE);
}

static void ranges(void **state)
{
	static const u64 nowhere[] = { 0,       4 * PAGE_SIZE - 1, 8 * PAGE_SIZE, BIT(MM_VIEW_BITS), BIT(48), BIT(52),
				       BIT(63), ~0xfffULL,         ~0ULL };
	u64 handle = (u64)mm_create(&mm), other = (u64)mm_create(&mm);
	const struct vm *vm = mm_find_vm(&mm, handle);
	const struct vm_range *range;

	(void)state;
	assert_int_equal(vm->range_count, 0);
	assert_int_equal(mm_declare(&mm, handle, 6 * PAGE_SIZE, 2, HYPERPS_RANGE_MMIO), 1);
	assert_int_equal(mm_declare(&mm, handle, 4 * PAGE_SIZE, 2, EPT_READ | EPT_EXECUTE), 2);
	assert_int_equal(mm_declare(&mm, handle, BIT(MM_VIEW_BITS) - PAGE_SIZE, 1, EPT_READ), 3);
	range = vm->range;
	assert_int_equal(vm->range_count, 3);
	assert_int_equal(range[0].gpa, 6 * PAGE_SIZE);
	assert_int_equal(range[0].frames, 2);
	assert_int_equal(range[0].permissions, HYPERPS_RANGE_MMIO);
	assert_int_equal(range[1].gpa, 4 * PAGE_SIZE);
	assert_int_equal(range[1].permissions, EPT_READ | EPT_EXECUTE);
	for (u64 round = 0; round < 2; round++) {
		assert_int_equal(mm_range(&mm, handle, 4 * PAGE_SIZE), EPT_READ | EPT_EXECUTE);
		assert_int_equal(mm_range(&mm, handle, 6 * PAGE_SIZE - 1), EPT_READ | EPT_EXECUTE);
		assert_int_equal(mm_range(&mm, handle, 6 * PAGE_SIZE), HYPERPS_RANGE_MMIO);
		assert_int_equal(mm_range(&mm, handle, 8 * PAGE_SIZE - 1), HYPERPS_RANGE_MMIO);
		assert_int_equal(mm_range(&mm, handle, BIT(MM_VIEW_BITS) - 1), EPT_READ);
		for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++)
			assert_int_equal(mm_range(&mm, handle, nowhere[i]), 0);
		assert_int_equal(mm_range(&mm, other, 4 * PAGE_SIZE), 0);
		if (!round)
			finish_seal(handle);
	}
}

/* ---- HOST -> TO_VM ---- */

static void map(void **state)
{
	u64 handle = new_vm(), gpa = 3 * PAGE_SIZE_1G + 5 * PAGE_SIZE;
	struct hyperps_vm description;

	(void)state;
	assert_true(host_has(FRAME + 7));
	assert_int_equal(mm_map(&mm, handle, gpa, FRAME + 7, 2), 2);
	for (u64 i = 0; i < 2; i++) {
		assert_mark(FRAME + 7 + i, HYPERPS_FRAME_TO_VM, handle, gpa + i * PAGE_SIZE);
		assert_false(host_has(FRAME + 7 + i));
		assert_int_equal(guest_entry(handle, gpa + i * PAGE_SIZE), 0);
	}
	/* Its neighbours stay the host's. */
	assert_state(FRAME + 6, 1, HYPERPS_FRAME_HOST);
	assert_true(host_has(FRAME + 6) && host_has(FRAME + 9));
	/* The next run joins the one before: one more run, whatever its length, is what counts. */
	assert_int_equal(mm_map(&mm, handle, gpa + 2 * PAGE_SIZE, FRAME + 20, 1), 1);
	assert_int_equal(vm_of(handle)->pending.count, 1);
	assert_int_equal(mm_map(&mm, handle, 0, FRAME + FRAMES_2M, FRAMES_2M), FRAMES_2M);
	assert_int_equal(vm_of(handle)->pending.count, 2);
	mm_describe(&mm, handle & 0xffffffff, &description);
	assert_int_equal(description.frames, 3 + FRAMES_2M);
	assert_int_equal(description.pending, 3 + FRAMES_2M);
	assert_int_equal(description.view_4k, 3);
	assert_int_equal(description.view_2m, 1);
	assert_int_equal(zeroed, 0);
}

static void map_refuses_arguments(void **state)
{
	u64 handle = (u64)mm_create(&mm), end = BIT(MM_VIEW_BITS);

	(void)state;
	assert_refused(mm_map(&mm, handle, 0, FRAME, 1), HYPERPS_ERROR_PERMISSION);
	assert_int_equal(mm_declare(&mm, handle, 4 * PAGE_SIZE, 4, EPT_READ), 1);
	assert_int_equal(mm_declare(&mm, handle, 8 * PAGE_SIZE, 4, EPT_RWX), 2);
	assert_int_equal(mm_declare(&mm, handle, end - PAGE_SIZE, 1, EPT_RWX), 3);
	assert_refused(mm_map(&mm, handle, 3 * PAGE_SIZE, FRAME, 1), HYPERPS_ERROR_PERMISSION);
	assert_refused(mm_map(&mm, handle, 12 * PAGE_SIZE, FRAME, 1), HYPERPS_ERROR_PERMISSION);
	assert_refused(mm_map(&mm, handle, 7 * PAGE_SIZE, FRAME, 2), HYPERPS_ERROR_PERMISSION);
	assert_refused(mm_map(&mm, handle, 11 * PAGE_SIZE, FRAME, 2), HYPERPS_ERROR_PERMISSION);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE + 1, FRAME, 1), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE, FRAME, 0), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE, FRAME, HYPERPS_MAP_FRAMES + 1), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, 4 * PAGE_SIZE, FRAME, ~0ULL), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, end, FRAME, 1), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, end - PAGE_SIZE, FRAME, 2), HYPERPS_ERROR_INVALID);
	assert_refused(mm_map(&mm, handle, ~0xfffULL, FRAME, 1), HYPERPS_ERROR_INVALID);
	assert_int_equal(mm_map(&mm, handle, end - PAGE_SIZE, FRAME, 1), 1);
}

/* A frame in each state but HOST, and a gpa that is taken. */
static void map_refuses_owners(void **state)
{
	u64 handle = new_vm(), other = new_vm(), dead = new_vm();

	(void)state;
	map_and_sync(dead, 0, FRAME, 1);
	destroy(dead);
	map_and_sync(other, 0, FRAME + 1, 1);
	assert_int_equal(mm_map(&mm, other, PAGE_SIZE, FRAME + 2, 1), 1);
	assert_int_equal(mm_donate(&mm, LOW_FRAME), FRAMES_2M);
	assert_state(FRAME, 1, HYPERPS_FRAME_TO_HOST);
	assert_state(FRAME + 1, 1, HYPERPS_FRAME_PRIVATE);
	assert_state(FRAME + 2, 1, HYPERPS_FRAME_TO_VM);
	assert_state(LOW_FRAME, 1, HYPERPS_FRAME_TO_MONITOR);
	for (u64 i = 0; i < 3; i++)
		assert_refused(mm_map(&mm, handle, 0, FRAME + i, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, LOW_FRAME, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, DEVICE_FRAME, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, MONITOR_FRAME, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, FRAMES, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, FRAMES - 1, 2), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, ~0ULL, 2), HYPERPS_ERROR_OWNER);
	/* One of a run is enough. */
	assert_refused(mm_map(&mm, handle, 0, FRAME - 2, 3), HYPERPS_ERROR_OWNER);
	/* Populated, by a frame that is synced and by one that is not. */
	assert_refused(mm_map(&mm, other, 0, FRAME + 9, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, other, PAGE_SIZE, FRAME + 9, 1), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_map(&mm, other, 9 * PAGE_SIZE, FRAME + 9, 1), 1);
	assert_refused(mm_map(&mm, other, 7 * PAGE_SIZE, FRAME + 10, 3), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_map(&mm, other, 7 * PAGE_SIZE, FRAME + 10, 2), 2);
}

static void map_refuses_states(void **state)
{
	u64 handle = new_vm(), many = new_vm();

	(void)state;
	for (u64 i = 0; i < 2; i++)
		map_and_sync(many, i * PAGE_SIZE_1G, FRAME + i * FRAMES_2M, FRAMES_2M);
	assert_int_equal(mm_destroy(&mm, many), 1);
	assert_int_equal(vm_of(many)->state, HYPERPS_VM_DYING);
	assert_refused(mm_map(&mm, many, 0, FRAME - 1, 1), HYPERPS_ERROR_STATE);
	assert_refused(mm_sync(&mm, many), HYPERPS_ERROR_STATE);
	assert_refused(mm_seal(&mm, many), HYPERPS_ERROR_STATE);
	assert_refused(mm_reclaim(&mm, many), HYPERPS_ERROR_STATE);
	destroy(handle);
	assert_refused(mm_map(&mm, handle, 0, FRAME - 1, 1), HYPERPS_ERROR_STATE);
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_STATE);
	assert_refused(mm_seal(&mm, handle), HYPERPS_ERROR_STATE);
	assert_refused(mm_destroy(&mm, handle), HYPERPS_ERROR_STATE);
}

static void map_needs_pool_and_runs(void **state)
{
	u64 handle = new_vm();

	(void)state;
	for (u64 i = 0; i < MM_PENDING; i++)
		assert_int_equal(mm_map(&mm, handle, 2 * i * PAGE_SIZE, FRAME + i, 1), 1);
	assert_refused(mm_map(&mm, handle, 2 * MM_PENDING * PAGE_SIZE, FRAME + MM_PENDING, 1), HYPERPS_ERROR_AGAIN);
	/* But what goes on where the last run ends is no new run. */
	assert_int_equal(mm_map(&mm, handle, (2 * MM_PENDING - 1) * PAGE_SIZE, FRAME + MM_PENDING, 1), 1);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	shrink_pool(MM_POOL_RESERVE - 1);
	assert_refused(mm_map(&mm, handle, PAGE_SIZE_1G, FRAME - 1, 1), HYPERPS_ERROR_MEMORY);
	pool.size += PAGE_SIZE;
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE_1G, FRAME - 1, 1), 1);
}

/* ---- TO_VM -> PRIVATE ---- */

static void sync(void **state)
{
	u64 handle = (u64)mm_create(&mm);

	(void)state;
	assert_int_equal(mm_declare(&mm, handle, 0, 8, EPT_READ | EPT_WRITE), 1);
	assert_int_equal(mm_sync(&mm, handle), 0); /* nothing to do, whatever was flushed */
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE, FRAME, 2), 2);
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_AGAIN);
	/* A flush that began before the frames left is not enough. */
	mm.flushed = mm.epoch;
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_AGAIN);
	++mm.epoch;
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_AGAIN);
	mm.flushed = mm.epoch;
	assert_int_equal(mm_sync(&mm, handle), 0);
	for (u64 i = 0; i < 2; i++) {
		assert_mark(FRAME + i, HYPERPS_FRAME_PRIVATE, handle, (1 + i) * PAGE_SIZE);
		assert_false(host_has(FRAME + i));
		assert_int_equal(guest_entry(handle, (1 + i) * PAGE_SIZE),
				 (FRAME + i) << PAGE_SHIFT | EPT_READ | EPT_WRITE |
					 (u64)MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT);
	}
	assert_int_equal(zeroed, 0); /* what the host put there is the VM's image */
}

/* Never more than a batch at a time, never nothing; what is left stays out of the guest's reach. */
static void sync_in_batches(void **state)
{
	u64 handle = new_vm(), left = FRAMES_2M + 100 + 2 * 300;

	(void)state;
	assert_int_equal(mm_map(&mm, handle, 0, FRAME, FRAMES_2M), FRAMES_2M);
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE_2M, FRAME + FRAMES_2M + 1, 100), 100);
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE_1G, FRAME - 300, 300), 300);
	assert_int_equal(mm_map(&mm, handle, 2 * PAGE_SIZE_1G, FRAME - 600, 300), 300);
	flush();
	while (left) {
		u64 before = left;

		left = (u64)mm_sync(&mm, handle);
		assert_true(left < before && before - left <= MM_BATCH);
		assert_int_equal(marks.count[HYPERPS_FRAME_TO_VM], left);
		for (u64 i = 0; i < 300; i++)
			assert_int_equal(!guest_entry(handle, PAGE_SIZE_1G + i * PAGE_SIZE),
					 page_mark_state(&marks, FRAME - 300 + i) == HYPERPS_FRAME_TO_VM);
	}
	assert_int_equal(vm_of(handle)->pending.count, 0);
	assert_true(guest_entry(handle, 0) & EPT_LARGE);
}

static void seal(void **state)
{
	u64 handle = new_vm();

	(void)state;
	assert_int_equal(mm_map(&mm, handle, 0, FRAME, 1), 1);
	assert_refused(mm_seal(&mm, handle), HYPERPS_ERROR_AGAIN);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	assert_int_equal(mm_seal(&mm, handle), 0);
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_SEALED);
	assert_refused(mm_seal(&mm, handle), HYPERPS_ERROR_STATE);
	assert_int_equal(zeroed, 0);
	/* From now on nothing that the host wrote comes in; and not before the flush, after which nobody else can write. */
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE, FRAME + 1, 1), 1);
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_AGAIN);
	assert_int_equal(zeroed, 0);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	assert_int_equal(zeroed, 1);
	assert_int_equal(zeroed_last, FRAME + 1);
}

/* Each page is measured, a few in each call; meanwhile the VM takes no other request, and keeps what it has. */
static void seal_in_steps(void **state)
{
	u64 handle = new_vm(), calls = 0, before;
	struct hyperps_vm description;
	s64 result;

	(void)state;
	map_and_sync(handle, PAGE_SIZE_1G, FRAME - 2, 1);
	map_and_sync(handle, PAGE_SIZE_2M, FRAME, FRAMES_2M); /* a large page */
	map_and_sync(handle, BIT(MM_VIEW_BITS) - PAGE_SIZE, FRAME - 1, 1);
	do {
		before = measured;
		result = mm_seal(&mm, handle);
		assert_true(measured - before <= MM_SEAL_PAGES);
		assert_int_equal(vm_of(handle)->state, result ? HYPERPS_VM_SEALING : HYPERPS_VM_SEALED);
		if (calls++)
			continue;
		assert_int_equal(measured, MM_SEAL_PAGES);
		mm_describe(&mm, handle & 0xffffffff, &description);
		assert_int_equal(description.state, HYPERPS_VM_SEALING);
		assert_refused(mm_declare(&mm, handle, 0, 1, EPT_READ), HYPERPS_ERROR_STATE);
		assert_refused(mm_map(&mm, handle, 0, FRAME - 3, 1), HYPERPS_ERROR_STATE);
		assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_STATE);
		assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_STATE);
		assert_refused(mm_enter(&mm, handle), HYPERPS_ERROR_STATE);
		assert_refused(mm_guest_move(&mm, handle, PAGE_SIZE_2M, 1, HYPERPS_FRAME_SHARED), HYPERPS_ERROR_STATE);
		assert_refused(mm_guest_move(&mm, handle, PAGE_SIZE_2M, 1, HYPERPS_FRAME_TO_VM), HYPERPS_ERROR_STATE);
		assert_refused(mm_guest_move(&mm, handle, PAGE_SIZE_2M, 1, HYPERPS_FRAME_TO_HOST), HYPERPS_ERROR_STATE);
		assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M), HYPERPS_ERROR_STATE);
	} while (result == 1);
	assert_int_equal(result, 0);
	assert_int_equal(measured, 2 + FRAMES_2M);
	assert_int_equal(measured_last, BIT(MM_VIEW_BITS) - PAGE_SIZE);
	assert_true(calls <= (2 + FRAMES_2M) / MM_SEAL_PAGES + 3);
	assert_true(guest_entry(handle, PAGE_SIZE_2M) & EPT_LARGE);
	assert_refused(mm_seal(&mm, handle), HYPERPS_ERROR_STATE);
}

/* As many pages as one call measures need one call, and one more page one more. */
static void seal_exactly(void **state)
{
	u64 handle[] = { new_vm(), new_vm(), new_vm() };

	(void)state;
	map_and_sync(handle[1], 0, FRAME, MM_SEAL_PAGES);
	map_and_sync(handle[2], 0, FRAME + FRAMES_2M, MM_SEAL_PAGES + 1);
	for (u64 i = 0; i < 3; i++, measured = 0)
		assert_int_equal(mm_seal(&mm, handle[i]), i == 2);
	assert_int_equal(mm_seal(&mm, handle[2]), 0);
	assert_int_equal(measured, 1);
	assert_int_equal(measured_last, MM_SEAL_PAGES * PAGE_SIZE);
}

/* Long walks between the pages are steps, too. A VM can be ended half-way. */
static void seal_sparse(void **state)
{
	u64 handle[] = { new_vm(), new_vm() }, calls = 0;

	(void)state;
	for (u64 i = 0; i < 8; i++) {
		map_and_sync(handle[0], i << 41, FRAME + i, 1);
		map_and_sync(handle[1], i << 41, FRAME + FRAMES_2M + i, 1);
	}
	for (; mm_seal(&mm, handle[0]) == 1; calls++)
		assert_true(calls < 20);
	assert_true(calls >= 1);
	assert_int_equal(measured, 8);
	measured = 0;
	assert_int_equal(mm_seal(&mm, handle[1]), 1);
	destroy(handle[1]);
	assert_state(FRAME + FRAMES_2M, 8, HYPERPS_FRAME_TO_HOST);
	assert_refused(mm_seal(&mm, handle[1]), HYPERPS_ERROR_STATE);
	reclaim(handle[1]);
	assert_state(FRAME + FRAMES_2M, 8, HYPERPS_FRAME_HOST);
	assert_int_equal(zeroed, 8);
}

/* What is in a VM is measured by the words of hyperps/abi.h: pages, ranges, vCPUs, and how many of both. */
static void measurement(void **state)
{
	u64 handle = (u64)mm_create(&mm), start[3] = { HYPERPS_VCPU_REAL | 0x5000, 0x1234, 0 }, gpa = 0x7000, words[8];
	struct hyperps_measurement got;
	struct vm_vcpu *vcpu;
	struct sha256 sha256;
	u8 digest[32];

	(void)state;
	assert_int_equal(mm_declare(&mm, handle, 0x7000, 2, EPT_RWX), 1);
	map_and_sync(handle, 0x7000, FRAME, 1);
	assert_int_equal(mm_add_vcpu(&mm, handle, start, &vcpu), 0);
	mm_describe_measurement(&mm, handle & 0xffffffff, &got);
	assert_true(!got.sealed && !got.vcpus);
	assert_int_equal(mm_seal(&mm, handle), 0);
	mm_describe_measurement(&mm, handle & 0xffffffff, &got);
	assert_true(got.sealed && got.vcpus == 1 && got.handle == handle);

	sha256_init(&sha256);
	sha256_update(&sha256, &gpa, sizeof(gpa));
	sha256_update(&sha256, content, PAGE_SIZE);
	memcpy(words, (const u64[8]){ 0x7000, 2 * PAGE_SIZE, EPT_RWX, start[0], start[1], start[2], 1, 1 },
	       sizeof(words));
	sha256_update(&sha256, words, sizeof(words));
	sha256_final(&sha256, digest);
	assert_memory_equal(got.sha256, digest, sizeof(digest));
	destroy(handle);
	mm_describe_measurement(&mm, handle & 0xffffffff, &got);
	assert_true(!got.sealed);
}

/* A vCPU has two pages of the pool, zeroed, until its VM ends; they wait in quarantine then. Only an OPEN VM gets one. */
static void vcpus(void **state)
{
	u64 handle = new_vm(), start[3] = { 1, 2, 3 }, before = page_pool_available(&pool),
	    waiting = marks.count[HYPERPS_FRAME_TO_MONITOR];
	struct vm_vcpu *vcpu;

	(void)state;
	for (s64 i = 0; i < HYPERPS_VCPUS; i++) {
		assert_int_equal(mm_add_vcpu(&mm, handle, start, &vcpu), i);
		assert_true(vcpu == &vm_of(handle)->vcpu[i] && vcpu->vmcs != vcpu->state);
		assert_memory_equal(vcpu->start, start, sizeof(start));
		for (u64 at = 0; at < PAGE_SIZE; at++)
			assert_true(!((u8 *)vcpu->vmcs)[at] && !((u8 *)vcpu->state)[at]);
	}
	assert_int_equal(page_pool_available(&pool), before - 2 * HYPERPS_VCPUS);
	assert_refused(mm_add_vcpu(&mm, handle, start, &vcpu), HYPERPS_ERROR_INVALID);
	assert_refused(mm_add_vcpu(&mm, handle + 1, start, &vcpu), HYPERPS_ERROR_NO_VM);
	assert_int_equal(mm_seal(&mm, handle), 0);
	assert_refused(mm_add_vcpu(&mm, handle, start, &vcpu), HYPERPS_ERROR_STATE);
	destroy(handle);
	assert_int_equal(vm_of(handle)->vcpus, 0);
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_MONITOR], waiting + 2 * HYPERPS_VCPUS);
	handle = new_vm();
	while (page_pool_available(&pool) >= MM_POOL_RESERVE + 2)
		page_pool_take(&pool);
	assert_refused(mm_add_vcpu(&mm, handle, start, &vcpu), HYPERPS_ERROR_MEMORY);
}

/* ---- PRIVATE, TO_VM -> TO_HOST -> HOST ---- */

static void destroy_and_reclaim(void **state)
{
	u64 handle = new_vm(), root = page_pool_hpa(&pool, vm_of(handle)->view.root).value >> PAGE_SHIFT;

	(void)state;
	map_and_sync(handle, 0, FRAME, 1);
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE, FRAME + 1, 1), 1);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_STATE);
	assert_int_equal(mm_destroy(&mm, handle), 0);
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_DEAD);
	assert_int_equal(vm_of(handle)->pending.count, 0);
	assert_state(FRAME, 2, HYPERPS_FRAME_TO_HOST);
	assert_false(host_has(FRAME) || host_has(FRAME + 1));
	assert_refused(mm_destroy(&mm, handle), HYPERPS_ERROR_STATE);

	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN);
	mm.flushed = mm.epoch; /* of a flush that began before */
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN);
	++mm.epoch;
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN);
	mm.flushed = mm.epoch;
	shrink_pool(3);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_MEMORY);
	pool.size = POOL_PAGES * PAGE_SIZE;
	reclaim(handle);
	assert_int_equal(zeroed, 2);
	assert_mark(FRAME, HYPERPS_FRAME_HOST, 0, 0);
	assert_mark(FRAME + 1, HYPERPS_FRAME_HOST, 0, 0);
	assert_int_equal(host_level(FRAME), 3); /* the large page of before */
	assert_state(root, 1, HYPERPS_FRAME_TO_MONITOR);
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_FREE);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_NO_VM);
}

/* Each call does a bounded amount of work; between the calls the VM stays out of use. */
static void destroy_and_reclaim_in_batches(void **state)
{
	u64 handle = new_vm(), calls = 0;

	(void)state;
	map_and_sync(handle, 0, FRAME, FRAMES_2M);
	map_and_sync(handle, PAGE_SIZE_2M, FRAME + FRAMES_2M + 1, 300);
	map_and_sync(handle, PAGE_SIZE_1G, FRAME - 300, 300);
	assert_int_equal(mm_destroy(&mm, handle), 1);
	assert_state(FRAME, FRAMES_2M, HYPERPS_FRAME_TO_HOST);
	assert_state(FRAME + FRAMES_2M + 1, 300, HYPERPS_FRAME_PRIVATE);
	flush();
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_STATE);
	destroy(handle);
	assert_state(FRAME - 300, 300, HYPERPS_FRAME_TO_HOST);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN); /* the flush came before the end */
	flush();
	for (; mm_reclaim(&mm, handle) == 1; calls++)
		assert_true(calls < 20 && zeroed <= (calls + 1) * MM_BATCH);
	assert_true(calls >= 2);
	assert_int_equal(zeroed, FRAMES_2M + 600);
	assert_int_equal(marks.count[HYPERPS_FRAME_TO_HOST], 0);
	assert_int_equal(host_level(FRAME), 3);
}

/* A view in which a page here and there needs long walks. */
static void destroy_and_reclaim_sparse(void **state)
{
	u64 handle = new_vm(), calls = 0;

	(void)state;
	for (u64 i = 0; i < 8; i++)
		map_and_sync(handle, i << 41, FRAME + i, 1);
	for (; mm_destroy(&mm, handle) == 1; calls++)
		assert_true(calls < 20);
	assert_true(calls >= 1);
	flush();
	for (calls = 0; mm_reclaim(&mm, handle) == 1; calls++)
		assert_true(calls < 20);
	assert_true(calls >= 1);
	assert_int_equal(zeroed, 8);
	assert_int_equal(host_level(FRAME), 3);
}

/* A reclaim that finds the pool too small on its way stops there, and goes on when it has grown. */
static void reclaim_with_a_small_pool(void **state)
{
	u64 handle = new_vm();
	s64 result;

	(void)state;
	/* All of the second GiB's last 6 MiB: its tables in the host view are gone, and reclaiming needs new ones. */
	for (u64 i = 0; i < 3; i++)
		map_and_sync(handle, i * PAGE_SIZE_2M + PAGE_SIZE, FRAMES - (i + 1) * FRAMES_2M, FRAMES_2M);
	destroy(handle);
	flush();
	shrink_pool(4);
	for (unsigned calls = 0; (result = mm_reclaim(&mm, handle)) == 1; calls++)
		assert_true(calls < 20);
	if (result == HYPERPS_ERROR_MEMORY) {
		pool.size += 8 * PAGE_SIZE;
		reclaim(handle);
	} else {
		assert_int_equal(result, 0);
	}
	assert_int_equal(zeroed, 3 * FRAMES_2M);
	assert_int_equal(host_level(FRAME), 3);
}

/* What the MTRRs don't make write-back stays the host's. */
static void uncached(void **state)
{
	u64 handle = new_vm(), first = UNCACHED >> PAGE_SHIFT, chunk = ALIGN_DOWN(first, FRAMES_2M);

	(void)state;
	assert_refused(mm_map(&mm, handle, 0, chunk, FRAMES_2M), HYPERPS_ERROR_OWNER);
	assert_refused(mm_map(&mm, handle, 0, first, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_donate(&mm, chunk), HYPERPS_ERROR_OWNER);
	map_and_sync(handle, 0, chunk, first - chunk);
	assert_true(host_has(first));
	destroy(handle);
	reclaim(handle);
}

/* ---- HOST -> TO_MONITOR -> MONITOR ---- */

static void donate(void **state)
{
	u64 before;

	(void)state;
	assert_refused(mm_donate(&mm, LOW_FRAME + 1), HYPERPS_ERROR_INVALID);
	assert_refused(mm_donate(&mm, PAGE_MARK_LIMIT / PAGE_SIZE), HYPERPS_ERROR_INVALID);
	assert_refused(mm_donate(&mm, ~0ULL - 511), HYPERPS_ERROR_INVALID);
	assert_refused(mm_donate(&mm, 0), HYPERPS_ERROR_OWNER); /* device frames among them */
	assert_refused(mm_donate(&mm, MONITOR_FRAME), HYPERPS_ERROR_OWNER);
	assert_refused(mm_donate(&mm, FRAMES), HYPERPS_ERROR_OWNER);
	shrink_pool(MM_DIRECT_TABLES);
	assert_refused(mm_donate(&mm, LOW_FRAME), HYPERPS_ERROR_MEMORY);
	/* With so few pages nothing else works. */
	shrink_pool(MM_DIRECT_TABLES + 1);
	assert_refused(mm_create(&mm), HYPERPS_ERROR_MEMORY);
	direct_map_fails = true;
	assert_refused(mm_donate(&mm, LOW_FRAME), HYPERPS_ERROR_MEMORY);
	direct_map_fails = false;
	assert_int_equal(mm_donate(&mm, LOW_FRAME), FRAMES_2M);
	assert_int_equal(donated_last, LOW_FRAME);
	before = page_pool_available(&pool);
	assert_state(LOW_FRAME, FRAMES_2M, HYPERPS_FRAME_TO_MONITOR);
	assert_false(host_has(LOW_FRAME) || host_has(LOW_FRAME + FRAMES_2M - 1));
	assert_true(host_has(LOW_FRAME + FRAMES_2M));
	/* Not the monitor's before the flush; then the next request makes it so. */
	assert_refused(mm_donate(&mm, LOW_FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_create(&mm), HYPERPS_ERROR_MEMORY);
	assert_state(LOW_FRAME, FRAMES_2M, HYPERPS_FRAME_TO_MONITOR);
	assert_int_equal(page_pool_available(&pool), before);
	flush();
	assert_int_equal(mm_create(&mm), 0);
	assert_state(LOW_FRAME, FRAMES_2M, HYPERPS_FRAME_MONITOR);
	assert_true(page_pool_available(&pool) >= before + FRAMES_2M - 1);
	assert_refused(mm_donate(&mm, LOW_FRAME), HYPERPS_ERROR_OWNER);
}

/* ---- The guest's requests: PRIVATE <-> SHARED, PRIVATE -> TO_HOST ---- */

static u64 host_entry(u64 frame)
{
	unsigned level;

	return ept_lookup(&host_view, GPA(frame << PAGE_SHIFT), &level);
}

static u64 sealed_vm(u64 gpa, u64 frame, u64 count)
{
	u64 handle = new_vm();

	map_and_sync(handle, gpa, frame, count);
	finish_seal(handle);
	measured = 0;
	return handle;
}

static void share_and_unshare(void **state)
{
	u64 handle = sealed_vm(0, FRAME, FRAMES_2M), entry = guest_entry(handle, 3 * PAGE_SIZE);

	(void)state;
	assert_int_equal(mm_guest_move(&mm, handle, 3 * PAGE_SIZE, 2, HYPERPS_FRAME_SHARED), 0);
	for (u64 i = 3; i < 5; i++) {
		assert_mark(FRAME + i, HYPERPS_FRAME_SHARED, handle, i * PAGE_SIZE);
		assert_int_equal(host_entry(FRAME + i) & EPT_RWX, EPT_READ | EPT_WRITE);
	}
	assert_false(host_has(FRAME + 2) || host_has(FRAME + 5));
	assert_int_equal(guest_entry(handle, 3 * PAGE_SIZE), entry);
	assert_int_equal(mm_query(&mm, handle, FRAME + 3), HYPERPS_FRAME_SHARED);
	/* It stays the VM's: nobody else gets it. */
	assert_refused(mm_map(&mm, handle, PAGE_SIZE_1G, FRAME + 3, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_guest_move(&mm, handle, 4 * PAGE_SIZE, 2, HYPERPS_FRAME_SHARED), HYPERPS_ERROR_OWNER);
	assert_refused(mm_guest_move(&mm, handle, 3 * PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST), HYPERPS_ERROR_OWNER);
	assert_refused(mm_guest_move(&mm, handle, 4 * PAGE_SIZE, 2, HYPERPS_FRAME_TO_VM), HYPERPS_ERROR_OWNER);

	flush(); /* one that comes too early */
	assert_int_equal(mm_guest_move(&mm, handle, 3 * PAGE_SIZE, 2, HYPERPS_FRAME_TO_VM), 0);
	for (u64 i = 3; i < 5; i++) {
		assert_mark(FRAME + i, HYPERPS_FRAME_TO_VM, handle, i * PAGE_SIZE);
		assert_false(host_has(FRAME + i));
		assert_int_equal(guest_entry(handle, i * PAGE_SIZE), 0);
	}
	assert_true(guest_entry(handle, 5 * PAGE_SIZE)); /* the neighbours in what was a large page */
	assert_refused(mm_sync(&mm, handle), HYPERPS_ERROR_AGAIN);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	assert_state(FRAME, FRAMES_2M, HYPERPS_FRAME_PRIVATE);
	assert_int_equal(zeroed, 2); /* the host wrote last */
	assert_int_equal(guest_entry(handle, 3 * PAGE_SIZE) & EPT_RWX, EPT_RWX);
}

static void release(void **state)
{
	u64 handle = sealed_vm(PAGE_SIZE, FRAME, 8);

	(void)state;
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_STATE);
	flush();
	assert_int_equal(mm_guest_move(&mm, handle, 2 * PAGE_SIZE, 2, HYPERPS_FRAME_TO_HOST), 0);
	assert_mark(FRAME + 1, HYPERPS_FRAME_TO_HOST, handle, 2 * PAGE_SIZE);
	assert_mark(FRAME + 2, HYPERPS_FRAME_TO_HOST, handle, 3 * PAGE_SIZE);
	assert_int_equal(guest_entry(handle, 2 * PAGE_SIZE) | guest_entry(handle, 3 * PAGE_SIZE), 0);
	assert_true(guest_entry(handle, PAGE_SIZE) && guest_entry(handle, 4 * PAGE_SIZE));
	assert_false(host_has(FRAME + 1) || host_has(FRAME + 2));
	assert_refused(mm_guest_move(&mm, handle, 2 * PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST), HYPERPS_ERROR_OWNER);
	/* Nothing else may come there before the old translations are gone. */
	assert_refused(mm_map(&mm, handle, 2 * PAGE_SIZE, FRAME - 1, 1), HYPERPS_ERROR_OWNER);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN);
	flush();
	assert_int_equal(mm_reclaim(&mm, handle), 0);
	assert_int_equal(zeroed, 2);
	assert_mark(FRAME + 1, HYPERPS_FRAME_HOST, 0, 0);
	assert_true(host_has(FRAME + 1) && host_has(FRAME + 2));
	/* The VM goes on, and can get a page there again, which is zeroed first. */
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_SEALED);
	map_and_sync(handle, 2 * PAGE_SIZE, FRAME - 1, 1);
	assert_int_equal(zeroed, 3);
}

static void release_in_batches(void **state)
{
	u64 handle = sealed_vm(0, FRAME, FRAMES_2M), left = FRAMES_2M + 300;

	(void)state;
	map_and_sync(handle, PAGE_SIZE_2M, FRAME + FRAMES_2M + 1, 300);
	zeroed = 0;
	assert_int_equal(mm_guest_move(&mm, handle, 0, FRAMES_2M, HYPERPS_FRAME_TO_HOST),
			 0); /* a large page as a whole */
	assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE_2M, 300, HYPERPS_FRAME_TO_HOST), 0);
	flush();
	for (s64 result = 1; result; left -= zeroed, zeroed = 0) {
		result = mm_reclaim(&mm, handle);
		assert_true(result >= 0 && zeroed && zeroed <= MM_BATCH);
	}
	assert_int_equal(left, 0);
	assert_int_equal(vm_of(handle)->frames, 0);
	assert_int_equal(host_level(FRAME), 3);
}

static void guest_errors(void **state)
{
	static const u64 to[] = { HYPERPS_FRAME_SHARED, HYPERPS_FRAME_TO_VM, HYPERPS_FRAME_TO_HOST };
	u64 open = new_vm(), handle = sealed_vm(0, FRAME, 2 * MM_PENDING + 4);

	(void)state;
	map_and_sync(open, 0, FRAME - 1, 1);
	assert_int_equal(mm_guest_move(&mm, handle, 0, 1, HYPERPS_FRAME_SHARED), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(to); i++) {
		assert_refused(mm_guest_move(&mm, handle + BIT(32), 0, 1, to[i]), HYPERPS_ERROR_NO_VM);
		assert_refused(mm_guest_move(&mm, open, 0, 1, to[i]), HYPERPS_ERROR_STATE);
		assert_refused(mm_guest_move(&mm, handle, 1, 1, to[i]), HYPERPS_ERROR_INVALID);
		assert_refused(mm_guest_move(&mm, handle, 0, 0, to[i]), HYPERPS_ERROR_INVALID);
		assert_refused(mm_guest_move(&mm, handle, 0, MM_BATCH + 1, to[i]), HYPERPS_ERROR_INVALID);
		assert_refused(mm_guest_move(&mm, handle, 0, ~0ULL, to[i]), HYPERPS_ERROR_INVALID);
		assert_refused(mm_guest_move(&mm, handle, BIT(MM_VIEW_BITS), 1, to[i]), HYPERPS_ERROR_INVALID);
		assert_refused(mm_guest_move(&mm, handle, BIT(MM_VIEW_BITS) - PAGE_SIZE, 1, to[i]),
			       HYPERPS_ERROR_OWNER);
		assert_refused(mm_guest_move(&mm, handle, 0, 2, to[i]),
			       HYPERPS_ERROR_OWNER); /* one is shared, one is not */
	}
	shrink_pool(MM_POOL_RESERVE - 1);
	assert_refused(mm_guest_move(&mm, handle, PAGE_SIZE, 1, HYPERPS_FRAME_SHARED), HYPERPS_ERROR_MEMORY);
	assert_refused(mm_guest_move(&mm, handle, 0, 1, HYPERPS_FRAME_TO_VM), HYPERPS_ERROR_MEMORY);
	assert_refused(mm_guest_move(&mm, handle, PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST), HYPERPS_ERROR_MEMORY);
	pool.size = POOL_PAGES * PAGE_SIZE;
	/* As many runs as fit, of one sort and of the other. */
	assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE, 2 * MM_PENDING, HYPERPS_FRAME_SHARED), 0);
	for (u64 i = 0; i < MM_PENDING; i++)
		assert_int_equal(mm_guest_move(&mm, handle, 2 * i * PAGE_SIZE, 1, HYPERPS_FRAME_TO_VM), 0);
	assert_refused(mm_guest_move(&mm, handle, 2 * MM_PENDING * PAGE_SIZE, 1, HYPERPS_FRAME_TO_VM),
		       HYPERPS_ERROR_AGAIN);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	for (u64 i = 0; i < MM_PENDING; i++)
		assert_int_equal(mm_guest_move(&mm, handle, 2 * i * PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST), 0);
	assert_refused(mm_guest_move(&mm, handle, (2 * MM_PENDING + 2) * PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST),
		       HYPERPS_ERROR_AGAIN);
}

/* A VM with pages in every state is ended: all of them are the host's again, zeroed. */
static void destroy_with_shared(void **state)
{
	u64 handle = sealed_vm(0, FRAME, FRAMES_2M);

	(void)state;
	assert_int_equal(mm_guest_move(&mm, handle, 8 * PAGE_SIZE, 8, HYPERPS_FRAME_SHARED), 0);
	assert_int_equal(mm_guest_move(&mm, handle, 12 * PAGE_SIZE, 2, HYPERPS_FRAME_TO_VM), 0);
	assert_int_equal(mm_guest_move(&mm, handle, 0, 4, HYPERPS_FRAME_TO_HOST), 0);
	assert_true(host_has(FRAME + 8));
	destroy(handle);
	assert_false(host_has(FRAME + 8));
	assert_state(FRAME, FRAMES_2M, HYPERPS_FRAME_TO_HOST);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_AGAIN);
	reclaim(handle);
	assert_int_equal(zeroed, FRAMES_2M);
	assert_int_equal(host_level(FRAME), 3);
	assert_int_equal(host_entry(FRAME + 8) & EPT_RWX, EPT_RWX);
}

/* A vCPU runs only in a SEALED VM, which then can't end. */
static void enter_and_leave(void **state)
{
	u64 open = new_vm(), handle = sealed_vm(0, FRAME, 1), other = sealed_vm(0, FRAME + 1, 1);

	(void)state;
	assert_refused(mm_enter(&mm, open), HYPERPS_ERROR_STATE);
	assert_refused(mm_enter(&mm, handle + BIT(32)), HYPERPS_ERROR_NO_VM);
	assert_int_equal(mm_enter(&mm, handle), 0);
	assert_int_equal(mm_enter(&mm, handle), 0);
	assert_refused(mm_destroy(&mm, handle), HYPERPS_ERROR_STATE);
	mm_leave(&mm, handle);
	assert_refused(mm_destroy(&mm, handle), HYPERPS_ERROR_STATE);
	/* All else goes on; another VM can end. */
	destroy(other);
	assert_refused(mm_enter(&mm, other), HYPERPS_ERROR_STATE);
	map_and_sync(handle, PAGE_SIZE, FRAME + 2, 1);
	assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE, 1, HYPERPS_FRAME_TO_HOST), 0);
	reclaim(handle);
	mm_leave(&mm, handle);
	destroy(handle);
	assert_refused(mm_enter(&mm, handle), HYPERPS_ERROR_STATE);
	reclaim(handle);
	assert_refused(mm_enter(&mm, handle), HYPERPS_ERROR_NO_VM);
}

/* ---- What can be asked ---- */

static void guest_frame(void **state)
{
	static const u64 hostile[] = { BIT(MM_VIEW_BITS), BIT(47), BIT(48),   BIT(48) + PAGE_SIZE,
				       BIT(52),           BIT(63), ~0xfffULL, ~0ULL };
	u64 open = new_vm(), handle = sealed_vm(PAGE_SIZE_2M, FRAME, FRAMES_2M);

	(void)state;
	map_and_sync(open, 0, FRAME - 1, 1);
	assert_int_equal(mm_guest_frame(&mm, open, 0), HYPERPS_ERROR_STATE);
	assert_int_equal(mm_guest_frame(&mm, open + BIT(32), 0), HYPERPS_ERROR_NO_VM);
	for (u64 i = 0; i < 2; i++) {
		assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M), FRAME);
		assert_int_equal(mm_guest_frame(&mm, handle, 2 * PAGE_SIZE_2M - 1), FRAME + FRAMES_2M - 1);
		assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M - 1), HYPERPS_ERROR_OWNER);
		assert_int_equal(mm_guest_frame(&mm, handle, 2 * PAGE_SIZE_2M), HYPERPS_ERROR_OWNER);
		assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE_2M + 3 * PAGE_SIZE, 4, HYPERPS_FRAME_SHARED), 0);
		assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M + 3 * PAGE_SIZE + 7), FRAME + 3);
		/* Now as small pages. */
		assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE_2M + 3 * PAGE_SIZE, 4, HYPERPS_FRAME_TO_VM), 0);
		assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M + 3 * PAGE_SIZE), HYPERPS_ERROR_OWNER);
		flush();
		assert_int_equal(mm_sync(&mm, handle), 0);
	}
	assert_int_equal(mm_guest_move(&mm, handle, PAGE_SIZE_2M, 1, HYPERPS_FRAME_TO_HOST), 0);
	assert_int_equal(mm_guest_frame(&mm, handle, PAGE_SIZE_2M), HYPERPS_ERROR_OWNER);
	for (unsigned i = 0; i < ARRAY_SIZE(hostile); i++)
		assert_int_equal(mm_guest_frame(&mm, handle, hostile[i]), HYPERPS_ERROR_OWNER);
}

static void query(void **state)
{
	u64 handle = new_vm(), other = new_vm(), gone = new_vm();

	(void)state;
	destroy(gone);
	reclaim(gone);
	map_and_sync(handle, 0, FRAME, 1);
	assert_int_equal(mm_map(&mm, handle, PAGE_SIZE, FRAME + 1, 1), 1);
	assert_int_equal(mm_query(&mm, handle, FRAME), HYPERPS_FRAME_PRIVATE);
	assert_int_equal(mm_query(&mm, handle, FRAME + 1), HYPERPS_FRAME_TO_VM);
	assert_int_equal(mm_query(&mm, handle, FRAME + 2), HYPERPS_FRAME_HOST);
	assert_int_equal(mm_query(&mm, ~0ULL, FRAME + 2), HYPERPS_FRAME_HOST);
	assert_int_equal(mm_query(&mm, other, FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, handle + BIT(32), FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, ~0ULL, FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, gone, FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, HYPERPS_VMS - 1, FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, handle, DEVICE_FRAME), HYPERPS_FRAME_DEVICE);
	assert_int_equal(mm_query(&mm, handle, MONITOR_FRAME), HYPERPS_ERROR_OWNER);
	assert_int_equal(mm_query(&mm, ~0ULL, ~0ULL), HYPERPS_FRAME_DEVICE);
	destroy(handle);
	assert_int_equal(mm_query(&mm, handle, FRAME), HYPERPS_FRAME_TO_HOST);
}

/* Each call number reaches its request, with its arguments in their places; no other number does anything. */
static void dispatch(void **state)
{
	u64 handle = (u64)mm_dispatch(&mm, HYPERPS_CALL_VM_CREATE, (const u64[4]){ 0 });

	(void)state;
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_DECLARE, (const u64[4]){ handle, PAGE_SIZE | 3, 2 }), 1);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_MAP, (const u64[4]){ handle, PAGE_SIZE, FRAME, 2 }), 2);
	assert_mark(FRAME + 1, HYPERPS_FRAME_TO_VM, handle, 2 * PAGE_SIZE);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_FRAME_QUERY, (const u64[4]){ handle, FRAME }),
			 HYPERPS_FRAME_TO_VM);
	flush();
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_SYNC, (const u64[4]){ handle }), 0);
	assert_int_equal(guest_entry(handle, PAGE_SIZE) & EPT_RWX, 3);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_POOL_DONATE, (const u64[4]){ LOW_FRAME }), FRAMES_2M);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_SEAL, (const u64[4]){ handle }), 0);
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_SEALED);
	for (u64 call = 0x48505300; call < 0x48505400; call++)
		if (call < HYPERPS_CALL_VM_CREATE || call > HYPERPS_CALL_POOL_DONATE)
			assert_refused(mm_dispatch(&mm, call, (const u64[4]){ handle }), HYPERPS_ERROR_NO_CALL);
	assert_refused(mm_dispatch(&mm, ~0ULL, (const u64[4]){ handle }), HYPERPS_ERROR_NO_CALL);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_DESTROY, (const u64[4]){ handle }), 0);
	flush();
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_VM_RECLAIM, (const u64[4]){ handle }), 0);
	assert_state(FRAME, 2, HYPERPS_FRAME_HOST);
}

/* ---- KVM VMs ---- */

#define KVM_POOL_PAGES 64ULL /* the last of POOL_PAGES */

static struct page_pool kvm_pool;
static const struct hyperps_protect list = {
	.version = HYPERPS_PROTECT_VERSION,
	.entry = 0x7000,
	.cr3 = 0x8000,
	.argument = 0x9000,
	.stub = 0x6000,
	.shared_bit = 38,
	.ranges = 2,
	.runs = 2,
	.apic_id = 5,
	.forbidden = { 0xffffffff, 2, 0x100000001, BIT(63) },
	.range = { { 0x7000, 16 }, { 0x100000, 1 << 18 } },
	.run = { { 0x7000, 2 }, { 0x100000, 3 } },
};

static u64 new_kvm(void)
{
	s64 handle;

	if (!mm.kvm_pages) {
		pool.size -= KVM_POOL_PAGES * PAGE_SIZE;
		kvm_pool = pool;
		kvm_pool.linear += pool.size;
		kvm_pool.base = HPA(pool.base.value + pool.size);
		kvm_pool.size = KVM_POOL_PAGES * PAGE_SIZE;
		kvm_pool.used = 0;
		mm.kvm_pages = &kvm_pool;
	}
	handle = mm_create_kvm(&mm, &list, 0x1234000);
	assert_true(handle >= 0);
	assert_true(vm_of((u64)handle)->kvm.is_kvm);
	assert_int_equal(vm_of((u64)handle)->kvm.owner, 0x1234000);
	return (u64)handle;
}

static void bury(u64 handle)
{
	s64 result;

	do {
		result = mm_bury(&mm, handle & 0xffffffff);
		flush();
	} while (result == 1 || result == HYPERPS_ERROR_AGAIN);
	assert_int_equal(result, 0);
	assert_null(mm_find_vm(&mm, handle));
}

/* The digest is Python's, of the stream in docs/protected.md. */
static void kvm_measurement(void **state)
{
	u64 handle = new_kvm();
	char text[2 * SHA384_BYTES + 1];

	(void)state;
	assert_int_equal(mm_range(&mm, handle, 0x16fff), EPT_RWX);
	assert_int_equal(mm_range(&mm, handle, 0x17000), 0);
	assert_int_equal(mm_map(&mm, handle, 0x7000, FRAME, 2), 2);
	assert_int_equal(mm_map(&mm, handle, 0x100000, FRAME + 2, 3), 3);
	flush();
	assert_int_equal(mm_sync(&mm, handle), 0);
	assert_int_equal(zeroed, 0);
	finish_seal(handle);
	assert_int_equal(measured, 5);
	for (unsigned i = 0; i < SHA384_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", vm_of(handle)->kvm.mrtd[i]);
	assert_string_equal(text, "b618eb8f73bee82c8be729634a7ef1dc3f1f73c01ff6cb55"
				  "567ebf11beecfd98384d02567ef401c576d916b6585ce95d");
}

/* What the host asks for with its handle is refused; what the monitor does not use for KVM VMs, too. */
static void kvm_is_not_the_hosts(void **state)
{
	u64 bare = new_vm(), handle = new_kvm(), slot = handle & 0xffffffff;

	(void)state;
	for (u64 call = HYPERPS_CALL_VM_CREATE + 1; call <= HYPERPS_CALL_POOL_DONATE; call++)
		if (call != HYPERPS_CALL_FRAME_QUERY && call != HYPERPS_CALL_POOL_DONATE)
			assert_refused(mm_dispatch(&mm, call, (const u64[4]){ handle, PAGE_SIZE | 3, FRAME, 1 }),
				       HYPERPS_ERROR_STATE);
	assert_int_equal(mm_dispatch(&mm, HYPERPS_CALL_FRAME_QUERY, (const u64[4]){ handle, FRAME }),
			 HYPERPS_FRAME_HOST);
	assert_true(mm_dispatch(&mm, HYPERPS_CALL_VM_CREATE, (const u64[4]){ handle }) > 0);
	assert_refused(mm_bury(&mm, slot), HYPERPS_ERROR_STATE);
	assert_refused(mm_bury(&mm, bare & 0xffffffff), HYPERPS_ERROR_STATE);
	assert_refused(mm_bury_next(&mm), HYPERPS_ERROR_NO_VM);
	remember();
	mm_kill(&mm, bare & 0xffffffff);
	mm_kill(&mm, HYPERPS_VMS - 1);
	assert_unchanged();
	mm_kill(&mm, slot);
	assert_int_equal(vm_of(handle)->state, HYPERPS_VM_DYING);
	assert_refused(mm_reclaim(&mm, handle), HYPERPS_ERROR_STATE);
	assert_int_equal(mm.kvm_vms, 1);
	bury(handle);
	assert_int_equal(mm.kvm_vms, 0);
	assert_true(new_kvm() != handle);
}

/* A vCPU's pages go back when the VM is buried; its VMCS12 is known until then. */
static void kvm_vcpus(void **state)
{
	u64 handle = new_kvm(), other, slot, pages;
	struct vm_vcpu *vcpu, *second;

	(void)state;
	other = new_kvm();
	pages = page_pool_available(&kvm_pool);
	assert_int_equal(mm_add_vcpu(&mm, handle, (const u64[3]){ 1, 2, 3 }, &vcpu), 0);
	assert_int_equal(mm_add_vcpu(&mm, other, (const u64[3]){ 0 }, &second), 0);
	assert_int_equal(page_pool_available(&kvm_pool), pages - 4);
	assert_int_equal(vcpu->start[2], 3);
	assert_null(mm_binding(&mm, 0, &slot));
	vcpu->vmcs12 = 0x5000;
	second->vmcs12 = 0x6000;
	assert_ptr_equal(mm_binding(&mm, 0x5000, &slot), vcpu);
	assert_int_equal(slot, handle & 0xffffffff);
	assert_ptr_equal(mm_binding(&mm, 0x6000, &slot), second);
	assert_int_equal(slot, other & 0xffffffff);
	assert_null(mm_binding(&mm, 0x7000, &slot));
	finish_seal(handle);
	assert_int_equal(mm_enter(&mm, handle), 0);
	mm_kill(&mm, handle & 0xffffffff);
	assert_refused(mm_enter(&mm, handle), HYPERPS_ERROR_STATE);
	assert_refused(mm_bury(&mm, handle & 0xffffffff), HYPERPS_ERROR_STATE);
	assert_non_null(vcpu->vmcs);
	mm_leave(&mm, handle);
	assert_int_equal(mm_bury_next(&mm), 1);
	assert_null(vcpu->vmcs);
	assert_ptr_equal(mm_binding(&mm, 0x5000, &slot), vcpu);
	bury(handle);
	assert_null(mm_binding(&mm, 0x5000, &slot));
	mm_kill(&mm, other & 0xffffffff);
	bury(other);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(mm_return_end(&mm, FRAME)); /* looks at the quarantine, as most do */
		flush();
	}
	assert_true(mm_return_end(&mm, FRAME));
	assert_int_equal(page_pool_available(&kvm_pool), KVM_POOL_PAGES);
	shrink_pool(MM_POOL_RESERVE);
	assert_true(mm_create_kvm(&mm, &list, 0) >= 0);
	kvm_pool.size = kvm_pool.used;
	assert_refused(mm_create_kvm(&mm, &list, 0), HYPERPS_ERROR_MEMORY);
}

/* The lower 36 bits of the epoch: what was meant for the flush after a wrap is not taken for long past, nor for ever. */
static void orphans_return(void **state)
{
	static const u64 epochs[] = { 1, MARK_PAGE - 1, MARK_PAGE, MARK_PAGE + 1, MARK_PAGE * 3 + 2 };
	u64 handle;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(epochs); i++) {
		handle = new_kvm();
		map_and_sync(handle, 0x100000, FRAME, 130);
		assert_true(mm_read_zeros(&mm, FRAME + 70));
		assert_true(mm_read_zeros(&mm, FRAME + 70));
		assert_int_equal(mm_kvm_of_frame(&mm, FRAME + 129), handle & 0xffffffff);
		assert_int_equal(mm_kvm_of_frame(&mm, FRAME + 130), HYPERPS_VMS);
		assert_int_equal(mm_kvm_of_frame(&mm, FRAMES), HYPERPS_VMS);
		mm_kill(&mm, handle & 0xffffffff);
		mm_orphan(&mm, FRAME + 3);
		assert_state(FRAME, 130, HYPERPS_FRAME_ORPHAN);
		assert_int_equal(mm_query(&mm, 0, FRAME), HYPERPS_ERROR_OWNER);
		assert_true(host_has(FRAME + 70));
		mm.epoch = epochs[i];
		mm.flushed = epochs[i] - 1;
		zeroed = 0;
		mm_return_begin(&mm, FRAME + 511);
		assert_false(host_has(FRAME + 70));
		assert_mark(FRAME, HYPERPS_FRAME_TO_HOST, MARK_NOBODY, (mm.epoch & MARK_PAGE) << PAGE_SHIFT);
		assert_int_equal(mm_kvm_of_frame(&mm, FRAME), HYPERPS_VMS);
		assert_false(mm_return_end(&mm, FRAME + 64));
		mm.flushed = mm.epoch;
		assert_false(mm_return_end(&mm, FRAME + 64));
		assert_int_equal(zeroed, 0);
		flush();
		assert_true(mm_return_end(&mm, FRAME + 64));
		assert_int_equal(zeroed, 64);
		assert_state(FRAME + 64, 64, HYPERPS_FRAME_HOST);
		assert_state(FRAME, 64, HYPERPS_FRAME_TO_HOST);
		mm.flushed = mm.epoch += BIT(20);
		assert_true(mm_return_end(&mm, FRAME));
		assert_true(mm_return_end(&mm, FRAME + 128));
		assert_state(FRAME, 512, HYPERPS_FRAME_HOST);
		assert_true(host_has(FRAME + 70));
		bury(handle);
	}
	shrink_pool(pool.free.count);
	assert_true(mm_return_end(&mm, FRAME)); /* it is the host's */
	assert_false(mm_read_zeros(&mm, FRAME));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create),
		TEST(create_in_a_dry_pool),
		TEST(handles),
		TEST(declare),
		TEST(declare_mmio),
		TEST(ranges),
		TEST(map),
		TEST(map_refuses_arguments),
		TEST(map_refuses_owners),
		TEST(map_refuses_states),
		TEST(map_needs_pool_and_runs),
		TEST(sync),
		TEST(sync_in_batches),
		TEST(seal),
		TEST(seal_in_steps),
		TEST(seal_exactly),
		TEST(seal_sparse),
		TEST(measurement),
		TEST(vcpus),
		TEST(destroy_and_reclaim),
		TEST(destroy_and_reclaim_in_batches),
		TEST(destroy_and_reclaim_sparse),
		TEST(reclaim_with_a_small_pool),
		TEST(uncached),
		TEST(donate),
		TEST(share_and_unshare),
		TEST(release),
		TEST(release_in_batches),
		TEST(guest_errors),
		TEST(destroy_with_shared),
		TEST(enter_and_leave),
		TEST(guest_frame),
		TEST(query),
		TEST(dispatch),
		TEST(kvm_measurement),
		TEST(kvm_is_not_the_hosts),
		TEST(kvm_vcpus),
		TEST(orphans_return),
	};

	return cmocka_run_group_tests_name("manager", tests, NULL, NULL);
}
