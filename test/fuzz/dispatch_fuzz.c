// SPDX-License-Identifier: MIT
/*
 * libFuzzer on mm_dispatch(): an input is a sequence of memory calls, with small and hostile arguments, and of flushes.
 * After each call the marks and the views are looked at by code that shares nothing with mm/: its own walker, its own
 * table of transitions, its own record of when a frame entered quarantine and of what it holds.
 *
 * HYPERPS_FUZZ_LIE=flush claims flushes that did not happen, HYPERPS_FUZZ_LIE=zero does not zero: both must be found.
 * HYPERPS_FUZZ_TRACE=1 prints each call; a finding prints the last ones in any case.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host_view.h"
#include "manager.h"
#include "memory_type.h"

#define FRAMES 4096ULL
#define CHUNK 512ULL /* frames of a 2 MiB page */
#define MONITOR_FRAME 0x200ULL /* the first of 2 MiB */
#define POOL_FRAME 0x210ULL
#define POOL_LARGEST 300ULL
#define ADDRESS_BITS 32
#define CALLS 300 /* of an input; the rest of it is ignored */
#define SHOWN 30 /* calls before a finding */
#define UNCACHED 0xa80000ULL /* RAM that the MTRRs make uncacheable */
#define UNCACHED_SIZE 0x80000ULL
/* What comes by another way than mm_dispatch(): the guest's requests, arguments handle, gpa, count; vCPUs, handle. */
#define GUEST_SHARE 1
#define GUEST_UNSHARE 2
#define GUEST_RELEASE 3
#define VCPU_ENTER 4
#define VCPU_LEAVE 5
#define HANDLES 128
#define ROUNDS 3 /* flushes that may overlap */
#define FULL_CHECK 32 /* calls between looks at everything */

/* The machine, as a fresh input finds it: taken once, put back before each input. */
static struct machine {
	struct page_marks marks;
	struct page_pool pool;
	struct ept host_view;
	struct mm mm;
	u64 mark[FRAMES];
} machine, fresh;
static u8 memory[FRAMES * PAGE_SIZE] __attribute__((aligned(4096)));
static u8 fresh_tables[16 * PAGE_SIZE];
static struct mtrr_state mtrr;

/* What the checks know by themselves. */
static u64 last_mark[FRAMES];
static u64 left_at[FRAMES]; /* epoch in which the frame entered its quarantine */
static bool has_content[FRAMES]; /* written by a host or guest since it was zeroed */
static u64 flushed; /* as mm->flushed, if nobody lies */
static u64 taken; /* frames that the last call took from the host */
static u64 mapped_by_monitor; /* frame that it mapped for itself in the last call */
static u64 own_tables; /* pages that it took for that, so far */
static u64 measured; /* pages that it measured in the last call */
static struct {
	bool live, dead; /* dead: destroyed, but the handle is still there */
	bool sealed; /* or being sealed */
	u64 handle, running;
	u64 measured, measured_last; /* pages, and the gpa of the last one */
	unsigned ranges;
	struct {
		u64 page, pages, permissions;
	} range[HYPERPS_VM_RANGES];
} vms[HYPERPS_VMS]; /* by slot */
static u64 rounds[ROUNDS];
static u64 handles[HANDLES];
static unsigned handle_count;
static u32 table_seen[FRAMES], table_pass;
static bool lie_flush, lie_zero, trace;

static struct call {
	u64 number, argument[4];
	s64 result;
} calls[SHOWN], *now;
static unsigned call_count;

static void print_call(const struct call *call)
{
	fprintf(stderr, "  call %#llx(%#llx, %#llx, %#llx, %#llx) = %lld\n", (unsigned long long)call->number,
		(unsigned long long)call->argument[0], (unsigned long long)call->argument[1],
		(unsigned long long)call->argument[2], (unsigned long long)call->argument[3], (long long)call->result);
}

static _Noreturn void finding(const char *what, u64 a, u64 b)
{
	fprintf(stderr, "the last calls (the result of the very last may be missing):\n");
	for (unsigned i = call_count > SHOWN ? call_count - SHOWN : 0; i < call_count; i++)
		print_call(&calls[i % SHOWN]);
	fprintf(stderr, "FINDING: %s (%#llx, %#llx)\n", what, (unsigned long long)a, (unsigned long long)b);
	abort();
}

/* ---- Looking at the machine ---- */

static u64 state_of(u64 mark)
{
	return mark & MARK_STATE;
}

static u64 vm_of(u64 mark)
{
	return mark >> MARK_VM_SHIFT & MARK_VM;
}

static u64 gpa_of(u64 mark)
{
	return (mark >> MARK_PAGE_SHIFT & MARK_PAGE) << PAGE_SHIFT;
}

static bool is_hosts(u64 state)
{
	return state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE || state == HYPERPS_FRAME_SHARED;
}

static bool is_vms(u64 state)
{
	return state == HYPERPS_FRAME_PRIVATE || state == HYPERPS_FRAME_SHARED;
}

static bool of_a_vm(u64 state)
{
	return is_vms(state) || state == HYPERPS_FRAME_TO_VM || state == HYPERPS_FRAME_TO_HOST;
}

static u64 root_of(const struct ept *view)
{
	return (u64)((u8 *)view->root - memory);
}

