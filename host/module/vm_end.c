// SPDX-License-Identifier: GPL-2.0
/*
 * How VMs end: with the last file that is theirs, or all of them before a kexec. A VM whose memory the monitor does not give
 * back becomes an orphan, and is tried again. orphans_lock guards the list of these; it is never held with vm->lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "vm_end.h"

#define ORPHAN_INTERVAL HZ
#define ENTERED_LIMIT 1000

static LIST_HEAD(orphans);
static DEFINE_MUTEX(orphans_lock);

/* Ends the VM and frees its memory and itself. On an error it remains: the monitor may still have some of its pages. */
static long end(struct vm *vm)
{
	long error = vm_finish(HYPERPS_CALL_VM_DESTROY, vm->handle);
	struct hyperps_vm state;

	/* An earlier attempt got this far; or a vCPU runs, which not this module's doing can be. */
	if (error == -EBUSY) {
		error = vm_describe(vm, &state);
		if (!error && state.state != HYPERPS_VM_DEAD)
			error = -EAGAIN;
	}
	if (!error)
		error = vm_finish(HYPERPS_CALL_VM_RECLAIM, vm->handle);
	/* -ENOENT: VM_RECLAIM is done, as nothing else takes a handle away. */
	if (error && error != -ENOENT)
		return error;
	vm_free_memory(vm);
	kfree(vm);
	return 0;
}

static void end_orphans(struct work_struct *work)
{
	struct vm *vm, *next;

	mutex_lock(&orphans_lock);
	list_for_each_entry_safe(vm, next, &orphans, orphan)
	{
		list_del(&vm->orphan);
		if (end(vm))
			list_add(&vm->orphan, &orphans);
		else
			module_put(THIS_MODULE); /* hyperps_vm_exit() waits until this function has returned */
	}
	if (!list_empty(&orphans))
		queue_delayed_work(system_long_wq, to_delayed_work(work), ORPHAN_INTERVAL);
	mutex_unlock(&orphans_lock);
}

static DECLARE_DELAYED_WORK(orphans_work, end_orphans);

static void end_or_orphan(struct vm *vm)
{
	long error = end(vm);

	if (!error)
		return;
	pr_warn_once("the monitor did not give a VM's memory back (error %ld); trying again each second\n", error);
	__module_get(THIS_MODULE);
	mutex_lock(&orphans_lock);
	list_add(&vm->orphan, &orphans);
	mutex_unlock(&orphans_lock);
	queue_delayed_work(system_long_wq, &orphans_work, ORPHAN_INTERVAL);
}

static void last_put(struct kref *references)
{
	end_or_orphan(container_of(references, struct vm, references));
}

void vm_put(struct vm *vm)
{
	kref_put(&vm->references, last_put);
}

static bool are_ended;

bool hyperps_vm_are_ended(void)
{
	return READ_ONCE(are_ended);
}

void hyperps_vm_end_all(void)
{
	struct hyperps_vm state;
	int again = 0;
	long error;
	u64 slot;

	WRITE_ONCE(are_ended, true);
	for (slot = 0; slot < HYPERPS_VMS; slot++) {
		if (vm_read_object(slot, HYPERPS_OBJECT_VM, &state) || state.state == HYPERPS_VM_FREE)
			continue;
		/* A vCPU's turn that had begun ends within 4 ms; then nothing enters it any more. */
		while (state.state != HYPERPS_VM_DEAD && vm_finish(HYPERPS_CALL_VM_DESTROY, state.handle) == -EBUSY &&
		       ++again < ENTERED_LIMIT)
			usleep_range(1000, 2000);
		error = vm_finish(HYPERPS_CALL_VM_RECLAIM, state.handle);
		if (error && error != -ENOENT)
			pr_warn("a VM does not give its memory back: the next kernel can't use it\n");
	}
}

void hyperps_vm_exit(void)
{
	cancel_delayed_work_sync(&orphans_work);
}
