// SPDX-License-Identifier: GPL-2.0
/*
 * VMs for user space: one file each, which alone names it. The memory is Linux's, allocated here and lent to the
 * monitor: from VM_MAP until VM_RECLAIM is done any access to it faults, and it must not be freed.
 *
 * Locks: vm->lock guards the VM's fields and makes "map, then remember the pages" one step; orphans_lock guards the
 * list of VMs that have lost their file but not yet their memory. Never both.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/page-flags.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "hyperps.h"

#define CHUNK_ORDER 9
#define CHUNK_BYTES (PAGE_SIZE << CHUNK_ORDER)
#define HANDLE_SLOT 0xffffffffULL
#define AGAIN_LIMIT 10 /* the monitor waits for the CPUs 0.1 seconds a time */
#define ORPHAN_INTERVAL HZ

static_assert(CHUNK_BYTES >> PAGE_SHIFT <= HYPERPS_MAP_FRAMES);

struct vm {
	struct mutex lock;
	u64 handle;
	bool sealed;
	struct list_head pages; /* lent, by page->lru; page->private is the order */
	struct list_head orphan;
};

static LIST_HEAD(orphans);
static DEFINE_MUTEX(orphans_lock);

/* Result word 0, which is never negative, or an error code. */
static long call(u64 number, u64 handle, u64 a, u64 b, u64 c)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { handle, a, b, c };
	u64 result[HYPERPS_RESULTS];
	long error = hyperps_call(number, argument, result);

	return error ? error : (long)result[0];
}

/* Pages that are lent are "offline" for Linux, so that /proc/kcore and dumps leave them out. */
static void set_offline(struct page *page, unsigned int order, bool offline)
{
	unsigned long i;

	page_offline_begin();
	for (i = 0; i < 1UL << order; i++) {
		if (offline)
			__SetPageOffline(page + i);
		else
			__ClearPageOffline(page + i);
	}
	page_offline_end();
}

/*
 * Gives the monitor 2 MiB for its tables, for ever: also after this module's end. Whoever needs them now asks once more.
 */
static bool donate(void)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY, CHUNK_ORDER);

	if (!page)
		return false;
	set_offline(page, CHUNK_ORDER, true);
	if (call(HYPERPS_CALL_POOL_DONATE, page_to_pfn(page), 0, 0, 0) > 0) {
		pr_info("gave the monitor 2 MiB for its tables\n");
		return true;
	}
	set_offline(page, CHUNK_ORDER, false);
	__free_pages(page, CHUNK_ORDER);
	return false;
}

/* A call that may need pages of the monitor's pool. */
static long call_with_pool(u64 number, u64 handle, u64 a, u64 b, u64 c)
{
	long result = call(number, handle, a, b, c);

	return result == -ENOMEM && donate() ? call(number, handle, a, b, c) : result;
}

/* A call that is to be repeated until it says 0. */
static long finish(u64 number, u64 handle)
{
	int again = 0;
	long result;

	do {
		result = call_with_pool(number, handle, 0, 0, 0);
		cond_resched();
	} while (result > 0 || (result == -EAGAIN && ++again < AGAIN_LIMIT));
	return result;
}

static struct page *allocate(unsigned int order, bool zero)
{
	/* Rather fail than have another process killed; without a 2 MiB piece single pages do. */
	gfp_t flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN | (order ? __GFP_NORETRY : __GFP_RETRY_MAYFAIL);

	return alloc_pages(flags | (zero ? __GFP_ZERO : 0), order);
}

/*
 * Gives pages to the VM. On an error the caller still has them, but for -ENODEV: then nobody knows, and they are kept
 * until the VM has ended.
 */
static long map(struct vm *vm, u64 gpa, struct page *page, unsigned int order, bool content)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	if (content && vm->sealed) {
		result = -EBUSY;
		goto unlock;
	}
	set_offline(page, order, true);
	result = call_with_pool(HYPERPS_CALL_VM_MAP, vm->handle, gpa, page_to_pfn(page), 1UL << order);
	if (result == -EAGAIN) {
		result = finish(HYPERPS_CALL_VM_SYNC, vm->handle);
		if (!result)
			result = call_with_pool(HYPERPS_CALL_VM_MAP, vm->handle, gpa, page_to_pfn(page), 1UL << order);
	}
	if (result < 0 && result != -ENODEV) {
		set_offline(page, order, false);
		goto unlock;
	}
	set_page_private(page, order);
	list_add(&page->lru, &vm->pages);
unlock:
	mutex_unlock(&vm->lock);
	return result;
}

/* Populates the next piece. Returns its bytes or an error code. */
static long populate_piece(struct vm *vm, u64 gpa, u64 size, const void __user *source)
{
	unsigned int order = gpa % CHUNK_BYTES || size < CHUNK_BYTES ? 0 : CHUNK_ORDER;
	struct page *page = allocate(order, !source);
	long result;

	if (!page && order) {
		order = 0;
		page = allocate(order, !source);
	}
	if (!page)
		return -ENOMEM;
	if (source && copy_from_user(page_address(page), source, PAGE_SIZE << order))
		result = -EFAULT;
	else
		result = map(vm, gpa, page, order, source);
	if (result < 0 && result != -ENODEV)
		__free_pages(page, order);
	return result < 0 ? result : PAGE_SIZE << order;
}