static u64 span(unsigned level)
{
	return BIT(12 + 9 * (level - 1));
}

static const u64 *table_at(u64 hpa)
{
	if (hpa % PAGE_SIZE || hpa >= sizeof(memory))
		finding("a table outside memory", hpa, 0);
	return (const u64 *)(memory + hpa);
}

/* The address that the view's CPU would reach at gpa; ~0 if nothing is there. */
static u64 reach(const struct ept *view, u64 gpa)
{
	u64 table = root_of(view);

	for (unsigned level = view->levels;; level--) {
		u64 entry = table_at(table)[gpa / span(level) % 512];

		if (!(entry & EPT_RWX))
			return ~0ULL;
		if (level == 1 || (entry & EPT_LARGE))
			return (entry & EPT_ADDRESS) + gpa % span(level);
		table = entry & EPT_ADDRESS;
	}
}

/* Whether CPUs may still run the VM, or will be able to. */
static bool is_in_use(enum hyperps_vm_state state)
{
	return state == HYPERPS_VM_OPEN || state == HYPERPS_VM_SEALING || state == HYPERPS_VM_SEALED;
}

/* Marks, host view and guest view agree about one frame. */
static void check_frame(u64 frame)
{
	u64 mark = machine.mark[frame], state = state_of(mark), in_host = reach(&machine.host_view, frame * PAGE_SIZE);

	if (in_host != (is_hosts(state) ? frame * PAGE_SIZE : ~0ULL))
		finding("the host view is wrong about a frame: frame, mark", frame, mark);
	if (of_a_vm(state)) {
		const struct vm *vm = &machine.mm.vm[vm_of(mark) % HYPERPS_VMS];

		if (vm_of(mark) >= HYPERPS_VMS || vm->state == HYPERPS_VM_FREE)
			finding("a frame of a VM that does not exist: frame, mark", frame, mark);
		if (!is_in_use(vm->state))
			return;
		if (reach(&vm->view, gpa_of(mark)) != (is_vms(state) ? frame * PAGE_SIZE : ~0ULL))
			finding("the guest view is wrong about a frame: frame, mark", frame, mark);
	}
}

/* Permissions with which a VM declared the page at gpa; 0 if it did not. */
static u64 declared(u64 slot, u64 gpa)
{
	for (unsigned i = 0; i < vms[slot].ranges; i++)
		if (gpa / PAGE_SIZE - vms[slot].range[i].page < vms[slot].range[i].pages)
			return vms[slot].range[i].permissions;
	return 0;
}

/* What is in a leaf besides the address. */
static void check_attributes(u64 slot, unsigned level, u64 gpa, u64 entry)
{
	u64 type = MEMORY_TYPE_WB, permissions = slot == HYPERPS_VMS ? EPT_RWX : declared(slot, gpa);

	/* What is shared with the host it can't execute. */
	if (slot == HYPERPS_VMS && gpa < sizeof(memory) &&
	    state_of(machine.mark[gpa / PAGE_SIZE]) == HYPERPS_FRAME_SHARED)
		permissions = EPT_READ | EPT_WRITE;

	if (slot == HYPERPS_VMS && gpa < UNCACHED + UNCACHED_SIZE && gpa + span(level) > UNCACHED) {
		if (gpa < UNCACHED || gpa + span(level) > UNCACHED + UNCACHED_SIZE)
			finding("one leaf for two memory types: address, entry", gpa, entry);
		type = MEMORY_TYPE_UC;
	}
	if ((entry & ~EPT_ADDRESS) != (permissions | type << EPT_MEMORY_TYPE_SHIFT | (level > 1 ? EPT_LARGE : 0)))
		finding("a leaf has other attributes: gpa, entry", gpa, entry);
	if ((entry & EPT_ADDRESS) % span(level))
		finding("a large leaf is not aligned: gpa, entry", gpa, entry);
}

/* What each leaf of a view must be; pages found are counted in *pages. */
static void check_table(const struct ept *view, u64 slot, u64 hpa, unsigned level, u64 base, u64 *pages)
{
	const u64 *table = table_at(hpa);
	bool in_use = slot == HYPERPS_VMS || is_in_use(machine.mm.vm[slot].state);

	if (state_of(machine.mark[hpa / PAGE_SIZE]) != HYPERPS_FRAME_MONITOR)
		finding("a table that is not the monitor's: view, address", slot, hpa);
	if (table_seen[hpa / PAGE_SIZE] == table_pass)
		finding("a table in two places: view, address", slot, hpa);
	table_seen[hpa / PAGE_SIZE] = table_pass;
	for (u64 i = 0; i < 512; i++) {
		u64 entry = table[i], gpa = base + i * span(level), first = (entry & EPT_ADDRESS) / PAGE_SIZE;
		u64 n = span(level) / PAGE_SIZE;

		if (!(entry & EPT_RWX))
			continue;
		if (level > 1 && !(entry & EPT_LARGE)) {
			check_table(view, slot, entry & EPT_ADDRESS, level - 1, gpa, pages);
			continue;
		}
		/* Of a view that is being taken down what is left must still be its own. */
		for (u64 frame = first; !in_use && frame < first + n && frame < FRAMES; frame++)
			if (vm_of(machine.mark[frame]) != slot || !of_a_vm(state_of(machine.mark[frame])))
				finding("a dying VM's view has a frame that is not its: frame, mark", frame,
					machine.mark[frame]);
		if (!in_use)
			continue;
		*pages += n;
		check_attributes(slot, level, gpa, entry);
		if (slot == HYPERPS_VMS && (entry & EPT_ADDRESS) != gpa)
			finding("the host view is no identity map: address, entry", gpa, entry);
		if (slot < HYPERPS_VMS && first + n > FRAMES)
			finding("a guest view leaves memory: gpa, entry", gpa, entry);
		for (u64 frame = first; frame < first + n && frame < FRAMES; frame++) {
			u64 mark = machine.mark[frame];

			if (slot == HYPERPS_VMS ? !is_hosts(state_of(mark))
						: !is_vms(state_of(mark)) || vm_of(mark) != slot ||
							  gpa_of(mark) != gpa + (frame - first) * PAGE_SIZE)
				finding("a view has a frame that is not its: frame, mark", frame, mark);
		}
	}
}

