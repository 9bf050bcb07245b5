/* SPDX-License-Identifier: MIT */
/*
 * The memory manager: the requests by which frames change their owner. The page marks and the VM marks say what is; the
 * host view and each VM's guest view are derived from them in the same step. No VMX instruction, no I/O; builds for the
 * build machine.
 *
 * Transitions of a frame (mark state: by which request, when):
 *
 *   HOST       -> TO_VM       mm_map: leaves the host view at once; its guest entry is made, but not present
 *   TO_VM      -> PRIVATE     mm_sync: every CPU has flushed since; guest entry present (zeroed first, if sealed)
 *   PRIVATE    -> SHARED      mm_guest_move: enters the host view, too, not executable; needs no flush
 *   SHARED     -> TO_VM       mm_guest_move: leaves both views at once
 *   PRIVATE    -> TO_HOST     mm_guest_move: leaves the guest view at once, but keeps its gpa
 *   PRIVATE    -> TO_HOST     mm_destroy: the whole view of the VM is out of use
 *   SHARED     -> TO_HOST     mm_destroy: leaves the host view at once
 *   TO_VM      -> TO_HOST     mm_destroy
 *   TO_HOST    -> HOST        mm_reclaim: every CPU has flushed since; zeroed, then back in the host view
 *   HOST       -> TO_MONITOR  mm_donate: leaves the host view at once
 *   TO_MONITOR -> MONITOR     a request that takes pages of the pool: every CPU has flushed (zeroed when taken)
 *   MONITOR    -> TO_MONITOR  a table page that is no longer used
 *
 * Of KVM VMs (docs/protected.md, "A frame"):
 *
 *   ORPHAN     -> TO_VM       mm_map, SEALED: what CPUs still have of the old VM's ends with the same flush
 *   PRIVATE, TO_VM, TO_HOST
 *              -> ORPHAN      mm_bury, or mm_orphan: no vCPU runs; in no view, but for zeros that the host reads there
 *   ORPHAN     -> TO_HOST     mm_return_begin: nobody's; its mark has the epoch
 *   TO_HOST    -> HOST        mm_return_end: every CPU has flushed since; zeroed, then back in the host view
 *
 * A HOST frame that leaves the host view leaves all EPT02s, too (mm/shadow.h): before its mark changes, which tells whether one
 * may name it.
 *
 * DEVICE never changes. A frame not listed here in the state that a request needs makes the request fail as a whole,
 * unchanged.
 *
 * Flushing. struct mm holds an epoch number. A translation that a request removes may live on in TLBs and
 * paging-structure caches until each CPU has flushed (INVEPT, all contexts). The caller counts flushes: mm->flushed is
 * the largest epoch such that every CPU has flushed after that epoch had begun. A frame removed in epoch e is safe when
 * mm->flushed > e. memory_read_host() (service/) copies without the lock, and rests on this: no frame that was HOST is
 * anybody else's before the CPU that copies has acknowledged a flush. To begin an epoch is to increase mm->epoch; a caller that flushes every CPU afterwards may set
 * mm->flushed to it.
 *
 * States of a VM (enum hyperps_vm_state): OPEN, by mm_create; SEALING, by mm_seal, while its pages are measured; SEALED, when
 * they all are: now vCPUs can run, and the guest can make requests. From each of them DYING, by mm_destroy, unless a
 * vCPU runs; DEAD, when all frames are TO_HOST; FREE, by mm_reclaim. A KVM VM becomes DYING by mm_kill, whether vCPUs run or
 * not, then DEAD, with no frame left, and FREE by mm_bury.
 *
 * Lock: all functions need the lock of the struct mm (service/ takes it), and do a bounded amount of work: at most
 * MM_BATCH frames, mm_map at most MM_MAP_BATCHES times as many, mm_seal MM_SEAL_PAGES.
 */
#ifndef MANAGER_H
#define MANAGER_H

#include "ept.h"
#include "mtrr.h"
#include "shadow.h"
#include "sha256.h"
#include "sha384.h"
#include "hyperps/guest.h"

#define MM_BATCH 512 /* frames that are handled at once */
#define MM_MAP_BATCHES 8 /* batches that one mm_map handles at most */
#define MM_SEAL_PAGES 8 /* pages that one mm_seal measures at most */
#define MM_PENDING 32 /* runs of frames on the way to a VM that are not yet synced; also: from it, not yet reclaimed */
#define MM_DIRECT_TABLES 4 /* pages of the pool that mm_map_donated() takes at most */
#define MM_VIEW_BITS 46 /* guest-physical address width of a VM */

