// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel, to show on any machine what the monitor refuses: hpsctl demo says where, this module tries. It can do
 * nothing that other code in ring 0 could not; faults are caught. Each open file has a state of its own; state->lock is
 * held during a request.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/fpu/api.h>
#include <asm/linkage.h>

#include "compat.h"
#include "hyperps_demo.h"
#include "vmcall.h"

#define RWX 7
#define AGAIN_LIMIT 10

struct state {
	struct mutex lock;
	struct page *page[DEMO_PAGES];
	u64 vm, victim; /* handles; NO_VM: none */
};

#define NO_VM (~0ULL)

static_assert(offsetof(struct demo_call, xmm) == 128);

/*
 * void demo_vmcall(struct demo_call *call): VMCALL with these registers. In assembler, as the compiler would use some of
 * them in between.
 */
void demo_vmcall(struct demo_call *call);
asm(".pushsection .text\n"
    ".type demo_vmcall, @function\n"
    "demo_vmcall:\n"
    "	push %rbp\n"
    "	push %rbx\n"
    "	push %r12\n"
    "	push %r13\n"
    "	push %r14\n"
    "	push %r15\n"
    "	push %rdi\n"
    ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	movdqu 128 + 16 * \\i(%rdi), %xmm\\i\n"
    ".endr\n"
    "	mov (%rdi), %rax\n"
    "	mov 8(%rdi), %rcx\n"
    "	mov 16(%rdi), %rdx\n"
    "	mov 24(%rdi), %rbx\n"
    "	mov 40(%rdi), %rbp\n"
    "	mov 48(%rdi), %rsi\n"
    ".irp i, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	mov 8 * \\i(%rdi), %r\\i\n"
    ".endr\n"
    "	mov 56(%rdi), %rdi\n"
    "1:	vmcall\n"
    "2:\n" _ASM_EXTABLE(1b, 2b) "	xchg %rdi, (%rsp)\n"
				"	mov %rax, (%rdi)\n"
				"	mov %rcx, 8(%rdi)\n"
				"	mov %rdx, 16(%rdi)\n"
				"	mov %rbx, 24(%rdi)\n"
				"	mov %rbp, 40(%rdi)\n"
				"	mov %rsi, 48(%rdi)\n"
				".irp i, 8, 9, 10, 11, 12, 13, 14, 15\n"
				"	mov %r\\i, 8 * \\i(%rdi)\n"
				".endr\n"
				".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
				"	movdqu %xmm\\i, 128 + 16 * \\i(%rdi)\n"
				".endr\n"
				"	pop %rax\n"
				"	mov %rax, 56(%rdi)\n"
				"	pop %r15\n"
				"	pop %r14\n"
				"	pop %r13\n"
				"	pop %r12\n"
				"	pop %rbx\n"
				"	pop %rbp\n"
				"	" ASM_RET ".size demo_vmcall, . - demo_vmcall\n"
				".popsection\n");

/* Result word 0, which is never negative, or the monitor's error code. */
static s64 call(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { a, b, c, d };
	u64 result[HYPERPS_RESULTS];
	s64 error = hyperps_vmcall(number, argument, result);

	return error ? error : (s64)result[0];
}

static bool has_monitor(void)
{
	struct demo_call identify = { .general[DEMO_RAX] = HYPERPS_CALL_IDENTIFY };

	kernel_fpu_begin();
	demo_vmcall(&identify);
	kernel_fpu_end();
	return !identify.general[DEMO_RAX] && identify.general[DEMO_RBX] == HYPERPS_SIGNATURE;
}

static int try_read(const u64 *address, u64 *value)
{
	int fault = 0;
	u64 got = 0;

	asm volatile("1: mov %2, %1\n"
		     "mov $-1, %%eax\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "+a"(fault), "+r"(got)
		     : "m"(*address));
	*value = got;
	return fault;
}

static int try_write(u64 *address, u64 value)
{
	int fault = 0;

	asm volatile("1: mov %2, %1\n"
		     "mov $-1, %%eax\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "+a"(fault), "=m"(*address)
		     : "r"(value)
		     : "memory");
	return fault;
}

static long access(struct demo_access *request)
{
	struct page *page;
	void *mapping;
	u64 *address, after;

	if (!pfn_valid(request->frame) || request->offset % 8 || request->offset >= PAGE_SIZE ||
	    request->mapping >= DEMO_MAPPINGS)
		return -EINVAL;
	page = pfn_to_page(request->frame);
	mapping = request->mapping == DEMO_DIRECT ? page_address(page) : vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!mapping)
		return -ENOMEM;
	address = mapping + request->offset;
	if (!request->write) {
		request->fault = try_read(address, &request->value);
	} else {
		request->fault = try_write(address, DEMO_WRITTEN);
		if (request->fault == DEMO_NO_FAULT) {
			try_read(address, &after);
			try_write(address, request->value);
			request->value = after;
		}
	}
	if (request->mapping == DEMO_FRESH)
		vunmap(mapping);
	return 0;
}

static long look(struct demo_look *request)
{
	const u64 *address;
	u64 value;
	int i;

	if (!pfn_valid(request->frame))
		return -EINVAL;
	address = page_address(pfn_to_page(request->frame));
	request->words = 0;
	for (i = 0; i < PAGE_SIZE / sizeof(u64); i++) {
		request->fault = try_read(address + i, &value);
		if (request->fault != DEMO_NO_FAULT)
			break;
		request->words += !!value;
	}
	return 0;
}