/* Each page that the pool ever had is a table of a view or of the monitor's own, or free, or in quarantine. */
static void check_pool(void)
{
	u64 monitors = 0, tables = own_tables + machine.pool.free.count;

	for (u64 frame = 0; frame < FRAMES; frame++) {
		bool is_first_pool = frame - POOL_FRAME < machine.pool.used / PAGE_SIZE;

		if (state_of(machine.mark[frame]) == HYPERPS_FRAME_MONITOR &&
		    (is_first_pool || frame - MONITOR_FRAME >= CHUNK))
			monitors++;
		tables += table_seen[frame] == table_pass;
	}
	if (monitors != tables)
		finding("a page of the pool is lost: pages, used and free", monitors, tables);
}

static void check_everything(void)
{
	u64 count[HYPERPS_FRAME_STATES] = { 0 }, of_vm[HYPERPS_VMS] = { 0 }, mapped_of_vm[HYPERPS_VMS] = { 0 },
	    pages = 0;

	for (u64 frame = 0; frame < FRAMES; frame++) {
		u64 mark = machine.mark[frame], state = state_of(mark);

		if (state >= HYPERPS_FRAME_STATES)
			finding("an unknown state: frame, mark", frame, mark);
		count[state]++;
		if (of_a_vm(state))
			of_vm[vm_of(mark) % HYPERPS_VMS]++;
		if (is_vms(state))
			mapped_of_vm[vm_of(mark) % HYPERPS_VMS]++;
	}
	for (unsigned state = 0; state < HYPERPS_FRAME_STATES; state++)
		if (count[state] != machine.marks.count[state])
			finding("a counter by state is wrong: state, frames", state, count[state]);
	table_pass++;
	check_table(&machine.host_view, HYPERPS_VMS, root_of(&machine.host_view), machine.host_view.levels, 0, &pages);
	if (pages - BIT(ADDRESS_BITS - 12) + FRAMES !=
	    count[HYPERPS_FRAME_HOST] + count[HYPERPS_FRAME_DEVICE] + count[HYPERPS_FRAME_SHARED])
		finding("the host view has too few pages", pages, 0);
	for (u64 slot = 0; slot < HYPERPS_VMS; slot++) {
		const struct vm *vm = &machine.mm.vm[slot];
		struct hyperps_vm description;

		mm_describe(&machine.mm, slot, &description);
		if (description.state != vm->state || description.frames != of_vm[slot] ||
		    vm->running != vms[slot].running)
			finding("a VM's description is wrong: slot, frames", slot, description.frames);
		pages = 0;
		if (vm->state != HYPERPS_VM_FREE)
			check_table(&vm->view, slot, root_of(&vm->view), vm->view.levels, 0, &pages);
		if (of_vm[slot] != (vm->state == HYPERPS_VM_FREE ? 0 : vm->frames))
			finding("a VM's number of frames is wrong: slot, frames", slot, of_vm[slot]);
		if (is_in_use(vm->state) && pages != mapped_of_vm[slot])
			finding("a guest view has too few pages: slot, pages", slot, pages);
	}
	check_pool();
}

/* ---- What a call may do ---- */

static bool may_go(u64 from, u64 to)
{
	static const struct {
		u8 from, to;
		u64 call;
	} by_call[] = {
		{ HYPERPS_FRAME_HOST, HYPERPS_FRAME_TO_VM, HYPERPS_CALL_VM_MAP },
		{ HYPERPS_FRAME_TO_VM, HYPERPS_FRAME_PRIVATE, HYPERPS_CALL_VM_SYNC },
		{ HYPERPS_FRAME_TO_VM, HYPERPS_FRAME_TO_HOST, HYPERPS_CALL_VM_DESTROY },
		{ HYPERPS_FRAME_PRIVATE, HYPERPS_FRAME_TO_HOST, HYPERPS_CALL_VM_DESTROY },
		{ HYPERPS_FRAME_SHARED, HYPERPS_FRAME_TO_HOST, HYPERPS_CALL_VM_DESTROY },
		{ HYPERPS_FRAME_PRIVATE, HYPERPS_FRAME_SHARED, GUEST_SHARE },
		{ HYPERPS_FRAME_SHARED, HYPERPS_FRAME_TO_VM, GUEST_UNSHARE },
		{ HYPERPS_FRAME_PRIVATE, HYPERPS_FRAME_TO_HOST, GUEST_RELEASE },
		{ HYPERPS_FRAME_TO_HOST, HYPERPS_FRAME_HOST, HYPERPS_CALL_VM_RECLAIM },
		{ HYPERPS_FRAME_HOST, HYPERPS_FRAME_TO_MONITOR, HYPERPS_CALL_POOL_DONATE },
	};

	if (from == HYPERPS_FRAME_TO_MONITOR && to == HYPERPS_FRAME_MONITOR)
		return true; /* also in a call that fails */
	if (now->result < 0)
		return false;
	if (from == HYPERPS_FRAME_MONITOR && to == HYPERPS_FRAME_TO_MONITOR)
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(by_call); i++)
		if (by_call[i].from == from && by_call[i].to == to && by_call[i].call == now->number)
			return true;
	return false;
}

