// SPDX-License-Identifier: GPL-2.0
/*
 * A VM's memory. It is Linux's, allocated here and lent to the monitor: from VM_MAP until the monitor says that a page is
 * the host's again any access to it faults, unless the guest shares it, and it must not be freed.
 *
 * vm->lent says which page is where, for each 2 MiB of guest-physical addresses: either one piece of that size, or a
 * table of pages. The caller of what is static here holds vm->lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <asm/asm.h>

#include "aside.h"
#include "crash.h"
#include "vm_memory.h"

#define PIECE_ORDER 9
#define PIECE_PAGES (1UL << PIECE_ORDER)
#define PIECE_BYTES (PAGE_SIZE << PIECE_ORDER)
#define AROUND_ORDER 7 /* a page that a guest touches comes with its neighbours, 512 KiB in all */
#define AROUND_BYTES (PAGE_SIZE << AROUND_ORDER)
#define PIECE_TAG 1 /* of an entry in vm->lent that is a piece's first page, and no table */
#define ROOM_ATTEMPTS 2
#define AGAIN_LIMIT 10 /* the monitor waits for the CPUs 0.1 seconds a time */
#define REFUSED_LIMIT 8 /* others may take the page that was found */

/* Rather fail than have another process killed. */
#define FLAGS (GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)

static_assert(PIECE_PAGES <= HYPERPS_MAP_FRAMES);
static_assert(PIECE_PAGES * sizeof(struct page *) == PAGE_SIZE);

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

static bool donate_next(bool *refused)
{
	struct page *page = hyperps_alloc_pages(GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_NORETRY, PIECE_ORDER);
	long result;

	*refused = false;
	if (!page)
		return false;
	set_offline(page, PIECE_ORDER, true);
	result = vm_call(HYPERPS_CALL_POOL_DONATE, page_to_pfn(page), 0, 0, 0);
	if (result > 0) {
		pr_info("gave the monitor 2 MiB for its tables\n");
		return true;
	}
	set_offline(page, PIECE_ORDER, false);
	__free_pages(page, PIECE_ORDER);
	*refused = result == -EACCES;
	return false;
}

bool vm_donate(void)
{
	LIST_HEAD(aside);
	unsigned int attempt = 0;
	bool done, refused;

	do {
		done = donate_next(&refused);
	} while (refused && ++attempt < REFUSED_LIMIT && aside_keep(&aside, PIECE_ORDER));
	aside_give_back(&aside);
	if (refused)
		aside_complain();
	return done;
}

long vm_call_with_pool(u64 number, u64 handle, u64 a, u64 b, u64 c)
{
	long result = vm_call(number, handle, a, b, c);

	return result == -ENOMEM && vm_donate() ? vm_call(number, handle, a, b, c) : result;
}

long vm_finish(u64 number, u64 handle)
{
	int again = 0;
	long result;

	do {
		result = vm_call_with_pool(number, handle, 0, 0, 0);
		cond_resched();
	} while (result > 0 || (result == -EAGAIN && ++again < AGAIN_LIMIT));
	return result;
}

long vm_describe(struct vm *vm, struct hyperps_vm *out)
{
	long error = vm_read_object(vm->handle, HYPERPS_OBJECT_VM, out);

	static_assert(sizeof(*out) == HYPERPS_READ_BYTES);
	if (!error && (out->state == HYPERPS_VM_FREE || out->handle != vm->handle))
		error = -ENOENT;
	return error;
}

static struct page *allocate(unsigned int order, bool zero)
{
	/* Without a 2 MiB piece single pages do. */
	gfp_t flags = order ? GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_NORETRY : FLAGS;

	return hyperps_alloc_pages(flags | (zero ? __GFP_ZERO : 0), order);
}

static void free_lent(struct page *page, unsigned int order)
{
	set_offline(page, order, false);
	__free_pages(page, order);
}

static unsigned long piece_of(u64 gpa)
{
	return gpa / PIECE_BYTES;
}

static unsigned long index_of(u64 gpa)
{
	return gpa / PAGE_SIZE % PIECE_PAGES;
}

/* The page that the VM got for gpa, or NULL. */
static struct page *find_page(struct vm *vm, u64 gpa)
{
	void *entry = xa_load(&vm->lent, piece_of(gpa));

	if (!entry)
		return NULL;
	if (xa_pointer_tag(entry) == PIECE_TAG)
		return (struct page *)xa_untag_pointer(entry) + index_of(gpa);
	return ((struct page **)entry)[index_of(gpa)];
}

/* The table for gpa: a new one if there is none, or a piece that is then split. NULL: no memory. */
static struct page **get_table(struct vm *vm, u64 gpa)
{
	void *entry = xa_load(&vm->lent, piece_of(gpa));
	struct page **table, *page;
	unsigned long i;

