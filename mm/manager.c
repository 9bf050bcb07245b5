// SPDX-License-Identifier: MIT
#include "manager.h"

#define FRAMES_2M (PAGE_SIZE_2M / PAGE_SIZE)
#define VIEW_LIMIT BIT(MM_VIEW_BITS)
#define HANDLE_SLOT 0xffffffffULL
/*
 * Putting a run of frames back can take two tables. Donating can split a 1 GiB page, and must work when nothing else
 * does: a reclaim or map leaves what it needs.
 */
#define DONATE_RESERVE (MM_DIRECT_TABLES + 1)
#define RECLAIM_RESERVE (DONATE_RESERVE + 3)
#define MAP_TABLES 10 /* that a batch takes at most */
_Static_assert(MM_POOL_RESERVE >= MAP_TABLES + DONATE_RESERVE, "a map leaves no room for a donation");
#define RETURN_BATCH 64 /* frames that mm_return_end() zeroes at most */
#define WALK_BUDGET 4096 /* entries of a view that one call looks at */
#define LAST_GENERATION 0x7ffffffe /* of a slot: a handle is never negative, and never used again */

/* What every request begins with: pages whose quarantine is over become free. */
static bool refresh_pool(struct mm *mm, u64 reserve)
{
	page_pool_refresh(mm->pool, mm->epoch, mm->flushed, MM_BATCH);
	if (mm->kvm_pages)
		page_pool_refresh(mm->kvm_pages, mm->epoch, mm->flushed, MM_BATCH);
	return page_pool_available(mm->pool) >= reserve;
}

/* Drops the const, as strchr() does: some callers only look. */
struct vm *mm_find_vm(const struct mm *mm, u64 handle)
{
	struct vm *vm = (struct vm *)&mm->vm[(handle & HANDLE_SLOT) % HYPERPS_VMS];

	return (handle & HANDLE_SLOT) < HYPERPS_VMS && handle >> 32 == vm->generation && vm->state != HYPERPS_VM_FREE
		       ? vm
		       : NULL;
}

static u64 slot_of(const struct mm *mm, const struct vm *vm)
{
	return (u64)(vm - mm->vm);
}

/* Writes the leaves of `count` frames, all in one page table or one large leaf, or takes them out (value 0). */
static void set_leaves(struct ept *view, u64 address, u64 count, unsigned level, u64 value)
{
	/* Every request has made sure that the pool has the pages for this. */
	if (level == 1)
		ept_set_run(view, GPA(address), count, value);
	else
		ept_set_entry(view, ept_entry(view, GPA(address), level), level, value ? value | EPT_LARGE : 0);
}

/* Takes frames [frame, frame + count) out of the host view, and out of all EPT02s: before their marks change, which tell. */
static void hide(struct mm *mm, u64 frame, u64 count)
{
	if (mm->shadows && page_marks_are_named(mm->marks, frame, count, mm->shadow_generation))
		shadow_drop_all(mm);
	for (u64 n; count; frame += n, count -= n) {
		n = ept_in_table(GPA(frame << PAGE_SHIFT), count);
		set_leaves(mm->host_view, frame << PAGE_SHIFT, n, n == FRAMES_2M ? 2 : 1, 0);
	}
}

/*
 * Frames to where the host had them: back, with all permissions, in the largest pages that result; or shared ones,
 * whose pages stay small so that each can leave without a table from the pool.
 */
static void enter_host_view(struct mm *mm, u64 frame, u64 count, u64 permissions)
{
	for (u64 n; count; frame += n, count -= n) {
		u64 address = frame << PAGE_SHIFT;

		n = ept_in_table(GPA(address), count);
		set_leaves(mm->host_view, address, n, n == FRAMES_2M && permissions == EPT_RWX ? 2 : 1,
			   address | permissions | (u64)MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT);
		if (permissions != EPT_RWX)
			continue;
		ept_merge(mm->host_view, GPA(address), 1);
		ept_merge(mm->host_view, GPA(address), 2);
	}
}

/* Takes zero leaves out of the host view: frames are about to come back, and who keeps such a leaf over a flush lies. */
static void drop_zeros(struct mm *mm, u64 frame, u64 count)
{
	for (u64 i = frame; i < frame + count; i++)
		if (ept_run(mm->host_view, GPA(i << PAGE_SHIFT), 1).frames)
			set_leaves(mm->host_view, i << PAGE_SHIFT, 1, 1, 0);
}