static void check_transition(u64 frame, u64 was, u64 is)
{
	u64 from = state_of(was), to = state_of(is), slot = now->argument[0] & 0xffffffff;

	if (from == HYPERPS_FRAME_MONITOR && to == HYPERPS_FRAME_MONITOR)
		return; /* a list of the pool's */
	if (from == HYPERPS_FRAME_TO_MONITOR && to == HYPERPS_FRAME_TO_MONITOR)
		return;
	if (!may_go(from, to))
		finding("a call made a transition that it must not: frame, new mark", frame, is);
	if (of_a_vm(to))
		if (vm_of(is) != slot)
			finding("a frame changed in another VM than the call's: frame, mark", frame, is);
	if (from == HYPERPS_FRAME_TO_VM || from == HYPERPS_FRAME_TO_HOST || from == HYPERPS_FRAME_TO_MONITOR)
		if (to != HYPERPS_FRAME_TO_HOST && flushed <= left_at[frame])
			finding("a frame left quarantine before the flush: frame, new mark", frame, is);
	if (of_a_vm(from) && of_a_vm(to) && (was ^ is) & ~MARK_STATE)
		finding("a frame changed its VM or gpa: frame, mark", frame, is);
	if (now->number <= GUEST_RELEASE && of_a_vm(to) &&
	    (gpa_of(is) < now->argument[1] || gpa_of(is) - now->argument[1] >= now->argument[2] * PAGE_SIZE))
		finding("a guest's request changed another page: frame, mark", frame, is);
	if (from == HYPERPS_FRAME_TO_VM && to == HYPERPS_FRAME_PRIVATE) {
		if (machine.mm.vm[slot].state == HYPERPS_VM_SEALED && has_content[frame])
			finding("a frame came into a sealed VM with content: frame, mark", frame, is);
		has_content[frame] = true;
	}
	if (to == HYPERPS_FRAME_HOST) {
		if (has_content[frame])
			finding("a frame came back to the host with content: frame, mark", frame, is);
		has_content[frame] = true;
	}
	if (from == HYPERPS_FRAME_HOST && to == HYPERPS_FRAME_TO_VM)
		if (gpa_of(is) != now->argument[1] + (frame - now->argument[2]) * PAGE_SIZE ||
		    !(declared(slot, gpa_of(is)) & EPT_READ) ||
		    (machine.mm.vm[slot].state != HYPERPS_VM_OPEN && machine.mm.vm[slot].state != HYPERPS_VM_SEALED))
			finding("VM_MAP gave a frame that it must not: frame, mark", frame, is);
	taken += from == HYPERPS_FRAME_HOST;
	left_at[frame] = machine.mm.epoch;
}

void mm_zero_frame(u64 frame)
{
	if (frame >= FRAMES)
		finding("mm_zero_frame past the end", frame, 0);
	if (state_of(machine.mark[frame]) != HYPERPS_FRAME_TO_VM &&
	    state_of(machine.mark[frame]) != HYPERPS_FRAME_TO_HOST)
		finding("mm_zero_frame: frame, mark", frame, machine.mark[frame]);
	if (flushed <= left_at[frame])
		finding("a frame is zeroed before the flush: frame, mark", frame, machine.mark[frame]);
	if (reach(&machine.host_view, frame * PAGE_SIZE) != ~0ULL)
		finding("the host reaches a frame that is being zeroed: frame, mark", frame, machine.mark[frame]);
	check_frame(frame);
	if (!lie_zero)
		has_content[frame] = false;
}

/* In ascending order; the end of sealing looks whether none was left out. */
void mm_measure_page(u64 slot, u64 gpa, u64 frame)
{
	if (now->number != HYPERPS_CALL_VM_SEAL || slot != (now->argument[0] & 0xffffffff) || frame >= FRAMES)
		finding("mm_measure_page: slot, frame", slot, frame);
	if (machine.mark[frame] !=
	    (HYPERPS_FRAME_PRIVATE | slot << MARK_VM_SHIFT | gpa >> PAGE_SHIFT << MARK_PAGE_SHIFT))
		finding("a VM is measured with a frame that is not its, or not there: gpa, mark", gpa,
			machine.mark[frame]);
	check_frame(frame);
	if (vms[slot].measured++ && gpa <= vms[slot].measured_last)
		finding("a page is measured after another one: gpas", gpa, vms[slot].measured_last);
	vms[slot].measured_last = gpa;
	measured++;
}

