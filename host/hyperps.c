// SPDX-License-Identifier: GPL-2.0
/*
 * The Linux partner of the HyperPS monitor: finds out whether the monitor runs below this kernel and lets root read the
 * monitor's status, log and counters through /dev/hyperps. It keeps no state and takes no locks.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <asm/asm.h>
#include <asm/processor.h>

#include "hyperps_ioctl.h"

#define RESULT_WORDS (HYPERPS_READ_BYTES / sizeof(u64))

/*
 * Call the monitor. Returns 0 with the eight result words, or a negative error code: the monitor's own, or -ENODEV if
 * VMCALL faulted or gave a value that the monitor never gives.
 */
static long hyperps_call(u64 number, u64 argument1, u64 argument2, u64 result[RESULT_WORDS])
{
	long rax = number;
	u64 rbx, rdx, rsi = argument2, rdi = argument1;
	register u64 r8 asm("r8");
	register u64 r9 asm("r9");
	register u64 r10 asm("r10");
	register u64 r11 asm("r11");

	/* On a fault the exception table's handler leaves the vector, a positive number, in RAX. */
	asm volatile("1: vmcall\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "+a"(rax), "=b"(rbx), "=d"(rdx), "+S"(rsi), "+D"(rdi), "=r"(r8), "=r"(r9), "=r"(r10), "=r"(r11)
		     :
		     : "memory", "cc");
	if (rax)
		return rax > 0 || rax < -MAX_ERRNO ? -ENODEV : rax;
	result[0] = rbx;
	result[1] = rdx;
	result[2] = rsi;
	result[3] = rdi;
	result[4] = r8;
	result[5] = r9;
	result[6] = r10;
	result[7] = r11;
	return 0;
}

/* Copy what the request asks for. Returns bytes copied or a negative error code, see HYPERPS_IOC_READ. */
static long hyperps_read(const struct hyperps_read *request)
{
	u64 object = request->object | (u64)request->index << 32;
	char __user *buffer = u64_to_user_ptr(request->buffer);
	u64 piece[RESULT_WORDS];
	u64 length = min_t(u64, request->length, HYPERPS_READ_MAX);
	u64 done = 0, end;

	if (check_add_overflow(request->offset, request->length, &end))
		return -EINVAL;

	while (done < length) {
		u64 offset = request->offset + done;
		u64 skip = offset % HYPERPS_READ_BYTES;
		u64 bytes = min_t(u64, HYPERPS_READ_BYTES - skip, length - done);
		long error = fatal_signal_pending(current) ? -EINTR : 0;

		if (!error)
			error = hyperps_call(HYPERPS_CALL_READ, object, offset - skip, piece);
		if (!error && copy_to_user(buffer + done, (char *)piece + skip, bytes))
			error = -EFAULT;
		if (error)
			return done ? done : error;
		done += bytes;
		cond_resched();
	}
	return done;
}

static long hyperps_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct hyperps_read request;

	if (command != HYPERPS_IOC_READ)
		return -ENOTTY;
	if (copy_from_user(&request, (void __user *)argument, sizeof(request)))
		return -EFAULT;
	return hyperps_read(&request);
}

static const struct file_operations hyperps_operations = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
	.unlocked_ioctl = hyperps_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice hyperps_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hyperps",
	.fops = &hyperps_operations,
	.mode = 0600,
};

static int __init hyperps_init(void)
{
	u64 result[RESULT_WORDS];

	/* A KVM host with an AMD CPU would answer VMCALL by patching the instruction. */
	if (boot_cpu_data.x86_vendor == X86_VENDOR_AMD || boot_cpu_data.x86_vendor == X86_VENDOR_HYGON) {
		pr_err("HyperPS is not running below this kernel: it needs a CPU with Intel VT-x\n");
		return -ENODEV;
	}
	if (hyperps_call(HYPERPS_CALL_IDENTIFY, 0, 0, result)) {
		pr_err("HyperPS is not running below this kernel: VMCALL is refused. Boot through hyperps.efi\n");
		return -ENODEV;
	}
	if (result[0] != HYPERPS_SIGNATURE) {
		pr_err("HyperPS is not running below this kernel: another hypervisor answers\n");
		return -ENODEV;
	}
	if (result[1] != HYPERPS_ABI_VERSION) {
		pr_err("HyperPS speaks interface version %llu, this module %u: install the module of the same "
		       "release\n",
		       result[1], HYPERPS_ABI_VERSION);
		return -EPROTO;
	}
	return misc_register(&hyperps_device);
}

static void __exit hyperps_exit(void)
{
	misc_deregister(&hyperps_device);
}

module_init(hyperps_init);
module_exit(hyperps_exit);

MODULE_DESCRIPTION("Access to the HyperPS monitor below this kernel");
MODULE_LICENSE("GPL");