/*
 * Pages that no request may find missing in its middle: mm_create, mm_map and the guest's requests check at their
 * start that the pool has this many. A batch takes at most a page directory and two page tables, on the way down from
 * the root two more, in two views. That holds for shared frames, too: their table in the host view is only missing if
 * all 512 frames around them went away in one batch and none has come back, so they lie side by side in the guest's
 * view as well.
 */
#define MM_POOL_RESERVE 16

/* Runs of frames by guest-physical address. */
struct gpa_runs {
	u32 count;
	u64 frames; /* in all of them */
	struct {
		u64 gpa, frames;
	} run[MM_PENDING];
};

/* permissions: an OR of EPT_READ, EPT_WRITE, EPT_EXECUTE, of RAM; or HYPERPS_RANGE_MMIO. */
struct vm_range {
	u64 gpa, frames, permissions;
};

/* A vCPU's two pages of the pool, and what it starts with, as measured. What is in the pages, mm/ does not know. */
struct vm_vcpu {
	void *vmcs, *state; /* linear addresses; NULL when the VM is being buried */
	u64 start[3]; /* HYPERPS_CALL_VCPU_CREATE's arguments */
	u64 vmcs12; /* hpa, of a KVM VM's that is bound; 0: none. Stays until the VM is buried */
};

/* What PROTECT's list says, and what comes of it. */
struct vm_kvm {
	bool is_kvm;
	struct hyperps_protect list;
	u64 owner; /* L1's CR3 at PROTECT */
	struct sha384 sha384; /* the measurement so far */
	u8 mrtd[SHA384_BYTES]; /* of a SEALED VM */
};

struct vm {
	enum hyperps_vm_state state;
	u32 generation; /* counts the VMs that had this slot; part of the handle */
	struct ept view;
	u64 frames; /* PRIVATE, SHARED, TO_VM and TO_HOST frames of this VM */
	u64 epoch; /* in which a frame last entered quarantine TO_VM or TO_HOST */
	u64 cursor; /* gpa from which mm_seal, mm_destroy or mm_reclaim goes on */
	u32 running; /* vCPUs that are between mm_enter and mm_leave */
	u32 vcpus;
	struct vm_vcpu vcpu[HYPERPS_VCPUS];
	struct sha256 sha256; /* the measurement so far */
	u8 digest[32]; /* of a SEALED VM */
	struct gpa_runs pending; /* TO_VM frames */
	struct gpa_runs released; /* TO_HOST frames of a VM that lives: their entries are not present, but not 0 */
	u32 range_count;
	struct vm_range range[HYPERPS_VM_RANGES]; /* as declared */
	struct vm_kvm kvm;
};

struct mm {
	struct page_marks *marks;
	struct page_pool *pool;
	struct ept *host_view;
	struct shadow *shadows; /* of all CPUs, where the host runs VMs of its own: mm/shadow.h */
	u64 shadow_generation; /* in the marks of frames that they name; 1 to MARK_SHADOW */
	u64 epoch; /* current; starts at 1 */
	u64 flushed; /* see above; starts at 0 */
	struct page_pool *kvm_pages; /* for the views and vCPUs of KVM VMs; NULL: there are none */
	u64 zeros; /* frame that the host reads in place of KVM VMs': MONITOR, written never after boot */
	u32 kvm_vms; /* that are not FREE */
	u32 bindings; /* moves on when one of them, or what VM it leads to, changes */
	struct vm vm[HYPERPS_VMS];
};

/*
 * The hooks: what mm/ can't do without the hardware, defined by whoever links it: service/memory_service.c, and each
 * test for itself. All other symbols that mm/ uses are its own.
 *
 *   mm_zero_frame    overwrites a frame with zeros and writes it back from the caches
 *   mm_measure_page  calls mm_measure() for the page of the VM in a slot, with its content
 *   mm_map_donated   maps the 512 frames from `frame` on, which the host donates, where page_pool.direct says. May
 *                    take MM_DIRECT_TABLES pages of the pool; false if there are fewer
 */
void mm_zero_frame(u64 frame);
void mm_measure_page(u64 slot, u64 gpa, u64 frame);
bool mm_map_donated(u64 frame);