/* The monitor's own tables for what is donated take pages of the pool: at most 2. */
bool mm_map_donated(u64 frame)
{
	if (state_of(machine.mark[frame]) != HYPERPS_FRAME_HOST || now->number != HYPERPS_CALL_POOL_DONATE)
		finding("mm_map_donated: frame, mark", frame, machine.mark[frame]);
	for (u64 i = frame / CHUNK % 3; i; i--)
		if (own_tables++, !page_pool_take(&machine.pool))
			finding("mm_map_donated: no page", frame, 0);
	mapped_by_monitor = frame;
	return true;
}

static bool is_live(u64 handle)
{
	return (handle & 0xffffffff) < HYPERPS_VMS && vms[handle & 0xffffffff].live &&
	       vms[handle & 0xffffffff].handle == handle;
}

static void note_new_vm(u64 handle)
{
	u64 slot = handle & 0xffffffff;

	for (unsigned i = 0; i < handle_count; i++)
		if (handles[i] == handle)
			finding("a handle is used again", handle, 0);
	if (slot >= HYPERPS_VMS || vms[slot].live)
		finding("a new VM has the slot of another", handle, 0);
	memset(&vms[slot], 0, sizeof(vms[slot]));
	vms[slot].live = true;
	vms[slot].handle = handle;
	if (handle_count < HANDLES)
		handles[handle_count++] = handle;
}

static void note_range(u64 slot)
{
	u64 page = now->argument[1] / PAGE_SIZE, pages = now->argument[2], end = BIT(MM_VIEW_BITS - PAGE_SHIFT);
	unsigned n = vms[slot].ranges++;

	if (n >= HYPERPS_VM_RANGES || (u64)now->result != n + 1 || !pages || page >= end || pages > end - page)
		finding("VM_DECLARE took a range that it must not", page, pages);
	for (unsigned i = 0; i < n; i++)
		if (page < vms[slot].range[i].page + vms[slot].range[i].pages && vms[slot].range[i].page < page + pages)
			finding("VM_DECLARE took a range that overlaps", page, pages);
	vms[slot].range[n].page = page;
	vms[slot].range[n].pages = pages;
	vms[slot].range[n].permissions = now->argument[1] % PAGE_SIZE;
	if (vms[slot].sealed || vms[slot].range[n].permissions > HYPERPS_RANGE_MMIO)
		finding("VM_DECLARE took a range that it must not", page, now->argument[1]);
}

static void check_query(u64 handle, u64 frame)
{
	if ((u64)now->result != (frame < FRAMES ? state_of(machine.mark[frame]) : HYPERPS_FRAME_DEVICE))
		finding("FRAME_QUERY returned another state", (u64)now->result, frame);
	if (now->result > HYPERPS_FRAME_HOST &&
	    (!is_live(handle) || vm_of(machine.mark[frame]) != (handle & 0xffffffff)))
		finding("FRAME_QUERY told about a frame that is not the host's, a device's or the VM's", handle, frame);
}

/* What is at an address of a VM, asked in the midst of other calls. */
static void look_up(u64 handle, u64 gpa)
{
	u64 slot = handle & 0xffffffff;
	s64 frame = mm_guest_frame(&machine.mm, handle, gpa);
	bool live = is_live(handle), is_sealed = live && machine.mm.vm[slot].state == HYPERPS_VM_SEALED;
	u64 hpa = is_sealed && gpa < BIT(MM_VIEW_BITS) ? reach(&machine.mm.vm[slot].view, gpa) : ~0ULL;

	if (frame != (!live          ? HYPERPS_ERROR_NO_VM
		      : !is_sealed   ? HYPERPS_ERROR_STATE
		      : hpa == ~0ULL ? HYPERPS_ERROR_OWNER
				     : (s64)(hpa / PAGE_SIZE)))
		finding("mm_guest_frame: gpa, frame", gpa, (u64)frame);
	if (frame >= 0 && (!is_vms(state_of(machine.mark[frame])) || vm_of(machine.mark[frame]) != slot))
		finding("mm_guest_frame gives a frame that is not the VM's: gpa, frame", gpa, (u64)frame);
	if (mm_range(&machine.mm, handle, gpa) != (live ? declared(slot, gpa) : 0))
		finding("mm_range: gpa, permissions", gpa, mm_range(&machine.mm, handle, gpa));
	if (live && (ept_pointer(&machine.mm.vm[slot].view) & ~(PAGE_SIZE - 1)) != root_of(&machine.mm.vm[slot].view))
		finding("pointer to the view: handle", handle, ept_pointer(&machine.mm.vm[slot].view));
}

static void check_seal(u64 slot)
{
	u64 pages = 0;

	if (vms[slot].dead || machine.mm.vm[slot].state != (now->result ? HYPERPS_VM_SEALING : HYPERPS_VM_SEALED))
		finding("VM_SEAL: result, state", (u64)now->result, machine.mm.vm[slot].state);
	if (now->result > 1 || measured > MM_SEAL_PAGES)
		finding("VM_SEAL measured too much: pages", measured, 0);
	for (u64 frame = 0; frame < FRAMES; frame++) {
		if (state_of(machine.mark[frame]) == HYPERPS_FRAME_TO_VM && vm_of(machine.mark[frame]) == slot)
			finding("VM_SEAL with a frame on its way: frame, slot", frame, slot);
		pages += of_a_vm(state_of(machine.mark[frame])) && vm_of(machine.mark[frame]) == slot;
	}
	if (!now->result && vms[slot].measured != pages)
		finding("VM_SEAL did not measure each page: measured, pages", vms[slot].measured, pages);
	vms[slot].sealed = true;
}