static s64 create(struct mm *mm, struct page_pool *pool)
{
	if (!refresh_pool(mm, MM_POOL_RESERVE) || page_pool_available(pool) < MM_POOL_RESERVE)
		return HYPERPS_ERROR_MEMORY;
	for (u64 slot = 0; slot < HYPERPS_VMS; slot++) {
		struct vm *vm = &mm->vm[slot];

		if (vm->state != HYPERPS_VM_FREE || vm->generation > LAST_GENERATION)
			continue;
		*vm = (struct vm){ .state = HYPERPS_VM_OPEN, .generation = vm->generation };
		ept_init(&vm->view, pool, 4, 2);
		return (s64)((u64)vm->generation << 32 | slot);
	}
	return HYPERPS_ERROR_MEMORY;
}

s64 mm_create(struct mm *mm)
{
	return create(mm, mm->pool);
}

static void free_slot(struct mm *mm, struct vm *vm)
{
	page_pool_put(vm->view.pool, page_pool_hpa(vm->view.pool, vm->view.root).value >> PAGE_SHIFT);
	vm->state = HYPERPS_VM_FREE;
	vm->generation++;
	mm->kvm_vms -= vm->kvm.is_kvm;
	mm->bindings += vm->kvm.is_kvm;
	vm->kvm.is_kvm = false;
}

/* Whether [gpa, gpa + count pages) is page-aligned, not empty, and ends at or below VIEW_LIMIT. */
static bool is_in_view(u64 gpa, u64 count)
{
	return gpa % PAGE_SIZE == 0 && count && gpa < VIEW_LIMIT && count <= (VIEW_LIMIT - gpa) / PAGE_SIZE;
}

s64 mm_declare(struct mm *mm, u64 handle, u64 gpa, u64 count, u64 permissions)
{
	struct vm *vm = mm_find_vm(mm, handle);

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_OPEN)
		return HYPERPS_ERROR_STATE;
	if (!is_in_view(gpa, count) || vm->range_count == HYPERPS_VM_RANGES ||
	    (permissions != HYPERPS_RANGE_MMIO && (!(permissions & EPT_READ) || (permissions & ~EPT_RWX))))
		return HYPERPS_ERROR_INVALID;
	for (u32 i = 0; i < vm->range_count; i++)
		if (gpa < vm->range[i].gpa + vm->range[i].frames * PAGE_SIZE &&
		    vm->range[i].gpa < gpa + count * PAGE_SIZE)
			return HYPERPS_ERROR_OWNER;
	vm->range[vm->range_count++] = (struct vm_range){ gpa, count, permissions };
	return vm->range_count;
}

/* The declared range that holds all of [gpa, gpa + count pages), any numbers; NULL if none does. */
static const struct vm_range *range_of(const struct vm *vm, u64 gpa, u64 count)
{
	for (u32 i = 0; i < vm->range_count; i++) {
		u64 skip = (gpa - vm->range[i].gpa) / PAGE_SIZE;

		if (gpa >= vm->range[i].gpa && skip < vm->range[i].frames && count <= vm->range[i].frames - skip)
			return &vm->range[i];
	}
	return NULL;
}

static bool add_run(struct gpa_runs *runs, u64 gpa, u64 count)
{
	u32 last = runs->count - 1;

	if (!runs->count || runs->run[last].gpa + runs->run[last].frames * PAGE_SIZE != gpa) {
		if (runs->count == MM_PENDING)
			return false;
		last = runs->count++;
		runs->run[last].gpa = gpa;
		runs->run[last].frames = 0;
	}
	runs->run[last].frames += count;
	runs->frames += count;
	return true;
}

/* What the last run in a list, which is not empty, begins with: its gpa, and the leaves there that belong together. */
static struct ept_run next_run(const struct vm *vm, const struct gpa_runs *runs, u64 *gpa)
{
	u64 frames = runs->run[runs->count - 1].frames;

	*gpa = runs->run[runs->count - 1].gpa;
	return ept_run(&vm->view, GPA(*gpa), frames < MM_BATCH ? frames : MM_BATCH);
}

/* Takes so many frames off the beginning of that run. */
static void cut_run(struct gpa_runs *runs, u64 frames)
{
	u32 last = runs->count - 1;

	runs->run[last].gpa += frames * PAGE_SIZE;
	runs->run[last].frames -= frames;
	runs->frames -= frames;
	runs->count -= !runs->run[last].frames;
}