/*
 * Every function returns 0 or more on success, else one of the HYPERPS_ERROR_* codes, and then has changed nothing
 * (but that pages of the pool may have left its quarantine):
 *   _NO_VM     the handle names no VM (never did, or an earlier one in that slot)
 *   _STATE     the VM is not in a state for this request
 *   _INVALID   an address, count or permission is malformed: misaligned, empty, too many, past the end
 *   _PERMISSION  the guest-physical range does not lie within one that is declared as RAM
 *   _OWNER     a frame is not in the state that the request needs (or the gpa is taken)
 *   _MEMORY    the pool has too few pages: donate some (mm_donate), sync, and try again
 *   _AGAIN     not every CPU has flushed, or too many runs are pending: sync first
 */

/* A new VM: its handle. */
s64 mm_create(struct mm *mm);

/*
 * Declares [gpa, gpa + count pages) as RAM of an OPEN VM, with permissions (EPT_READ always, EPT_WRITE, EPT_EXECUTE),
 * or, permissions = HYPERPS_RANGE_MMIO, as addresses at which no frame ever is. Page-aligned, below 2^MM_VIEW_BITS,
 * apart from the ranges declared before (else _OWNER); at most HYPERPS_VM_RANGES of them (else _INVALID). Returns how many
 * there are now. What is declared stays until the VM's end, so that after mm_seal the layout is the one that was
 * sealed.
 */
s64 mm_declare(struct mm *mm, u64 handle, u64 gpa, u64 count, u64 permissions);

/*
 * Gives frames [frame, frame + count) to the VM at gpa (bytes, page-aligned), with the permissions of the declared
 * range that holds all of them. count <= HYPERPS_MAP_FRAMES. All of them must be HOST and all gpas free. Returns how
 * many it gave: for count > MM_BATCH it goes on in steps, each up to the next 2 MiB of gpa, and may stop after any of
 * them; an error is returned only if the first step fails, and that step has changed nothing.
 */
s64 mm_map(struct mm *mm, u64 handle, u64 gpa, u64 frame, u64 count);

/* Makes the VM's pending frames PRIVATE, at most MM_BATCH of them. Returns how many are left. */
s64 mm_sync(struct mm *mm, u64 handle);

/*
 * No content that the host prepared enters the VM any more: frames synced from now on are zeroed, and no range is
 * declared any more. Needs nothing pending. Measures each page of the VM once, in ascending order of gpa, at most
 * MM_SEAL_PAGES. Returns 0 when all are measured and the VM is SEALED, 1 if it must be called again: until then the VM
 * takes no other request but mm_destroy.
 */
s64 mm_seal(struct mm *mm, u64 handle);

/* For mm_measure_page: adds a page, whose content the caller has mapped, to the measurement of the VM in a slot. */
void mm_measure(struct mm *mm, u64 slot, u64 gpa, const u8 *page);

/* The measurement of the VM in a slot; slot < HYPERPS_VMS. */
void mm_describe_measurement(const struct mm *mm, u64 slot, struct hyperps_measurement *out);

/* A vCPU for an OPEN VM: takes its two pages, all zeros, and notes what it starts with. */
s64 mm_add_vcpu(struct mm *mm, u64 handle, const u64 start[3], struct vm_vcpu **vcpu);

/*
 * PROTECT, after all of its checks, at least that of the number of ranges: an OPEN KVM VM with these ranges, readable, writable
 * and executable. Its handle; _MEMORY if no slot, or no room for tables, is left. owner: see struct vm_kvm.
 */
s64 mm_create_kvm(struct mm *mm, const struct hyperps_protect *list, u64 owner);

/* A KVM VM dies: no vCPU is entered any more; who runs one sees it at the next exit. Of any other slot: nothing. */
void mm_kill(struct mm *mm, u64 slot);

/*
 * A piece of the end of a KVM VM that was killed, MM_BATCH frames at most: 0 it is gone, 1 there is more to do, _AGAIN every
 * CPU must flush first, _STATE a vCPU runs, or it was not killed, _MEMORY as mm_reclaim. mm_bury_next: of the first such VM;
 * _NO_VM: there is none.
 */
s64 mm_bury(struct mm *mm, u64 slot);
s64 mm_bury_next(struct mm *mm);

/* The vCPU to which a VMCS12 is bound, in whichever state its VM is, which is in *slot; NULL: none. */
struct vm_vcpu *mm_binding(struct mm *mm, u64 vmcs12, u64 *slot);