static void check_result(void)
{
	u64 slot = now->argument[0] & 0xffffffff;
	static const s64 errors[] = { HYPERPS_ERROR_NO_VM,   HYPERPS_ERROR_AGAIN,     HYPERPS_ERROR_MEMORY,
				      HYPERPS_ERROR_OWNER,   HYPERPS_ERROR_STATE,     HYPERPS_ERROR_INVALID,
				      HYPERPS_ERROR_NO_CALL, HYPERPS_ERROR_PERMISSION };

	if (now->result < 0) {
		for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
			if (now->result == errors[i])
				return;
		finding("an unknown error code", (u64)now->result, 0);
	}
	if (now->number == HYPERPS_CALL_VM_CREATE)
		note_new_vm((u64)now->result);
	else if (now->number == HYPERPS_CALL_FRAME_QUERY)
		check_query(now->argument[0], now->argument[1]);
	else if (now->number != HYPERPS_CALL_POOL_DONATE && (slot >= HYPERPS_VMS || !is_live(now->argument[0])))
		finding("a call for a VM that is not there was done", now->argument[0], 0);
	switch (now->number) {
	case HYPERPS_CALL_VM_DECLARE:
		note_range(slot);
		break;
	case HYPERPS_CALL_VM_MAP:
	case HYPERPS_CALL_POOL_DONATE:
		if (!now->result || (u64)now->result != taken)
			finding("a call took other frames than it says", (u64)now->result, taken);
		if (now->number == HYPERPS_CALL_VM_MAP ? taken > now->argument[3]
						       : mapped_by_monitor != now->argument[0])
			finding("a call took what it must not", taken, mapped_by_monitor);
		break;
	case HYPERPS_CALL_VM_SEAL:
		check_seal(slot);
		break;
	case VCPU_ENTER:
		if (machine.mm.vm[slot].state != HYPERPS_VM_SEALED || now->result)
			finding("a vCPU runs in a VM that is not sealed: slot, result", slot, (u64)now->result);
		vms[slot].running++;
		break;
	case VCPU_LEAVE:
		vms[slot].running--;
		break;
	case HYPERPS_CALL_VM_DESTROY:
		if (vms[slot].running)
			finding("a VM ends while a vCPU runs: slot, vCPUs", slot, vms[slot].running);
		vms[slot].dead = now->result == 0;
		break;
	case HYPERPS_CALL_VM_RECLAIM:
		vms[slot].live = now->result || !vms[slot].dead;
		break;
	}
}

static s64 leave(u64 handle)
{
	mm_leave(&machine.mm, handle);
	return 0;
}

static s64 call(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	now = &calls[call_count++ % SHOWN];
	*now = (struct call){ number, { a, b, c, d }, 0 };
	taken = measured = 0;
	mapped_by_monitor = ~0ULL;
	now->result = number == GUEST_SHARE     ? mm_guest_move(&machine.mm, a, b, c, HYPERPS_FRAME_SHARED)
		      : number == GUEST_UNSHARE ? mm_guest_move(&machine.mm, a, b, c, HYPERPS_FRAME_TO_VM)
		      : number == GUEST_RELEASE ? mm_guest_move(&machine.mm, a, b, c, HYPERPS_FRAME_TO_HOST)
		      : number == VCPU_ENTER    ? mm_enter(&machine.mm, a)
		      : number == VCPU_LEAVE    ? leave(a)
						: mm_dispatch(&machine.mm, number, now->argument);
	if (trace)
		print_call(now);
	for (u64 chunk = 0; chunk < FRAMES; chunk += CHUNK) {
		if (!memcmp(&last_mark[chunk], &machine.mark[chunk], CHUNK * sizeof(u64)))
			continue;
		for (u64 frame = chunk; frame < chunk + CHUNK; frame++) {
			u64 was = last_mark[frame], is = machine.mark[frame];

			if (was == is)
				continue;
			check_transition(frame, was, is);
			check_frame(frame);
			last_mark[frame] = is;
		}
	}
	check_result();
	if (call_count % FULL_CHECK == 0)
		check_everything();
	return now->result;
}

/* ---- Flushes, as service/memory_service.c does them: an epoch begins, every CPU flushes, the epoch counts as flushed ---- */

static void begin_flush(unsigned round)
{
	rounds[round] = ++machine.mm.epoch;
	if (lie_flush)
		machine.mm.flushed = rounds[round];
}

static void end_flush(unsigned round)
{
	if (rounds[round] > flushed && !lie_flush)
		machine.mm.flushed = flushed = rounds[round];
	rounds[round] = 0;
}

static void flush(void)
{
	begin_flush(0);
	end_flush(0);
}

/* ---- From an input's bytes to calls ---- */

static const u8 *input;
static size_t input_left;