/* At most MM_BATCH frames, all or none. */
static s64 map_batch(struct mm *mm, struct vm *vm, u64 gpa, u64 frame, u64 count, u64 permissions)
{
	bool orphans = vm->kvm.is_kvm && vm->state == HYPERPS_VM_SEALED &&
		       page_mark_state(mm->marks, frame) == HYPERPS_FRAME_ORPHAN;
	u64 from = orphans ? HYPERPS_FRAME_ORPHAN : HYPERPS_FRAME_HOST;

	if (!page_marks_are(mm->marks, frame, count, from) || !ept_is_empty(&vm->view, GPA(gpa), count))
		return HYPERPS_ERROR_OWNER;
	if (!refresh_pool(mm, MM_POOL_RESERVE) || page_pool_available(vm->view.pool) < MM_POOL_RESERVE)
		return HYPERPS_ERROR_MEMORY;
	if (!add_run(&vm->pending, gpa, count))
		return HYPERPS_ERROR_AGAIN;

	if (!orphans)
		hide(mm, frame, count);
	page_marks_move(mm->marks, frame, count, from, HYPERPS_FRAME_TO_VM, slot_of(mm, vm), gpa >> PAGE_SHIFT);
	for (u64 n; count; count -= n, frame += n, gpa += n * PAGE_SIZE) {
		n = ept_in_table(GPA(gpa), count);
		set_leaves(&vm->view, gpa, n, n == FRAMES_2M && frame % FRAMES_2M == 0 ? 2 : 1,
			   frame << PAGE_SHIFT | (u64)MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT |
				   permissions << EPT_PENDING_SHIFT);
	}
	return HYPERPS_OK;
}

s64 mm_map(struct mm *mm, u64 handle, u64 gpa, u64 frame, u64 count)
{
	struct vm *vm = mm_find_vm(mm, handle);
	const struct vm_range *range;
	u64 done = 0;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_OPEN && vm->state != HYPERPS_VM_SEALED)
		return HYPERPS_ERROR_STATE;
	if (count > HYPERPS_MAP_FRAMES || !is_in_view(gpa, count))
		return HYPERPS_ERROR_INVALID;
	range = range_of(vm, gpa, count);
	if (!range || range->permissions == HYPERPS_RANGE_MMIO)
		return HYPERPS_ERROR_PERMISSION;
	for (u64 batch = 0, n; batch < MM_MAP_BATCHES && done < count; batch++, done += n) {
		s64 error;

		/* Steps end where a 2 MiB page does, so that those after the first can be large pages. */
		n = count <= MM_BATCH ? count : ept_in_table(GPA(gpa + done * PAGE_SIZE), count - done);
		error = map_batch(mm, vm, gpa + done * PAGE_SIZE, frame + done, n, range->permissions);
		if (error && !done)
			return error;
		if (error)
			break;
		vm->frames += n;
		vm->epoch = mm->epoch;
	}
	return (s64)done;
}

s64 mm_sync(struct mm *mm, u64 handle)
{
	struct vm *vm = mm_find_vm(mm, handle);
	u64 done = 0, gpa;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_OPEN && vm->state != HYPERPS_VM_SEALED)
		return HYPERPS_ERROR_STATE;
	if (vm->pending.count && mm->flushed <= vm->epoch)
		return HYPERPS_ERROR_AGAIN;
	while (vm->pending.count) {
		struct ept_run run = next_run(vm, &vm->pending, &gpa);

		done += run.frames;
		if (done > MM_BATCH)
			break;
		for (u64 i = 0; vm->state == HYPERPS_VM_SEALED && i < run.frames; i++)
			mm_zero_frame(run.frame + i);
		page_marks_move(mm->marks, run.frame, run.frames, HYPERPS_FRAME_TO_VM, HYPERPS_FRAME_PRIVATE,
				slot_of(mm, vm), gpa >> PAGE_SHIFT);
		set_leaves(&vm->view, gpa, run.frames, run.level,
			   (run.entry & ~(EPT_RWX << EPT_PENDING_SHIFT)) | (run.entry >> EPT_PENDING_SHIFT & EPT_RWX));
		cut_run(&vm->pending, run.frames);
	}
	return (s64)vm->pending.frames;
}

/* A VM of which nothing is measured yet has counted no byte. */
static void measure(struct vm *vm, const void *data, u64 bytes)
{
	if (vm->kvm.is_kvm) {
		sha384_update(&vm->kvm.sha384, data, bytes);
		return;
	}
	if (!vm->sha256.bytes)
		sha256_init(&vm->sha256);
	sha256_update(&vm->sha256, data, bytes);
}

void mm_measure(struct mm *mm, u64 slot, u64 gpa, const u8 *page)
{
	measure(&mm->vm[slot], &gpa, sizeof(gpa));
	measure(&mm->vm[slot], page, PAGE_SIZE);
}