	if (entry && xa_pointer_tag(entry) != PIECE_TAG)
		return entry;
	table = (struct page **)get_zeroed_page(FLAGS);
	if (!table || xa_err(xa_store(&vm->lent, piece_of(gpa), table, FLAGS))) {
		free_page((unsigned long)table);
		return NULL;
	}
	if (entry) {
		page = xa_untag_pointer(entry);
		split_page(page, PIECE_ORDER);
		for (i = 0; i < PIECE_PAGES; i++)
			table[i] = page + i;
	}
	return table;
}

static void drop_empty_table(struct vm *vm, u64 gpa)
{
	void *entry = xa_load(&vm->lent, piece_of(gpa));

	if (!entry || xa_pointer_tag(entry) == PIECE_TAG || memchr_inv(entry, 0, PAGE_SIZE))
		return;
	xa_erase(&vm->lent, piece_of(gpa));
	free_page((unsigned long)entry);
}

static long frame_state(struct vm *vm, struct page *page)
{
	return vm_call(HYPERPS_CALL_FRAME_QUERY, vm->handle, page_to_pfn(page), 0, 0);
}

/* Frees the page for gpa if the monitor says that it is the host's again. Whoever got it meanwhile keeps it. */
static long take_back(struct vm *vm, u64 gpa)
{
	struct page *page = find_page(vm, gpa), **table;
	long state = page ? frame_state(vm, page) : 0;

	if (!page || state != HYPERPS_FRAME_HOST)
		return min(state, 0L);
	table = get_table(vm, gpa);
	if (!table)
		return -ENOMEM;
	table[index_of(gpa)] = NULL;
	free_lent(page, 0);
	return 0;
}

static long reclaim_released(struct vm *vm)
{
	long result = vm_finish(HYPERPS_CALL_VM_RECLAIM, vm->handle);

	/* Nothing is released: another vCPU has seen to it. */
	return result == -EBUSY ? 0 : result;
}

/* What lies at gpa and has come back is no obstacle for another page. -EACCES: there is a page. */
static long make_free(struct vm *vm, u64 gpa)
{
	struct page *page = find_page(vm, gpa);
	long error = 0;

	if (!page)
		return 0;
	if (frame_state(vm, page) == HYPERPS_FRAME_TO_HOST)
		error = reclaim_released(vm);
	if (!error)
		error = take_back(vm, gpa);
	if (!error && find_page(vm, gpa))
		error = -EACCES;
	return error;
}

static long map(struct vm *vm, u64 gpa, struct page *page, unsigned int order)
{
	long result;

	set_offline(page, order, true);
	result = vm_call_with_pool(HYPERPS_CALL_VM_MAP, vm->handle, gpa, page_to_pfn(page), 1UL << order);
	if (result == -EAGAIN) {
		result = vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
		if (!result)
			result = vm_call_with_pool(HYPERPS_CALL_VM_MAP, vm->handle, gpa, page_to_pfn(page),
						   1UL << order);
	}
	if (result < 0 && result != -ENODEV)
		set_offline(page, order, false);
	if (result >= 0)
		vm->refusals = 0;
	else if (result == -EACCES && !aside_is_hosts(page, order))
		result = -EADDRNOTAVAIL;
	return min(result, 0L);
}

/* After -EADDRNOTAVAIL, with the pages freed: what to return. -ERESTART: others, or smaller ones, may do. */
static long refused(struct vm *vm, unsigned int order)
{
	if (++vm->refusals < REFUSED_LIMIT && (aside_keep(&vm->aside, order) || order))
		return -ERESTART;
	vm->refusals = 0;
	aside_complain();
	return -EADDRNOTAVAIL;
}

/*
 * Gives a page or a piece to the VM. On an error the caller still has it, but for -ENODEV: then nobody knows, and it is
 * kept until the monitor says that it is the host's.
 */
static long lend(struct vm *vm, u64 gpa, struct page *page, unsigned int order)
{
	struct page **table;
	long result;

	if (order) {
		/* First what may fail here. */
		if (xa_load(&vm->lent, piece_of(gpa)))
			return -EACCES;
		result = xa_err(xa_store(&vm->lent, piece_of(gpa), xa_tag_pointer(page, PIECE_TAG), FLAGS));
		if (result)
			return result;
		result = map(vm, gpa, page, order);
		if (result && result != -ENODEV)
			xa_erase(&vm->lent, piece_of(gpa));
		return result;
	}
	result = make_free(vm, gpa);
	if (result)
		return result;
	table = get_table(vm, gpa);
	if (!table)
		return -ENOMEM;
	result = map(vm, gpa, page, 0);
	if (result && result != -ENODEV)
		drop_empty_table(vm, gpa);
	else
		table[index_of(gpa)] = page;
	return result;
}

