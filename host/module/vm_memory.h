/* SPDX-License-Identifier: GPL-2.0 */
/* A VM and its memory; its file is in vm.c, its end in vm_end.c. */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/xarray.h>

#include "call.h"

struct vm {
	struct kref references; /* of the VM's file and of each vCPU's */
	struct mutex lock;
	u64 handle;
	bool sealing, sealed;
	unsigned int range_count;
	struct hyperps_vm_declare range[HYPERPS_VM_RANGES];
	struct xarray lent; /* the pages that the monitor has, by guest-physical address */
	struct list_head aside; /* pages that it did not take */
	unsigned int refusals; /* in a row */
	struct list_head orphan;
};

/* A call that may need pages of the monitor's pool. */
long vm_call_with_pool(u64 number, u64 handle, u64 a, u64 b, u64 c);

/* A call that is to be repeated until it says 0. */
long vm_finish(u64 number, u64 handle);

/* What the monitor has of the VM. -ENOENT: nothing any more. */
long vm_describe(struct vm *vm, struct hyperps_vm *out);

/*
 * Gives the monitor 2 MiB for its tables, for ever: also after this module's end. Whoever needs them now asks once more.
 */
bool vm_donate(void);

/* HYPERPS_VM_IOC_POPULATE, of a range that vm.c has checked. */
long vm_populate(struct vm *vm, const struct hyperps_vm_populate *request);

/* HYPERPS_VM_IOC_READ_SHARED, HYPERPS_VM_IOC_WRITE_SHARED. */
long vm_copy_shared(struct vm *vm, const struct hyperps_vm_shared *request, bool write);

/* HYPERPS_VM_IOC_FRAME. */
long vm_frame(struct vm *vm, struct hyperps_vm_frame *request);

/* Frees all pages, which the monitor has given back. */
void vm_free_memory(struct vm *vm);

/*
 * What a vCPU wants. Each returns 0: it can go on, or an error code. vm_touch() returns 1 where the guest has no page
 * and is not lazy. The monitor reports only what the guest may touch.
 */
long vm_touch(struct vm *vm, u64 gpa, bool lazy);
long vm_sync(struct vm *vm);
long vm_release_pages(struct vm *vm, u64 gpa, u64 count);
/* attempt: how many in a row before this one did not help. */
long vm_make_room(struct vm *vm, unsigned int attempt);

#endif