/* docs/protected.md, "Measurement": what comes before a KVM VM's pages, all of which are PRIVATE by now. */
static void measure_begin(struct vm *vm)
{
	const struct hyperps_protect *list = &vm->kvm.list;
	const u64 version = 1, shared_bit = list->shared_bit, ranges = list->ranges;

	measure(vm, "HyperPS protect", 16);
	measure(vm, &version, sizeof(version));
	measure(vm, &list->entry, (u64)&list->shared_bit - (u64)&list->entry);
	measure(vm, &shared_bit, sizeof(shared_bit));
	measure(vm, list->forbidden, sizeof(list->forbidden));
	measure(vm, &ranges, sizeof(ranges));
	for (u32 i = 0; i < list->ranges; i++) {
		const u64 range[] = { list->range[i].gpa, list->range[i].pages * PAGE_SIZE };

		measure(vm, range, sizeof(range));
	}
	measure(vm, &vm->frames, sizeof(vm->frames));
}

static void measure_end(struct vm *vm)
{
	const u64 counts[] = { vm->range_count, vm->vcpus };

	if (vm->kvm.is_kvm) {
		sha384_final(&vm->kvm.sha384, vm->kvm.mrtd);
		return;
	}

	for (u32 i = 0; i < vm->range_count; i++) {
		const struct vm_range *range = &vm->range[i];
		const u64 words[] = { range->gpa, range->frames * PAGE_SIZE, range->permissions };

		measure(vm, words, sizeof(words));
	}
	for (u32 i = 0; i < vm->vcpus; i++)
		measure(vm, vm->vcpu[i].start, sizeof(vm->vcpu[i].start));
	measure(vm, counts, sizeof(counts));
	sha256_final(&vm->sha256, vm->digest);
}

s64 mm_seal(struct mm *mm, u64 handle)
{
	struct vm *vm = mm_find_vm(mm, handle);
	u64 done = 0, budget = WALK_BUDGET;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_OPEN && vm->state != HYPERPS_VM_SEALING)
		return HYPERPS_ERROR_STATE;
	if (vm->pending.count)
		return HYPERPS_ERROR_AGAIN;
	if (vm->kvm.is_kvm && vm->state == HYPERPS_VM_OPEN)
		measure_begin(vm);
	vm->state = HYPERPS_VM_SEALING;
	while (vm->cursor < VIEW_LIMIT) {
		bool found;

		vm->cursor = ept_next(&vm->view, GPA(vm->cursor), &budget, &found).value;
		if (found ? done++ == MM_SEAL_PAGES : !budget)
			return 1;
		if (!found)
			continue;
		mm_measure_page(slot_of(mm, vm), vm->cursor, ept_run(&vm->view, GPA(vm->cursor), 1).frame);
		vm->cursor += PAGE_SIZE;
	}
	measure_end(vm);
	vm->state = HYPERPS_VM_SEALED;
	return HYPERPS_OK;
}

s64 mm_add_vcpu(struct mm *mm, u64 handle, const u64 start[3], struct vm_vcpu **vcpu)
{
	struct vm *vm = mm_find_vm(mm, handle);
	bool has_room = refresh_pool(mm, MM_POOL_RESERVE + 2);

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_OPEN)
		return HYPERPS_ERROR_STATE;
	if (vm->vcpus == HYPERPS_VCPUS)
		return HYPERPS_ERROR_INVALID;
	if (!has_room || page_pool_available(vm->view.pool) < MM_POOL_RESERVE + 2)
		return HYPERPS_ERROR_MEMORY;
	*vcpu = &vm->vcpu[vm->vcpus];
	**vcpu = (struct vm_vcpu){ .vmcs = page_pool_take(vm->view.pool),
				   .state = page_pool_take(vm->view.pool),
				   .start = { start[0], start[1], start[2] } };
	return vm->vcpus++;
}

/* A KVM VM's stay known, without their pages: each names a VMCS12. */
static void drop_vcpus(struct vm *vm)
{
	struct page_pool *pool = vm->view.pool;

	for (u32 i = 0; i < vm->vcpus && vm->vcpu[i].vmcs; i++) {
		page_pool_put(pool, page_pool_hpa(pool, vm->vcpu[i].vmcs).value >> PAGE_SHIFT);
		page_pool_put(pool, page_pool_hpa(pool, vm->vcpu[i].state).value >> PAGE_SHIFT);
		vm->vcpu[i].vmcs = vm->vcpu[i].state = NULL;
	}
	if (!vm->kvm.is_kvm)
		vm->vcpus = 0;
}