/* Afterwards the caller does not have the page any more. -ERESTART: try with another one. */
static long lend_or_free(struct vm *vm, u64 gpa, struct page *page, unsigned int order)
{
	long result = lend(vm, gpa, page, order);

	if (result && result != -ENODEV)
		__free_pages(page, order);
	return result == -EADDRNOTAVAIL ? refused(vm, order) : result;
}

/* Populates the next piece or page. Returns its bytes or an error code. -ERESTART: call again. */
static long populate_next(struct vm *vm, u64 gpa, u64 size, const void __user *source)
{
	unsigned int order =
		gpa % PIECE_BYTES || size < PIECE_BYTES || xa_load(&vm->lent, piece_of(gpa)) ? 0 : PIECE_ORDER;
	/* What a sealed VM gets the monitor zeroes. */
	bool zero = !source && !READ_ONCE(vm->sealed);
	struct page *page = allocate(order, zero);
	long result;

	if (!page && order) {
		order = 0;
		page = allocate(order, zero);
	}
	if (!page)
		return -ENOMEM;
	result = source && copy_from_user(page_address(page), source, PAGE_SIZE << order) ? -EFAULT : 0;
	if (!result)
		result = mutex_lock_killable(&vm->lock);
	if (result) {
		__free_pages(page, order);
		return result;
	}
	if (source && vm->sealing) {
		__free_pages(page, order);
		result = -EBUSY;
	} else {
		result = lend_or_free(vm, gpa, page, order);
	}
	mutex_unlock(&vm->lock);
	return result ? result : PAGE_SIZE << order;
}

long vm_populate(struct vm *vm, const struct hyperps_vm_populate *request)
{
	u64 size = min_t(u64, request->size, HYPERPS_VM_POPULATE_MAX), done = 0;
	long error = 0;

	while (done < size && !error) {
		void __user *source = request->source ? u64_to_user_ptr(request->source + done) : NULL;
		long result =
			signal_pending(current) ? -EINTR : populate_next(vm, request->gpa + done, size - done, source);

		if (result > 0)
			done += result;
		else if (result != -ERESTART)
			error = result;
		cond_resched();
	}
	if (!done)
		return error;
	error = vm_sync(vm);
	return error ? error : done;
}

static const struct hyperps_vm_declare *range_of(struct vm *vm, u64 gpa)
{
	unsigned int i;

	for (i = 0; i < vm->range_count; i++)
		if (gpa >= vm->range[i].gpa && gpa - vm->range[i].gpa < vm->range[i].size)
			return &vm->range[i];
	return NULL;
}

/* New pages for the AROUND_BYTES around gpa, if all of these are free and in the range. 1: they are not, or no memory. */
static long lend_around(struct vm *vm, const struct hyperps_vm_declare *range, u64 gpa)
{
	u64 first = round_down(gpa, AROUND_BYTES);
	struct page **table, *page;
	unsigned long i;
	long result;

	if (first < range->gpa || range->gpa + range->size - first < AROUND_BYTES)
		return 1;
	table = get_table(vm, first);
	if (!table || memchr_inv(table + index_of(first), 0, sizeof(*table) << AROUND_ORDER))
		return 1;
	page = allocate(AROUND_ORDER, false);
	if (!page)
		return 1;
	split_page(page, AROUND_ORDER);
	result = map(vm, first, page, AROUND_ORDER);
	for (i = 0; i < 1UL << AROUND_ORDER; i++) {
		if (!result || result == -ENODEV)
			table[index_of(first) + i] = page + i;
		else
			__free_page(page + i);
	}
	return result == -EADDRNOTAVAIL ? refused(vm, AROUND_ORDER) : result;
}

/* A new page at gpa, which is free, and what can be had around it. -ERESTART: call again. */
static long lend_new(struct vm *vm, const struct hyperps_vm_declare *range, u64 gpa)
{
	u64 piece = round_down(gpa, PIECE_BYTES);
	struct page *page = NULL;
	unsigned int order = 0;
	long result;

	if (!xa_load(&vm->lent, piece_of(gpa)) && piece >= range->gpa &&
	    range->gpa + range->size - piece >= PIECE_BYTES) {
		page = allocate(PIECE_ORDER, false);
		if (page) {
			order = PIECE_ORDER;
			gpa = piece;
		}
	}
	result = page ? 1 : lend_around(vm, range, gpa);
	if (result == 1) {
		page = page ?: allocate(0, false);
		if (!page)
			return -ENOMEM;
		result = lend_or_free(vm, gpa, page, order);
	}
	return result ? result : vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
}