static u8 byte(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

static u64 bytes(unsigned n)
{
	u64 value = 0;

	while (n--)
		value = value << 8 | byte();
	return value;
}

static u64 hostile(u8 selector)
{
	static const u64 values[] = { ~0ULL,
				      ~0ULL - 511,
				      ~0xfffULL,
				      BIT(63),
				      BIT(52),
				      BIT(48),
				      BIT(46),
				      BIT(46) - PAGE_SIZE,
				      BIT(46) - PAGE_SIZE_2M,
				      BIT(36),
				      BIT(32),
				      FRAMES,
				      FRAMES - 1,
				      0 };

	return selector < ARRAY_SIZE(values) ? values[selector] : bytes(8);
}

static u64 a_handle(void)
{
	u8 b = byte();

	if (b >= 0xf0)
		return hostile(b & 0xf);
	if (b >= 0xe0)
		return b & 0xf;
	if (!handle_count)
		return 0;
	/* The latest ones most of all. */
	return b & 0x80 ? handles[handle_count - 1] : handles[b % handle_count] ^ (b & 0x40 ? BIT(32) : 0);
}

static u64 a_frame(void)
{
	u8 b = byte();

	if (b >= 0xf0)
		return hostile(b & 0xf);
	return b & 0x80 ? b % 8 * CHUNK : ((u64)b << 8 | byte()) % FRAMES;
}

static u64 a_count(void)
{
	u8 b = byte();

	if (b >= 0xf0)
		return hostile(b & 0xf);
	if (b >= 0xe0)
		return (u64)(b & 0xf) << 7 | byte();
	return b & 0x80 ? CHUNK - b % 4 : b;
}

/* near: a frame's number, so that large pages are possible on both sides. */
static u64 a_gpa(u64 near)
{
	u8 b = byte();

	if (b >= 0xf0)
		return hostile(b & 0xf);
	if (b & 0x80)
		return (near * PAGE_SIZE + b % 4 * PAGE_SIZE_1G) & ~(PAGE_SIZE - 1);
	return (u64)byte() << (b & 0x3f);
}

/* Of a VM that lives: its caller knows the handle. At a page that is the VM's, as a rule. */
static void guest_request(u64 number, u64 handle)
{
	u64 frame = a_frame(), gpa;

	if (!number || !is_live(handle))
		return;
	if (frame < FRAMES && of_a_vm(state_of(machine.mark[frame])))
		gpa = gpa_of(machine.mark[frame]);
	else
		gpa = a_gpa(frame);
	call(number, handle, gpa, a_count(), 0);
}

/* A vCPU begins or ends to run, or an address is looked up. */
static void vcpu_request(u8 operation)
{
	u64 handle = a_handle();

	if (operation & 0x40)
		look_up(handle, a_gpa(a_frame()));
	else if (!(operation & 0x10))
		call(VCPU_ENTER, handle, 0, 0, 0);
	else if (is_live(handle) && vms[handle & 0xffffffff].running)
		call(VCPU_LEAVE, handle, 0, 0, 0);
}

static void step(void)
{
	u64 handle, frame, gpa;
	u8 operation = byte();

	switch (operation & 0xf) {
	case 0:
		/* As a rule with all of its addresses declared as RAM. */
		handle = (u64)call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
		if (operation & 0x10)
			call(HYPERPS_CALL_VM_DECLARE, handle, EPT_RWX, BIT(MM_VIEW_BITS - PAGE_SHIFT), 0);
		break;
	case 1:
		handle = a_handle();
		frame = a_frame();
		gpa = a_gpa(frame) | (operation & 0x10 ? byte() & (operation & 0x20 ? 0xff : EPT_RWX) : EPT_RWX);
		call(HYPERPS_CALL_VM_DECLARE, handle, gpa, a_count(), 0);
		break;
	case 2 ... 4:
		handle = a_handle();
		frame = a_frame();
		gpa = a_gpa(frame);
		call(HYPERPS_CALL_VM_MAP, handle, gpa, frame, a_count());
		break;
	case 5:
	case 6:
		handle = a_handle();
		if (call(HYPERPS_CALL_VM_SYNC, handle, 0, 0, 0) == HYPERPS_ERROR_AGAIN && (operation & 0x10)) {
			flush();
			call(HYPERPS_CALL_VM_SYNC, handle, 0, 0, 0);
		}
		break;
	case 7:
		handle = a_handle();
		while (call(HYPERPS_CALL_VM_SEAL, handle, 0, 0, 0) == 1 && (operation & 0x10))
			;
		break;
	case 8:
		call(HYPERPS_CALL_VM_DESTROY, a_handle(), 0, 0, 0);
		break;
	case 9:
	case 10:
		handle = a_handle();
		if (call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0) == HYPERPS_ERROR_AGAIN && (operation & 0x10)) {
			flush();
			call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0);
		}
		break;
	case 11:
		handle = a_handle();
		if (operation & 0x20) {
			guest_request(operation >> 6, handle);
			break;
		}
		call(HYPERPS_CALL_FRAME_QUERY, handle, a_frame(), 0, 0);
		break;
	case 12:
		if (operation & 0x20)
			vcpu_request(operation);
		else
			call(HYPERPS_CALL_POOL_DONATE, a_frame(), 0, 0, 0);
		break;
	case 13:
		begin_flush(operation >> 4 & 1);
		break;
	case 14:
		end_flush(operation >> 4 & 1);
		break;
	default:
		if (operation & 0x10) {
			flush();
			break;
		}
		handle = a_handle();
		gpa = bytes(8);
		frame = bytes(8);
		call(HYPERPS_CALL_VM_CREATE + byte(), handle, gpa, frame, bytes(2));
	}
}