s64 mm_enter(struct mm *mm, u64 handle)
{
	struct vm *vm = mm_find_vm(mm, handle);

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_SEALED)
		return HYPERPS_ERROR_STATE;
	vm->running++;
	return HYPERPS_OK;
}

void mm_leave(struct mm *mm, u64 handle)
{
	mm_find_vm(mm, handle)->running--;
}

static void begin_end(struct vm *vm)
{
	vm->state = HYPERPS_VM_DYING;
	vm->cursor = 0;
	vm->pending.count = vm->pending.frames = 0;
	vm->released.count = vm->released.frames = 0; /* their entries lead mm_destroy to them */
}

/* What the marks say that the VM in a slot has of some frames; an entry of its view may be older than they are. */
static void orphan(struct mm *mm, u64 slot, u64 frame, u64 count)
{
	for (u64 i = frame; i < frame + count; i++)
		if (mm_kvm_of_frame(mm, i) == slot) {
			page_mark_set(mm->marks, i, HYPERPS_FRAME_ORPHAN, 0, 0);
			mm->vm[slot].frames--;
		}
}

s64 mm_destroy(struct mm *mm, u64 handle)
{
	struct vm *vm = mm_find_vm(mm, handle);
	u64 done = 0, budget = WALK_BUDGET;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state == HYPERPS_VM_DEAD || vm->running)
		return HYPERPS_ERROR_STATE;
	if (vm->state != HYPERPS_VM_DYING)
		begin_end(vm);
	drop_vcpus(vm);
	while (vm->cursor < VIEW_LIMIT) {
		struct ept_run run;
		bool found;
		u64 state;

		vm->cursor = ept_next(&vm->view, GPA(vm->cursor), &budget, &found).value;
		if (!found && !budget)
			return 1;
		if (!found)
			continue;
		run = ept_run(&vm->view, GPA(vm->cursor), MM_BATCH);
		if (!vm->kvm.is_kvm)
			run.frames = page_marks_same(mm->marks, run.frame, run.frames);
		state = page_mark_state(mm->marks, run.frame);
		done += run.frames;
		if (done > MM_BATCH)
			return 1;
		/* Where a KVM VM's frames were others may share theirs by now. */
		if (state == HYPERPS_FRAME_SHARED && !vm->kvm.is_kvm)
			hide(mm, run.frame, run.frames);
		if (vm->kvm.is_kvm)
			orphan(mm, slot_of(mm, vm), run.frame, run.frames);
		else
			page_marks_move(mm->marks, run.frame, run.frames, state, HYPERPS_FRAME_TO_HOST, slot_of(mm, vm),
					vm->cursor >> PAGE_SHIFT);
		vm->cursor += run.frames * PAGE_SIZE;
	}
	vm->state = HYPERPS_VM_DEAD;
	vm->cursor = 0;
	/*
	 * Translations of the guest's as well as of the host's from before are gone when every CPU has flushed after
	 * this.
	 */
	vm->epoch = mm->epoch;
	return HYPERPS_OK;
}

/* Drops the tables that the cursor has left behind on its way from `from` to `to`. */
static void drop_tables(struct vm *vm, u64 from, u64 to)
{
	for (unsigned level = 1; level < vm->view.levels; level++)
		if (from / ept_level_size(level + 1) != to / ept_level_size(level + 1))
			ept_drop_table(&vm->view, GPA(from), level);
}

/* TO_HOST frames, which no CPU can reach any more, are the host's again. */
static void return_frames(struct mm *mm, u64 frame, u64 count)
{
	for (u64 i = frame; i < frame + count; i++) {
		mm_zero_frame(i);
		page_mark_set(mm->marks, i, HYPERPS_FRAME_HOST, 0, 0);
	}
	enter_host_view(mm, frame, count, EPT_RWX);
}

static void give_back(struct mm *mm, struct vm *vm, u64 gpa, const struct ept_run *run)
{
	return_frames(mm, run->frame, run->frames);
	set_leaves(&vm->view, gpa, run->frames, run->level, 0);
	vm->frames -= run->frames;
}

static s64 reclaim_released(struct mm *mm, struct vm *vm)
{
	u64 done = 0, gpa;

	while (vm->released.count) {
		struct ept_run run = next_run(vm, &vm->released, &gpa);

		done += run.frames;
		if (done > MM_BATCH || !refresh_pool(mm, RECLAIM_RESERVE))
			return 1;
		give_back(mm, vm, gpa, &run);
		cut_run(&vm->released, run.frames);
	}
	return HYPERPS_OK;
}