static long populate(struct vm *vm, const struct hyperps_vm_populate *request)
{
	u64 size = min_t(u64, request->size, HYPERPS_VM_POPULATE_MAX), done = 0;
	long error = 0;

	while (done < size && !error) {
		void __user *source = request->source ? u64_to_user_ptr(request->source + done) : NULL;
		long result =
			signal_pending(current) ? -EINTR : populate_piece(vm, request->gpa + done, size - done, source);

		if (result < 0)
			error = result;
		else
			done += result;
		cond_resched();
	}
	if (!done)
		return error;
	error = mutex_lock_killable(&vm->lock);
	if (error)
		return error;
	error = finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	mutex_unlock(&vm->lock);
	return error ? error : done;
}

static long seal(struct vm *vm)
{
	long error = mutex_lock_killable(&vm->lock);

	if (error)
		return error;
	error = finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	if (!error)
		error = call(HYPERPS_CALL_VM_SEAL, vm->handle, 0, 0, 0);
	vm->sealed |= !error;
	mutex_unlock(&vm->lock);
	return error;
}

static long info(struct vm *vm, struct hyperps_vm __user *out)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { HYPERPS_OBJECT_VM | (vm->handle & HANDLE_SLOT) << 32 };
	union {
		u64 words[HYPERPS_RESULTS];
		struct hyperps_vm vm;
	} result;
	long error = hyperps_call(HYPERPS_CALL_READ, argument, result.words);

	static_assert(sizeof(result.vm) == sizeof(result.words));
	if (error)
		return error;
	if (result.vm.state == HYPERPS_VM_FREE || result.vm.handle != vm->handle)
		return -ENOENT;
	return copy_to_user(out, &result.vm, sizeof(result.vm)) ? -EFAULT : 0;
}

static bool is_range(u64 gpa, u64 size)
{
	return size && !((gpa | size) % PAGE_SIZE) && gpa < HYPERPS_VM_GPA_LIMIT && size <= HYPERPS_VM_GPA_LIMIT - gpa;
}

static long vm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vm *vm = file->private_data;
	void __user *user = (void __user *)argument;
	struct hyperps_vm_declare range;
	struct hyperps_vm_populate request;
	long result;

	switch (command) {
	case HYPERPS_VM_IOC_DECLARE:
		if (copy_from_user(&range, user, sizeof(range)))
			return -EFAULT;
		if (!is_range(range.gpa, range.size) || range.permissions >= PAGE_SIZE)
			return -EINVAL;
		result = call(HYPERPS_CALL_VM_DECLARE, vm->handle, range.gpa | range.permissions,
			      range.size >> PAGE_SHIFT, 0);
		return min(result, 0L);
	case HYPERPS_VM_IOC_POPULATE:
		if (copy_from_user(&request, user, sizeof(request)))
			return -EFAULT;
		return is_range(request.gpa, request.size) ? populate(vm, &request) : -EINVAL;
	case HYPERPS_VM_IOC_SEAL:
		return argument ? -EINVAL : seal(vm);
	case HYPERPS_VM_IOC_INFO:
		return info(vm, user);
	default:
		return -ENOTTY;
	}
}

/* Ends the VM and frees its memory and itself. On an error it remains: the monitor may still have some of its pages. */
static long end(struct vm *vm)
{
	long error = finish(HYPERPS_CALL_VM_DESTROY, vm->handle);
	struct page *page, *next;

	/* -EBUSY: an earlier attempt got this far. -ENOENT: VM_RECLAIM is done, as nothing else takes a handle away. */
	if (!error || error == -EBUSY)
		error = finish(HYPERPS_CALL_VM_RECLAIM, vm->handle);
	if (error && error != -ENOENT)
		return error;
	list_for_each_entry_safe(page, next, &vm->pages, lru)
	{
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		set_offline(page, order, false);
		__free_pages(page, order);
		cond_resched();
	}
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

static int vm_release(struct inode *inode, struct file *file)
{
	end_or_orphan(file->private_data);
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
	mutex_init(&vm->lock);
	INIT_LIST_HEAD(&vm->pages);
	result = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
	/* The same error says that there are too many VMs. */
	if (result == -ENOMEM && has_free_slot() && donate())
		result = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
	if (result < 0) {
		kfree(vm);
		return result;
	}
	vm->handle = result;
	result = anon_inode_getfd("hyperps-vm", &vm_operations, vm, O_RDWR | O_CLOEXEC);
	if (result < 0)
		end_or_orphan(vm);
	return result;
}

void hyperps_vm_exit(void)
{
	cancel_delayed_work_sync(&orphans_work);
}