/* A larger pool, if there is still a 2 MiB page for it. */
static void donate_any(void)
{
	for (u64 frame = 0; frame < FRAMES; frame += CHUNK)
		if (call(HYPERPS_CALL_POOL_DONATE, frame, 0, 0, 0) > 0)
			return;
}

/* Ends a VM; false if it can't be done for lack of pages. */
static bool wind_down(u64 handle)
{
	while (is_live(handle) && vms[handle & 0xffffffff].running)
		call(VCPU_LEAVE, handle, 0, 0, 0);
	for (unsigned i = 0; i < 100; i++) {
		s64 result = call(HYPERPS_CALL_VM_DESTROY, handle, 0, 0, 0);

		if (result == HYPERPS_ERROR_NO_VM)
			return true;
		if (result == 1)
			continue;
		flush();
		result = call(HYPERPS_CALL_VM_RECLAIM, handle, 0, 0, 0);
		if (result == HYPERPS_ERROR_MEMORY && i > 10)
			return false;
		if (result == HYPERPS_ERROR_MEMORY)
			donate_any();
	}
	finding("a VM does not end: handle", handle, 0);
}

/* What one VM gives back may be what another needs. */
static void wind_all_down(void)
{
	unsigned left = handle_count;

	for (unsigned before = left + 1; left && left < before;) {
		before = left;
		left = 0;
		for (unsigned i = 0; i < handle_count; i++)
			left += !wind_down(handles[i]);
	}
	if (left)
		finding("VMs can't be ended for lack of pages", left, page_pool_available(&machine.pool));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *count, char ***arguments);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	machine = fresh;
	memcpy(memory + POOL_FRAME * PAGE_SIZE, fresh_tables, sizeof(fresh_tables));
	memcpy(last_mark, machine.mark, sizeof(last_mark));
	memset(left_at, 0, sizeof(left_at));
	memset(has_content, true, sizeof(has_content));
	memset(rounds, 0, sizeof(rounds));
	memset(vms, 0, sizeof(vms));
	flushed = handle_count = call_count = own_tables = 0;
	input = data;
	input_left = size;
	/* Just above the reserve, or more. */
	machine.pool.size = machine.pool.used + (MM_POOL_RESERVE + bytes(1)) * PAGE_SIZE;

	while (input_left && call_count < CALLS)
		step();
	check_everything();
	wind_all_down();
	check_everything();
	return 0;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	static const struct boot_memory_range map[] = {
		{ 0, 0xa0000, 7, 0 },
		{ 0x100000, FRAMES * PAGE_SIZE - 0x100000, 7, 0 },
		{ 0x700000, 0x10000, 6, 0 }, /* runtime data: DEVICE */
	};
	const u64 monitor = MONITOR_FRAME * PAGE_SIZE;
	const char *lie = getenv("HYPERPS_FUZZ_LIE");

	(void)count;
	(void)arguments;
	lie_flush = lie && !strcmp(lie, "flush");
	lie_zero = lie && !strcmp(lie, "zero");
	trace = getenv("HYPERPS_FUZZ_TRACE") != NULL;
	mtrr = (struct mtrr_state){ .capability = 1, .msr[MTRR_DEFAULT] = MTRR_ENABLE | MEMORY_TYPE_WB };
	mtrr.msr[MTRR_BASE(0)] = UNCACHED | MEMORY_TYPE_UC;
	mtrr.msr[MTRR_MASK(0)] = (BIT(ADDRESS_BITS) - UNCACHED_SIZE) | MTRR_MASK_VALID;
	page_marks_init(&machine.marks, machine.mark, map, ARRAY_SIZE(map), &mtrr, ADDRESS_BITS);
	page_marks_set(&machine.marks, monitor / PAGE_SIZE, CHUNK, HYPERPS_FRAME_MONITOR);
	machine.pool = (struct page_pool){ .linear = memory + POOL_FRAME * PAGE_SIZE,
					   .base = HPA(POOL_FRAME * PAGE_SIZE),
					   .size = POOL_LARGEST * PAGE_SIZE,
					   .direct = memory,
					   .marks = &machine.marks };
	if (!ept_init(&machine.host_view, &machine.pool, 4, 3))
		abort();
	for (u64 at = 0, end; at < BIT(ADDRESS_BITS); at = end) {
		u64 type = memory_type_at(&mtrr, ADDRESS_BITS, HPA(at), &end);

		if (at == monitor) {
			end = monitor + PAGE_SIZE_2M;
			continue;
		}
		if (at < monitor)
			end = monitor;
		if (!ept_map(&machine.host_view, GPA(at), HPA(at), end - at, EPT_RWX, type))
			abort();
	}
	machine.mm = (struct mm){ .marks = &machine.marks, .pool = &machine.pool, .host_view = &machine.host_view };
	machine.mm.epoch = 1;
	if (machine.pool.used > sizeof(fresh_tables))
		abort();
	memcpy(fresh_tables, machine.pool.linear, machine.pool.used);
	fresh = machine;
	check_everything();
	return 0;
}
