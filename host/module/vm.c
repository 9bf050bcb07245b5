// SPDX-License-Identifier: GPL-2.0
/*
 * VMs for user space: one file each, which alone names it; its memory is in vm_memory.c, its vCPUs in vcpu.c. vm->lock
 * guards the VM's fields and makes "map, then remember the pages" one step.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vcpu.h"
#include "vm.h"
#include "vm_end.h"

static long declare(struct vm *vm, const struct hyperps_vm_declare *range)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	result = vm_call(HYPERPS_CALL_VM_DECLARE, vm->handle, range->gpa | range->permissions,
			 range->size >> PAGE_SHIFT, 0);
	if (result > 0 && vm->range_count < HYPERPS_VM_RANGES)
		vm->range[vm->range_count++] = *range;
	mutex_unlock(&vm->lock);
	return min(result, 0L);
}

static long seal(struct vm *vm)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	if (!vm->sealing)
		result = vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	if (!result) {
		/* Each call measures a little. */
		do {
			result = fatal_signal_pending(current) ? -EINTR
							       : vm_call(HYPERPS_CALL_VM_SEAL, vm->handle, 0, 0, 0);
			vm->sealing |= result >= 0;
			cond_resched();
		} while (result > 0);
		vm->sealed |= !result;
	}
	mutex_unlock(&vm->lock);
	return result;
}

static long info(struct vm *vm, struct hyperps_vm __user *user)
{
	struct hyperps_vm out;
	long error = vm_describe(vm, &out);

	return error ? error : copy_to_user(user, &out, sizeof(out)) ? -EFAULT : 0;
}

static long measurement(struct vm *vm, struct hyperps_measurement __user *user)
{
	struct hyperps_measurement out;
	long error = vm_read_object(vm->handle, HYPERPS_OBJECT_MEASUREMENT, &out);

	static_assert(sizeof(out) == HYPERPS_READ_BYTES);
	if (!error && !out.sealed)
		error = -ENODATA;
	if (!error && out.handle != vm->handle)
		error = -ENOENT;
	return error ? error : copy_to_user(user, &out, sizeof(out)) ? -EFAULT : 0;
}

static bool is_range(u64 gpa, u64 size)
{
	return size && !((gpa | size) % PAGE_SIZE) && gpa < HYPERPS_VM_GPA_LIMIT && size <= HYPERPS_VM_GPA_LIMIT - gpa;
}

static long frame(struct vm *vm, struct hyperps_vm_frame __user *user)
{
	struct hyperps_vm_frame request;
	long error;

	if (copy_from_user(&request, user, sizeof(request)))
		return -EFAULT;
	error = is_range(request.gpa, PAGE_SIZE) ? vm_frame(vm, &request) : -EINVAL;
	return error ? error : copy_to_user(user, &request, sizeof(request)) ? -EFAULT : 0;
}

static long vm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vm *vm = file->private_data;
	void __user *user = (void __user *)argument;
	union {
		struct hyperps_vm_declare range;
		struct hyperps_vm_populate populate;
		struct hyperps_vm_create_vcpu vcpu;
		struct hyperps_vm_shared shared;
	} in;

	if (_IOC_DIR(command) == _IOC_WRITE) {
		if (_IOC_SIZE(command) > sizeof(in))
			return -ENOTTY;
		if (copy_from_user(&in, user, _IOC_SIZE(command)))
			return -EFAULT;
	}
	switch (command) {
	case HYPERPS_VM_IOC_DECLARE:
		if (!is_range(in.range.gpa, in.range.size) || in.range.permissions >= PAGE_SIZE)
			return -EINVAL;
		return declare(vm, &in.range);
	case HYPERPS_VM_IOC_POPULATE:
		return is_range(in.populate.gpa, in.populate.size) ? vm_populate(vm, &in.populate) : -EINVAL;
	case HYPERPS_VM_IOC_CREATE_VCPU:
		if (in.vcpu.mode >= PAGE_SIZE || in.vcpu.argument % PAGE_SIZE)
			return -EINVAL;
		return vcpu_create(vm, &in.vcpu);
	case HYPERPS_VM_IOC_READ_SHARED:
	case HYPERPS_VM_IOC_WRITE_SHARED:
		if (in.shared.gpa >= HYPERPS_VM_GPA_LIMIT || !in.shared.size ||
		    in.shared.size > HYPERPS_VM_GPA_LIMIT - in.shared.gpa)
			return -EINVAL;
		return vm_copy_shared(vm, &in.shared, command == HYPERPS_VM_IOC_WRITE_SHARED);
	case HYPERPS_VM_IOC_SEAL:
		return argument ? -EINVAL : seal(vm);
	case HYPERPS_VM_IOC_INFO:
		return info(vm, user);
	case HYPERPS_VM_IOC_MEASUREMENT:
		return measurement(vm, user);
	case HYPERPS_VM_IOC_FRAME:
		return frame(vm, user);
	default:
		return -ENOTTY;
	}
}

static int vm_release(struct inode *inode, struct file *file)
{
	vm_put(file->private_data);
	return 0;
}

static const struct file_operations vm_operations = {
	.owner = THIS_MODULE,
	.release = vm_release,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static bool has_free_slot(void)
{
	u64 result[HYPERPS_RESULTS], slot;

	for (slot = 0; slot < HYPERPS_VMS; slot++) {
		const u64 argument[HYPERPS_ARGUMENTS] = { HYPERPS_OBJECT_VM | slot << 32 };

		if (!hyperps_call(HYPERPS_CALL_READ, argument, result) && result[0] == HYPERPS_VM_FREE)
			return true;
	}
	return false;
}

long hyperps_vm_create(void)
{
	struct vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	long result;

	if (!vm)
		return -ENOMEM;
	if (hyperps_vm_are_ended()) {
		kfree(vm);
		return -ESHUTDOWN;
	}
	kref_init(&vm->references);
	mutex_init(&vm->lock);
	xa_init_flags(&vm->lent, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&vm->aside);
	result = vm_call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
	/* The same error says that there are too many VMs. */
	if (result == -ENOMEM && has_free_slot() && vm_donate())
		result = vm_call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
	if (result < 0) {
		kfree(vm);
		return result;
	}
	vm->handle = result;
	result = anon_inode_getfd("hyperps-vm", &vm_operations, vm, O_RDWR | O_CLOEXEC);
	if (result < 0)
		vm_put(vm);
	return result;
}