long vm_touch(struct vm *vm, u64 gpa, bool lazy)
{
	const struct hyperps_vm_declare *range;
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	range = range_of(vm, gpa);
	result = make_free(vm, gpa);
	/* It waits for VM_SYNC, or another vCPU got it meanwhile. */
	if (result == -EACCES)
		result = vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	else if (!result && lazy && range)
		do {
			result = lend_new(vm, range, gpa);
		} while (result == -ERESTART);
	else if (!result)
		result = 1;
	mutex_unlock(&vm->lock);
	return result;
}

long vm_sync(struct vm *vm)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	result = vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	mutex_unlock(&vm->lock);
	return result;
}

long vm_release_pages(struct vm *vm, u64 gpa, u64 count)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	result = reclaim_released(vm);
	for (; count && !result; count--, gpa += PAGE_SIZE) {
		result = take_back(vm, gpa);
		if (count == 1 || index_of(gpa) == PIECE_PAGES - 1)
			drop_empty_table(vm, gpa);
	}
	mutex_unlock(&vm->lock);
	return result;
}

long vm_make_room(struct vm *vm, unsigned int attempt)
{
	long result = mutex_lock_killable(&vm->lock);

	if (result)
		return result;
	result = vm_finish(HYPERPS_CALL_VM_SYNC, vm->handle);
	if (!result)
		result = reclaim_released(vm);
	if (!result && attempt && (attempt > ROOM_ATTEMPTS || !vm_donate()))
		result = -ENOMEM;
	mutex_unlock(&vm->lock);
	return result;
}

/* Ends early where the monitor refuses the access. Returns the bytes left. */
static unsigned long copy_or_fault(void *to, const void *from, unsigned long bytes)
{
	asm volatile("1: rep movsb\n"
		     "2:\n" _ASM_EXTABLE(1b, 2b)
		     : "+D"(to), "+S"(from), "+c"(bytes)
		     :
		     : "memory");
	return bytes;
}

/* The lock keeps the page from being freed, not from being taken back by the guest. */
static long copy_in_page(struct vm *vm, u64 gpa, void *buffer, unsigned long bytes, bool write)
{
	long result = mutex_lock_killable(&vm->lock);
	struct page *page;
	void *shared;

	if (result)
		return result;
	page = find_page(vm, gpa);
	if (!page || frame_state(vm, page) != HYPERPS_FRAME_SHARED) {
		result = -EACCES;
	} else {
		shared = page_address(page) + offset_in_page(gpa);
		if (copy_or_fault(write ? shared : buffer, write ? buffer : shared, bytes))
			result = -EFAULT;
	}
	mutex_unlock(&vm->lock);
	return result;
}

long vm_copy_shared(struct vm *vm, const struct hyperps_vm_shared *request, bool write)
{
	u64 size = min_t(u64, request->size, HYPERPS_READ_MAX), done = 0;
	void __user *user = u64_to_user_ptr(request->buffer);
	void *buffer = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	long error = buffer ? 0 : -ENOMEM;

	while (done < size && !error) {
		u64 gpa = request->gpa + done;
		u64 bytes = min_t(u64, PAGE_SIZE - offset_in_page(gpa), size - done);

		if (done && signal_pending(current))
			break;
		if (write && copy_from_user(buffer, user + done, bytes))
			error = -EFAULT;
		if (!error)
			error = copy_in_page(vm, gpa, buffer, bytes, write);
		if (!error && !write && copy_to_user(user + done, buffer, bytes))
			error = -EFAULT;
		if (!error)
			done += bytes;
		cond_resched();
	}
	free_page((unsigned long)buffer);
	return done ? done : error;
}

long vm_frame(struct vm *vm, struct hyperps_vm_frame *request)
{
	long result = mutex_lock_killable(&vm->lock);
	struct page *page;

	if (result)
		return result;
	page = find_page(vm, request->gpa);
	if (page)
		request->frame = page_to_pfn(page);
	mutex_unlock(&vm->lock);
	return page ? 0 : -ENODATA;
}

void vm_free_memory(struct vm *vm)
{
	unsigned long index, i;
	void *entry;

	xa_for_each(&vm->lent, index, entry)
	{
		struct page **table = entry;

		if (xa_pointer_tag(entry) == PIECE_TAG) {
			free_lent(xa_untag_pointer(entry), PIECE_ORDER);
		} else {
			for (i = 0; i < PIECE_PAGES; i++)
				if (table[i])
					free_lent(table[i], 0);
			free_page((unsigned long)table);
		}
		cond_resched();
	}
	xa_destroy(&vm->lent);
	aside_give_back(&vm->aside);
}
