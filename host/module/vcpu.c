// SPDX-License-Identifier: GPL-2.0
/* vCPUs for user space: one file each, which keeps its VM alive. Locks: vcpu->lock is taken before vm->lock. */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "compat.h"
#include "vcpu.h"
#include "vm_end.h"

struct vcpu_file {
	struct mutex lock; /* held during RUN; guards the fields below */
	struct vm *vm;
	u64 index;
	struct hyperps_run *run; /* a page that user space writes to as well */
	u64 exit[HYPERPS_RESULTS];
	bool is_served; /* whether the module has done its part of that exit */
	unsigned int rooms; /* HYPERPS_EXIT_ROOM in a row */
};

static_assert(sizeof_field(struct hyperps_run, words) == (HYPERPS_RESULTS - 1) * sizeof(u64));

/*
 * What this kernel waits for until a task is in user mode again, which one whose guest only computes never is: signals
 * (-EINTR), task work (limits of CPU time, say), and that it sleeps or lets RCU's tasks know. Without the latter nobody
 * can insert a module, change a probe or take a CPU offline.
 */
static long serve_kernel(void)
{
	bool pending;

	cond_resched_tasks_rcu_qs();
	local_irq_disable();
	pending = xfer_to_guest_mode_work_pending();
	local_irq_enable();
	return pending ? xfer_to_guest_mode_handle_work() : 0;
}

/*
 * One VCPU_RUN. With interrupts off nothing can come unnoticed just before it: its interrupt stays pending, and ends the
 * guest's turn. 1: this kernel wants something first.
 */
static long enter(struct vcpu_file *vcpu, u64 flags, u64 answer, u64 event)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { vcpu->vm->handle, vcpu->index | flags, answer, event };
	long error;

	local_irq_disable();
	if (hyperps_vm_are_ended())
		error = -ESHUTDOWN;
	else if (xfer_to_guest_mode_work_pending())
		error = 1;
	else
		error = hyperps_call(HYPERPS_CALL_VCPU_RUN, argument, vcpu->exit);
	local_irq_enable();
	vcpu->is_served &= error != 0;
	return error;
}

/* The module's part of an exit. 0: the vCPU can go on, 1: the exit is for user space; or an error code. */
static long serve(struct vcpu_file *vcpu, bool lazy)
{
	const u64 *word = vcpu->exit;
	u32 reason = word[0];

	if (reason == HYPERPS_EXIT_INTERRUPTED)
		return 0;
	vcpu->rooms = reason == HYPERPS_EXIT_ROOM ? vcpu->rooms + 1 : 0;
	switch (reason) {
	case HYPERPS_EXIT_MEMORY:
		return vm_touch(vcpu->vm, word[1], lazy);
	case HYPERPS_EXIT_UNSHARED:
		return vm_sync(vcpu->vm);
	case HYPERPS_EXIT_RELEASED:
		return vm_release_pages(vcpu->vm, word[1], word[2]);
	case HYPERPS_EXIT_ROOM:
		return vm_make_room(vcpu->vm, vcpu->rooms - 1);
	default:
		return 1;
	}
}

static long run_locked(struct vcpu_file *vcpu)
{
	struct hyperps_run *run = vcpu->run;
	u64 flags = READ_ONCE(run->flags), answer = READ_ONCE(run->answer), event = READ_ONCE(run->event);
	long result;

	if (flags & ~(HYPERPS_RUN_INTERRUPT_WINDOW | HYPERPS_RUN_LAZY))
		return -EINVAL;
	for (;;) {
		result = serve_kernel();
		if (result)
			return result;
		if (vcpu->is_served) {
			result = enter(vcpu, flags & ~HYPERPS_RUN_LAZY, answer, event);
			if (result > 0)
				continue;
			if (result)
				return result;
			if (!(vcpu->exit[0] & HYPERPS_EXIT_NOT_ENTERED)) {
				event = 0;
				WRITE_ONCE(run->event, 0);
			}
		}
		result = serve(vcpu, flags & HYPERPS_RUN_LAZY);
		if (result == -ENOMEM)
			vcpu->rooms = 0;
		if (result < 0)
			return result;
		vcpu->is_served = true;
		if (result)
			break;
	}
	run->exit = (u32)vcpu->exit[0];
	run->ready = !!(vcpu->exit[0] & HYPERPS_EXIT_READY);
	memcpy(run->words, vcpu->exit + 1, sizeof(run->words));
	return 0;
}

static long vcpu_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vcpu_file *vcpu = file->private_data;
	long result;

	if (command != HYPERPS_VCPU_IOC_RUN)
		return -ENOTTY;
	if (argument)
		return -EINVAL;
	if (!mutex_trylock(&vcpu->lock))
		return -EBUSY;
	result = run_locked(vcpu);
	mutex_unlock(&vcpu->lock);
	return result;
}

static int vcpu_mmap(struct file *file, struct vm_area_struct *area)
{
	struct vcpu_file *vcpu = file->private_data;

	if (area->vm_pgoff || area->vm_end - area->vm_start != PAGE_SIZE || !(area->vm_flags & VM_SHARED))
		return -EINVAL;
	return vm_insert_page(area, area->vm_start, virt_to_page(vcpu->run));
}

static void vcpu_free(struct vcpu_file *vcpu)
{
	vm_put(vcpu->vm);
	free_page((unsigned long)vcpu->run);
	kfree(vcpu);
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	vcpu_free(file->private_data);
	return 0;
}

static const struct file_operations vcpu_operations = {
	.owner = THIS_MODULE,
	.release = vcpu_release,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vcpu_mmap,
	.llseek = noop_llseek,
};

long vcpu_create(struct vm *vm, const struct hyperps_vm_create_vcpu *request)
{
	struct vcpu_file *vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL_ACCOUNT);
	struct file *file;
	long result;
	int fd;

	if (!vcpu)
		return -ENOMEM;
	mutex_init(&vcpu->lock);
	vcpu->is_served = true;
	vcpu->run = (struct hyperps_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	kref_get(&vm->references);
	vcpu->vm = vm;
	fd = vcpu->run ? get_unused_fd_flags(O_CLOEXEC) : -ENOMEM;
	if (fd < 0) {
		vcpu_free(vcpu);
		return fd;
	}
	file = anon_inode_getfile("hyperps-vcpu", &vcpu_operations, vcpu, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		vcpu_free(vcpu);
		return PTR_ERR(file);
	}
	/* Last, as nothing takes a vCPU back. */
	result = vm_call_with_pool(HYPERPS_CALL_VCPU_CREATE, vm->handle, request->mode | request->argument,
				   request->entry, request->cr3);
	if (result < 0) {
		put_unused_fd(fd);
		fput(file);
		return result;
	}
	vcpu->index = result;
	vcpu->run->index = result;
	fd_install(fd, file);
	return fd;
}