/* The slot of the KVM VM that a PRIVATE, TO_VM or TO_HOST frame belongs to, any number; HYPERPS_VMS: none. */
u64 mm_kvm_of_frame(const struct mm *mm, u64 frame);

/* What a dying KVM VM of which no vCPU runs has in the frame's 2 MiB becomes ORPHAN. Of other frames: nothing. */
void mm_orphan(struct mm *mm, u64 frame);

/*
 * All ORPHAN frames of the frame's 2 MiB enter TO_HOST. Nobody's TO_HOST ones of its 64 frames, for which every CPU has flushed
 * since, are zeroed, and the host's: whether the frame itself is none of them any more. False: flush first.
 */
void mm_return_begin(struct mm *mm, u64 frame);
bool mm_return_end(struct mm *mm, u64 frame);

/*
 * From now on the host reads zeros at a frame, which is PRIVATE or TO_VM of a living KVM VM: until it enters TO_HOST, or the
 * host writes there. False: the pool is too small; flush first.
 */
bool mm_read_zeros(struct mm *mm, u64 frame);

/* The VM of a handle, NULL if there is none. Of a SEALED one in which a vCPU runs, vCPUs and digest are constant. */
struct vm *mm_find_vm(const struct mm *mm, u64 handle);

/* A CPU is about to run a vCPU of the VM, which must be SEALED; it has stopped, of a VM that mm_enter let run. */
s64 mm_enter(struct mm *mm, u64 handle);
void mm_leave(struct mm *mm, u64 handle);

/*
 * Ends the VM: its view is out of use at once. _STATE while a vCPU runs. Returns 0 when all frames are TO_HOST, 1 if it
 * must be called again.
 */
s64 mm_destroy(struct mm *mm, u64 handle);

/*
 * Gives frames of a destroyed VM back to the host, at most MM_BATCH. Returns 0 when all are back and the handle is
 * gone, 1 if it must be called again. _AGAIN until every CPU has flushed since mm_destroy ended. Of a VM that lives the
 * same for what its guest has released: then the handle stays, and _STATE says that nothing is released.
 */
s64 mm_reclaim(struct mm *mm, u64 handle);

/*
 * Takes the 512 frames of an aligned 2 MiB, below PAGE_MARK_LIMIT and all HOST, into the pool, for ever. Returns 512.
 * Works with a pool that is too small for anything else, as long as it has the tables to map and to hide them.
 */
s64 mm_donate(struct mm *mm, u64 frame);

/*
 * Requests of the guest in a SEALED VM, for the `count` pages from gpa on, at most MM_BATCH: all of them or none. The
 * caller knows the handle, so that a guest can't name another VM. Returns 0; _OWNER if a page is not in the state that
 * is needed; _MEMORY, or _AGAIN if MM_PENDING runs wait already: the host must donate, sync or reclaim first. By the
 * state that the pages are to have:
 *
 *   SHARED   PRIVATE ones are shared: the host sees the content, and can change it
 *   TO_VM    SHARED ones are unshared: until the next mm_sync, which zeroes the pages, the guest has none there
 *   TO_HOST  PRIVATE ones are released: until the next mm_reclaim, which zeroes them, no page can be given for gpa
 */
s64 mm_guest_move(struct mm *mm, u64 handle, u64 gpa, u64 count, u64 to);

/* State of a frame (HYPERPS_FRAME_*) if it is the host's own or a device's, or the VM `handle` has it; else _OWNER. */
s64 mm_query(const struct mm *mm, u64 handle, u64 frame);

/* Permissions of the declared range that holds gpa, any number; 0 if none does, or the handle names no VM. */
u64 mm_range(const struct mm *mm, u64 handle, u64 gpa);

/* The frame of the page of a SEALED VM that holds gpa, any number; _OWNER if the guest can't reach one there. */
s64 mm_guest_frame(const struct mm *mm, u64 handle, u64 gpa);

/* What the host may know of the VM in a slot; slot < HYPERPS_VMS. */
void mm_describe(const struct mm *mm, u64 slot, struct hyperps_vm *out);

/*
 * One memory call as the host makes it (hyperps/abi.h), whatever its number and arguments: the result, or a
 * HYPERPS_ERROR_* code. mm/dispatch.c; the only place that takes the host's registers apart.
 */
s64 mm_dispatch(struct mm *mm, u64 call, const u64 argument[4]);

#endif