static s64 map(struct state *state, u64 vm, u64 gpa, u64 frame)
{
	if (vm != state->vm)
		state->victim = vm;
	return min(call(HYPERPS_CALL_VM_MAP, vm, gpa, frame, 1), 0LL);
}

static enum hrtimer_restart on_timer(struct hrtimer *timer)
{
	return HRTIMER_NORESTART;
}

static long call_with_registers(struct demo_call *request)
{
	u64 number = request->general[DEMO_RAX];

	struct hrtimer timer;

	if ((number != HYPERPS_CALL_IDENTIFY && number != HYPERPS_CALL_VCPU_RUN) || request->interrupt > NSEC_PER_SEC)
		return -EINVAL;
	hrtimer_setup_on_stack(&timer, on_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	kernel_fpu_begin();
	local_irq_disable();
	hrtimer_start(&timer, ns_to_ktime(request->interrupt), HRTIMER_MODE_REL_PINNED_HARD);
	demo_vmcall(request);
	local_irq_enable();
	kernel_fpu_end();
	hrtimer_cancel(&timer);
	destroy_hrtimer_on_stack(&timer);
	return 0;
}

static long finish(u64 number, u64 vm)
{
	int again = 0;
	s64 result;

	do {
		result = call(number, vm, 0, 0, 0);
		cond_resched();
	} while (result > 0 || (result == HYPERPS_ERROR_AGAIN && ++again < AGAIN_LIMIT));
	return result;
}

static long end_vm(u64 vm)
{
	long result = finish(HYPERPS_CALL_VM_DESTROY, vm);

	return result ? result : finish(HYPERPS_CALL_VM_RECLAIM, vm);
}

static void free_state(struct state *state)
{
	u64 value;
	int i;

	/* The victim may have got pages from here. */
	if (state->victim != NO_VM)
		end_vm(state->victim);
	if (state->vm != NO_VM)
		end_vm(state->vm);
	for (i = 0; i < DEMO_PAGES; i++) {
		if (!state->page[i])
			continue;
		if (try_read(page_address(state->page[i]), &value) == DEMO_NO_FAULT)
			__free_page(state->page[i]);
		else
			pr_warn("a page did not come back from a VM: it is lost\n");
	}
	kfree(state);
}

static int demo_open(struct inode *inode, struct file *file)
{
	struct state *state = kzalloc(sizeof(*state), GFP_KERNEL);
	s64 result;
	int i;

	if (!state)
		return -ENOMEM;
	mutex_init(&state->lock);
	state->vm = state->victim = NO_VM;
	for (i = 0; i < DEMO_PAGES; i++) {
		/* The lowest memory: Linux may have other that no VM can have. */
		state->page[i] = alloc_page(GFP_KERNEL | GFP_DMA | __GFP_ZERO);
		if (!state->page[i]) {
			free_state(state);
			return -ENOMEM;
		}
		*(u64 *)page_address(state->page[i]) = DEMO_VALUE;
	}
	result = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0);
	if (result >= 0) {
		state->vm = result;
		result = min(call(HYPERPS_CALL_VM_DECLARE, state->vm, RWX, DEMO_PAGES, 0), 0LL);
	}
	if (result) {
		free_state(state);
		return result;
	}
	file->private_data = state;
	return 0;
}

static int demo_release(struct inode *inode, struct file *file)
{
	free_state(file->private_data);
	return 0;
}

static long attack(struct state *state, unsigned int command, void *argument)
{
	struct demo_own *own = argument;
	struct demo_map *request = argument;
	int i;

	switch (command) {
	case DEMO_IOC_OWN:
		for (i = 0; i < DEMO_PAGES; i++)
			own->frame[i] = page_to_pfn(state->page[i]);
		own->vm = state->vm;
		return 0;
	case DEMO_IOC_ACCESS:
		return access(argument);
	case DEMO_IOC_LOOK:
		return look(argument);
	case DEMO_IOC_MAP:
		request->result = map(state, request->vm, request->gpa, request->frame);
		return 0;
	case DEMO_IOC_CALL:
		return call_with_registers(argument);
	case DEMO_IOC_END:
		return end_vm(*(u64 *)argument);
	default:
		return -ENOTTY;
	}
}

static long demo_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct state *state = file->private_data;
	void __user *user = (void __user *)argument;
	union {
		struct demo_own own;
		struct demo_access access;
		struct demo_look look;
		struct demo_map map;
		struct demo_call call;
	} request = { 0 };
	unsigned int size = _IOC_SIZE(command);
	long result;

	if (size > sizeof(request))
		return -ENOTTY;
	if ((_IOC_DIR(command) & _IOC_WRITE) && copy_from_user(&request, user, size))
		return -EFAULT;
	mutex_lock(&state->lock);
	result = attack(state, command, &request);
	mutex_unlock(&state->lock);
	if (!result && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(user, &request, size))
		result = -EFAULT;
	return result;
}

static const struct file_operations demo_operations = {
	.owner = THIS_MODULE,
	.open = demo_open,
	.release = demo_release,
	.unlocked_ioctl = demo_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice demo_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hyperps_demo",
	.fops = &demo_operations,
	.mode = 0600,
};

static int __init demo_init(void)
{
	if (!has_monitor()) {
		pr_err("HyperPS is not running below this kernel\n");
		return -ENODEV;
	}
	return misc_register(&demo_device);
}

static void __exit demo_exit(void)
{
	misc_deregister(&demo_device);
}

module_init(demo_init);
module_exit(demo_exit);

MODULE_DESCRIPTION("Plays a hostile kernel, for hpsctl demo");
MODULE_LICENSE("GPL");