s64 mm_reclaim(struct mm *mm, u64 handle)
{
	struct vm *vm = mm_find_vm(mm, handle);
	u64 done = 0, budget = WALK_BUDGET;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_DEAD && !vm->released.count)
		return HYPERPS_ERROR_STATE;
	if (mm->flushed <= vm->epoch)
		return HYPERPS_ERROR_AGAIN;
	if (!refresh_pool(mm, RECLAIM_RESERVE))
		return HYPERPS_ERROR_MEMORY;
	if (vm->state != HYPERPS_VM_DEAD)
		return reclaim_released(mm, vm);
	while (vm->cursor < VIEW_LIMIT) {
		u64 from = vm->cursor, to;
		struct ept_run run;
		bool found;

		to = ept_next(&vm->view, GPA(from), &budget, &found).value;
		if (to != from) {
			drop_tables(vm, from, to);
			vm->cursor = to;
		}
		if (!found && !budget)
			return 1;
		if (to != from)
			continue;
		run = ept_run(&vm->view, GPA(from), MM_BATCH);
		done += run.frames;
		if (done > MM_BATCH)
			return 1;
		/* What is done so far is done: the next call says so if the pool has become too small. */
		if (!refresh_pool(mm, RECLAIM_RESERVE))
			return 1;
		if (!vm->kvm.is_kvm)
			give_back(mm, vm, from, &run);
		vm->cursor = from + run.frames * PAGE_SIZE;
		drop_tables(vm, from, vm->cursor);
	}
	free_slot(mm, vm);
	return HYPERPS_OK;
}

s64 mm_create_kvm(struct mm *mm, const struct hyperps_protect *list, u64 owner)
{
	s64 handle = create(mm, mm->kvm_pages), error = handle;
	struct vm *vm = handle < 0 ? NULL : mm_find_vm(mm, (u64)handle);

	if (!vm)
		return handle;
	vm->kvm = (struct vm_kvm){ .is_kvm = true, .list = *list, .owner = owner };
	sha384_init(&vm->kvm.sha384);
	mm->kvm_vms++;
	for (u32 i = 0; i < list->ranges && error >= 0; i++)
		error = mm_declare(mm, (u64)handle, list->range[i].gpa, list->range[i].pages, EPT_RWX);
	if (error < 0)
		free_slot(mm, vm);
	return error < 0 ? error : handle;
}

void mm_kill(struct mm *mm, u64 slot)
{
	struct vm *vm = &mm->vm[slot];

	if (!vm->kvm.is_kvm || vm->state == HYPERPS_VM_DYING || vm->state == HYPERPS_VM_DEAD)
		return;
	begin_end(vm);
	mm->bindings++;
}

s64 mm_bury(struct mm *mm, u64 slot)
{
	const struct vm *vm = &mm->vm[slot];
	u64 handle = (u64)vm->generation << 32 | slot;

	if (!vm->kvm.is_kvm || (vm->state != HYPERPS_VM_DYING && vm->state != HYPERPS_VM_DEAD))
		return HYPERPS_ERROR_STATE;
	if (vm->state == HYPERPS_VM_DEAD)
		return mm_reclaim(mm, handle);
	return mm_destroy(mm, handle) < 0 ? HYPERPS_ERROR_STATE : 1;
}

s64 mm_bury_next(struct mm *mm)
{
	s64 result = HYPERPS_ERROR_STATE;

	for (u64 slot = 0; slot < HYPERPS_VMS && result == HYPERPS_ERROR_STATE; slot++)
		result = mm_bury(mm, slot);
	return result == HYPERPS_ERROR_STATE ? HYPERPS_ERROR_NO_VM : result;
}

struct vm_vcpu *mm_binding(struct mm *mm, u64 vmcs12, u64 *slot)
{
	for (*slot = 0; *slot < HYPERPS_VMS; ++*slot) {
		struct vm *vm = &mm->vm[*slot];

		for (u32 i = 0; vm->kvm.is_kvm && i < vm->vcpus; i++)
			if (vm->vcpu[i].vmcs12 == vmcs12 && vmcs12)
				return &vm->vcpu[i];
	}
	return NULL;
}

u64 mm_kvm_of_frame(const struct mm *mm, u64 frame)
{
	u64 state = page_mark_state(mm->marks, frame), slot;

	if (state != HYPERPS_FRAME_PRIVATE && state != HYPERPS_FRAME_TO_VM && state != HYPERPS_FRAME_TO_HOST)
		return HYPERPS_VMS;
	slot = mm->marks->mark[frame] >> MARK_VM_SHIFT & MARK_VM;
	return slot < HYPERPS_VMS && mm->vm[slot].kvm.is_kvm ? slot : HYPERPS_VMS;
}

