// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that were given to a VM, met by a host that is not hostile: mapped into a process, handed to the kernel's own
 * functions, used by a kernel thread, as page tables. With `fatal=idt` or `fatal=tables` the CPU itself can't go on.
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <asm/desc.h>

#include "calls.h"
#include "private_page.h"
#include "tap.h"

#define GIVEN 16
#define COPY 64

static char *fatal = "";
module_param(fatal, charp, 0400);

static struct page *pages[2]; /* the host's, the VM's */
static struct page *given[GIVEN]; /* pages of processes, pinned while they are the VM's */
static unsigned int count;
static u64 vm;
static bool alive;

static s64 give(struct page *page, u64 gpa)
{
	s64 error = map(vm, gpa, page_to_pfn(page), 1);

	return error ? error : finish(HYPERPS_CALL_VM_SYNC, vm);
}

static int begin(void)
{
	memcpy(page_address(pages[1]), PRIVATE_PAGE_TEXT, sizeof(PRIVATE_PAGE_TEXT));
	alive = !create(0, VIEW_PAGES, &vm);
	return alive && !give(pages[1], 0) ? 0 : -EIO;
}

static void take_back(void)
{
	if (alive && (finish(HYPERPS_CALL_VM_DESTROY, vm) || finish(HYPERPS_CALL_VM_RECLAIM, vm)))
		pr_err("private_page: the VM can't be ended\n");
	alive = false;
	while (count)
		unpin_user_page(given[--count]);
}

static long give_user_page(unsigned long address)
{
	struct page *page;

	if (count == GIVEN || pin_user_pages_fast(address, 1, FOLL_WRITE, &page) != 1)
		return -EFAULT;
	given[count++] = page;
	/* Filled by the caller: what it finds must not come from a cache. */
	return give(page, (u64)count << 30) ? -EIO : 0;
}

static long give_table(unsigned long address)
{
	pgd_t *pgd = pgd_offset(current->mm, address);
	p4d_t *p4d = p4d_offset(pgd, address);
	pud_t *pud = pud_offset(p4d, address);
	pmd_t *pmd = pmd_offset(pud, address);

	if (!pmd_present(*pmd) || pmd_leaf(*pmd))
		return -EFAULT;
	return give(pmd_page(*pmd), 1ULL << 40) ? -EIO : 0;
}

static int access_thread(void *byte)
{
	READ_ONCE(*(u8 *)byte);
	return 0;
}

/* Whether a kernel thread that reads the page came back. One that oopses is gone, and never can be waited for. */
static long run_thread(void *byte)
{
	struct task_struct *task = kthread_create(access_thread, byte, "private_page");
	bool done = false, came_back;
	int i;

	if (IS_ERR(task))
		return PTR_ERR(task);
	get_task_struct(task);
	wake_up_process(task);
	for (i = 0; i < 100 && !done; i++) {
		msleep(20);
		done = task->exit_state || READ_ONCE(task->__state) == TASK_DEAD;
	}
	came_back = !task->exit_code;
	put_task_struct(task);
	return done ? came_back : -ETIMEDOUT; /* it still runs: that would be an endless repetition */
}

static long private_page_ioctl(struct file *file, unsigned int request, unsigned long argument)
{
	u8 *own = page_address(pages[0]), *foreign = page_address(pages[1]);
	void __user *user = (void __user *)argument;

	switch (request) {
	case PRIVATE_PAGE_GIVE:
		return give_user_page(argument);
	case PRIVATE_PAGE_GIVE_TABLE:
		return give_table(argument);
	case PRIVATE_PAGE_TAKE_BACK:
		take_back();
		return begin();
	case PRIVATE_PAGE_COPY_TO_USER:
		return copy_to_user(user, foreign, COPY) ? -EFAULT : 0;
	case PRIVATE_PAGE_COPY_TO_USER_OWN:
		return copy_to_user(user, own, COPY) ? -EFAULT : 0;
	case PRIVATE_PAGE_COPY_FROM_USER:
		return copy_from_user(foreign, user, COPY) ? -EFAULT : 0;
	case PRIVATE_PAGE_COPY_FROM_USER_OWN:
		return copy_from_user(own, user, COPY) ? -EFAULT : 0;
	case PRIVATE_PAGE_READ:
		return READ_ONCE(*foreign);
	case PRIVATE_PAGE_WRITE:
		WRITE_ONCE(*foreign, 0);
		return 0;
	case PRIVATE_PAGE_THREAD:
		return run_thread(foreign);
	case PRIVATE_PAGE_THREAD_OWN:
		return run_thread(own);
	case PRIVATE_PAGE_FRAME:
		return page_to_pfn(pages[1]);
	case PRIVATE_PAGE_FRAME_OWN:
		return page_to_pfn(pages[0]);
	}
	return -ENOTTY;
}

static int private_page_mmap(struct file *file, struct vm_area_struct *area)
{
	unsigned long i;

	if (area->vm_pgoff || vma_pages(area) > ARRAY_SIZE(pages))
		return -EINVAL;
	for (i = 0; i < vma_pages(area); i++) {
		int error = remap_pfn_range(area, area->vm_start + i * PAGE_SIZE, page_to_pfn(pages[i]), PAGE_SIZE,
					    area->vm_page_prot);

		if (error)
			return error;
	}
	return 0;
}

/* The CPU can't deliver anything any more: the machine must be reset, not hang. */
static void fatal_idt(void)
{
	struct desc_ptr idt;
	void *table = page_address(pages[1]);

	store_idt(&idt);
	memcpy(table, (void *)idt.address, min_t(size_t, idt.size + 1, PAGE_SIZE));
	idt.address = (unsigned long)table;
	local_irq_disable();
	load_idt(&idt);
	/* A positive control first. */
	pr_emerg("private_page: exception %d\n", fault_of("movb (%1), %%al", 0, "d"(1UL << 63)));
	give(pages[1], 0);
	fault_of("movb (%1), %%al", 0, "d"(1UL << 63));
}

static void fatal_tables(void)
{
	void *table = page_address(pages[1]);
	unsigned long cr3 = __native_read_cr3();

	memcpy(table, __va(cr3 & CR3_ADDR_MASK), PAGE_SIZE);
	local_irq_disable();
	native_write_cr3(page_to_phys(pages[1]));
	native_write_cr3(cr3);
	pr_emerg("private_page: page tables\n");
	give(pages[1], 0);
	native_write_cr3(page_to_phys(pages[1]));
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = private_page_ioctl,
	.mmap = private_page_mmap,
};
static struct miscdevice misc = { .minor = MISC_DYNAMIC_MINOR, .name = "private_page", .fops = &operations };

static int __init private_page_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		pages[i] = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!pages[i])
			return -ENOMEM;
	}
	memcpy(page_address(pages[0]), PRIVATE_PAGE_TEXT, sizeof(PRIVATE_PAGE_TEXT));
	if (*fatal && create(0, VIEW_PAGES, &vm))
		return -EIO;
	if (!strcmp(fatal, "idt"))
		fatal_idt();
	if (!strcmp(fatal, "tables"))
		fatal_tables();
	if (*fatal)
		return -EIO;
	if (begin() || misc_register(&misc))
		return -EIO;
	return 0;
}

static void __exit private_page_exit(void)
{
	misc_deregister(&misc);
	take_back();
	__free_page(pages[0]);
	__free_page(pages[1]);
}

module_init(private_page_init);
module_exit(private_page_exit);
MODULE_DESCRIPTION("Pages of a VM where a host may meet them");
MODULE_LICENSE("GPL");