void mm_orphan(struct mm *mm, u64 frame)
{
	u64 slot = mm_kvm_of_frame(mm, frame);

	if (slot < HYPERPS_VMS && mm->vm[slot].state == HYPERPS_VM_DYING && !mm->vm[slot].running)
		orphan(mm, slot, ALIGN_DOWN(frame, FRAMES_2M), FRAMES_2M);
}

void mm_return_begin(struct mm *mm, u64 frame)
{
	u64 first = ALIGN_DOWN(frame, FRAMES_2M);

	for (u64 i = first; i < first + FRAMES_2M; i++)
		if (page_mark_state(mm->marks, i) == HYPERPS_FRAME_ORPHAN) {
			drop_zeros(mm, i, 1);
			page_mark_set(mm->marks, i, HYPERPS_FRAME_TO_HOST, MARK_NOBODY, mm->epoch & MARK_PAGE);
		}
}

static bool is_nobodys(const struct mm *mm, u64 frame)
{
	return page_mark_state(mm->marks, frame) == HYPERPS_FRAME_TO_HOST &&
	       (mm->marks->mark[frame] >> MARK_VM_SHIFT & MARK_VM) == MARK_NOBODY;
}

/* How many of the frames from `frame` on, at most count, are nobody's, with every CPU flushed since. */
static u64 returnable(const struct mm *mm, u64 frame, u64 count)
{
	u64 n = 0;

	/* The mark has the lower bits of the epoch alone: mm->flushed is ahead of it by less than half of their range. */
	while (n < count && is_nobodys(mm, frame + n) &&
	       ((mm->flushed - 1 - (mm->marks->mark[frame + n] >> MARK_PAGE_SHIFT)) & MARK_PAGE) <= MARK_PAGE / 2)
		n++;
	return n;
}

bool mm_return_end(struct mm *mm, u64 frame)
{
	u64 first = ALIGN_DOWN(frame, RETURN_BATCH);

	for (u64 i = first, n; i < first + RETURN_BATCH && refresh_pool(mm, RECLAIM_RESERVE); i += n ? n : 1) {
		n = returnable(mm, i, first + RETURN_BATCH - i);
		return_frames(mm, i, n);
	}
	return !is_nobodys(mm, frame);
}

bool mm_read_zeros(struct mm *mm, u64 frame)
{
	if (!refresh_pool(mm, RECLAIM_RESERVE))
		return false;
	set_leaves(mm->host_view, frame << PAGE_SHIFT, 1, 1,
		   mm->zeros << PAGE_SHIFT | EPT_READ | (u64)MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT);
	return true;
}

s64 mm_donate(struct mm *mm, u64 frame)
{
	if (frame % FRAMES_2M || frame >= PAGE_MARK_LIMIT >> PAGE_SHIFT)
		return HYPERPS_ERROR_INVALID;
	if (!page_marks_are(mm->marks, frame, FRAMES_2M, HYPERPS_FRAME_HOST))
		return HYPERPS_ERROR_OWNER;
	/* The pool may be below its reserve: that is what this call is for. */
	if (!refresh_pool(mm, DONATE_RESERVE) || !mm_map_donated(frame))
		return HYPERPS_ERROR_MEMORY;
	hide(mm, frame, FRAMES_2M);
	for (u64 i = 0; i < FRAMES_2M; i++)
		page_pool_put(mm->pool, frame + i);
	return (s64)FRAMES_2M;
}

/* What the guest's requests begin with: whether all of the range is a sealed VM's RAM, in that state. */
static s64 check_guest_range(struct mm *mm, const struct vm *vm, u64 gpa, u64 count, u64 state)
{
	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_SEALED)
		return HYPERPS_ERROR_STATE;
	if (count > MM_BATCH || !is_in_view(gpa, count))
		return HYPERPS_ERROR_INVALID;
	for (struct ept_run run; count; count -= run.frames, gpa += run.frames * PAGE_SIZE) {
		run = ept_run(&vm->view, GPA(gpa), count);
		if (!run.frames || !page_marks_are(mm->marks, run.frame, run.frames, state))
			return HYPERPS_ERROR_OWNER;
	}
	return refresh_pool(mm, MM_POOL_RESERVE) ? HYPERPS_OK : HYPERPS_ERROR_MEMORY;
}

s64 mm_guest_move(struct mm *mm, u64 handle, u64 gpa, u64 count, u64 to)
{
	u64 from = to == HYPERPS_FRAME_TO_VM ? HYPERPS_FRAME_SHARED : HYPERPS_FRAME_PRIVATE;
	struct vm *vm = mm_find_vm(mm, handle);
	s64 error = check_guest_range(mm, vm, gpa, count, from);

	if (error)
		return error;
	if (to != HYPERPS_FRAME_SHARED &&
	    !add_run(to == HYPERPS_FRAME_TO_VM ? &vm->pending : &vm->released, gpa, count))
		return HYPERPS_ERROR_AGAIN;
	for (struct ept_run run; count; count -= run.frames, gpa += run.frames * PAGE_SIZE) {
		u64 entry;

		run = ept_run(&vm->view, GPA(gpa), count);
		/* Part of a large page is split, by ept_set_run(). */
		entry = (run.entry & ~(EPT_ADDRESS | EPT_LARGE | EPT_RWX)) | run.frame << PAGE_SHIFT;
		if (to == HYPERPS_FRAME_TO_VM)
			entry |= (run.entry & EPT_RWX) << EPT_PENDING_SHIFT;
		if (to == HYPERPS_FRAME_SHARED)
			enter_host_view(mm, run.frame, run.frames, EPT_READ | EPT_WRITE);
		else
			set_leaves(&vm->view, gpa, run.frames, run.frames == FRAMES_2M ? run.level : 1, entry);
		if (from == HYPERPS_FRAME_SHARED)
			hide(mm, run.frame, run.frames);
		if (to == HYPERPS_FRAME_TO_HOST)
			drop_zeros(mm, run.frame, run.frames);
		page_marks_move(mm->marks, run.frame, run.frames, from, to, slot_of(mm, vm), gpa >> PAGE_SHIFT);
	}
	if (to != HYPERPS_FRAME_SHARED)
		vm->epoch = mm->epoch;
	return HYPERPS_OK;
}

s64 mm_query(const struct mm *mm, u64 handle, u64 frame)
{
	const struct vm *vm = mm_find_vm(mm, handle);
	u64 state = page_mark_state(mm->marks, frame);
	bool is_of_vm = state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_SHARED ||
			state == HYPERPS_FRAME_TO_VM || state == HYPERPS_FRAME_TO_HOST;

	if (state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE)
		return (s64)state;
	if (is_of_vm && vm && (mm->marks->mark[frame] >> MARK_VM_SHIFT & MARK_VM) == slot_of(mm, vm))
		return (s64)state;
	return HYPERPS_ERROR_OWNER;
}

u64 mm_range(const struct mm *mm, u64 handle, u64 gpa)
{
	const struct vm *vm = mm_find_vm(mm, handle);
	const struct vm_range *range = vm ? range_of(vm, gpa, 1) : NULL;

	return range ? range->permissions : 0;
}

s64 mm_guest_frame(const struct mm *mm, u64 handle, u64 gpa)
{
	const struct vm *vm = mm_find_vm(mm, handle);
	struct ept_run run;

	if (!vm)
		return HYPERPS_ERROR_NO_VM;
	if (vm->state != HYPERPS_VM_SEALED)
		return HYPERPS_ERROR_STATE;
	run = ept_run(&vm->view, GPA(gpa), 1);
	return run.entry & EPT_READ ? (s64)run.frame : HYPERPS_ERROR_OWNER;
}

void mm_describe(const struct mm *mm, u64 slot, struct hyperps_vm *out)
{
	const struct vm *vm = &mm->vm[slot];

	*out = (struct hyperps_vm){ .state = vm->state };
	if (vm->state == HYPERPS_VM_FREE)
		return;
	out->handle = (u64)vm->generation << 32 | slot;
	out->frames = vm->frames;
	out->pending = vm->pending.frames;
	out->view_eptp = ept_pointer(&vm->view);
	out->view_4k = vm->view.leaves[1];
	out->view_2m = vm->view.leaves[2];
	out->ranges = vm->range_count;
}

void mm_describe_measurement(const struct mm *mm, u64 slot, struct hyperps_measurement *out)
{
	const struct vm *vm = &mm->vm[slot];

	*out = (struct hyperps_measurement){ 0 };
	if (vm->state != HYPERPS_VM_SEALED)
		return;
	out->handle = (u64)vm->generation << 32 | slot;
	out->sealed = 1;
	out->vcpus = vm->vcpus;
	__builtin_memcpy(out->sha256, vm->digest, sizeof(out->sha256));
}
