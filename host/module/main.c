// SPDX-License-Identifier: GPL-2.0
/*
 * The Linux partner of the HyperPS monitor: finds out whether the monitor runs below this kernel and lets root read the
 * monitor's status, log and counters, and create VMs (vm.c), through /dev/hyperps. This file keeps no state and takes no
 * locks.
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
#include <asm/processor.h>

#include "call.h"
#include "crash.h"
#include "gate.h"
#include "power.h"
#include "vm.h"
#include "vm_end.h"

/* Copy what the request asks for. Returns bytes copied or a negative error code, see HYPERPS_IOC_READ. */
static long hyperps_read(const struct hyperps_read *request)
{
	u64 argument[HYPERPS_ARGUMENTS] = { request->object | (u64)request->index << 32 };
	char __user *buffer = u64_to_user_ptr(request->buffer);
	u64 piece[HYPERPS_RESULTS];
	u64 length = min_t(u64, request->length, HYPERPS_READ_MAX);
	u64 done = 0, end;

	if (check_add_overflow(request->offset, request->length, &end))
		return -EINVAL;

	while (done < length) {
		u64 offset = request->offset + done;
		u64 skip = offset % HYPERPS_READ_BYTES;
		u64 bytes = min_t(u64, HYPERPS_READ_BYTES - skip, length - done);
		long error = fatal_signal_pending(current) ? -EINTR : 0;

		argument[1] = offset - skip;
		if (!error)
			error = hyperps_call(HYPERPS_CALL_READ, argument, piece);
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

	if (command == HYPERPS_IOC_CREATE_VM)
		return argument ? -EINVAL : hyperps_vm_create();
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

/* Under the lock of the module's parameters. */
static bool gate = true, running;

static int set_gate(const char *text, const struct kernel_param *parameter)
{
	int error = param_set_bool(text, parameter);

	if (error || !running)
		return error;
	if (!gate)
		hyperps_gate_stop();
	else
		hyperps_gate_start(); /* if that fails, the monitor's log says why */
	return 0;
}

static const struct kernel_param_ops gate_operations = { .set = set_gate, .get = param_get_bool };
module_param_cb(gate, &gate_operations, &gate, 0644);
MODULE_PARM_DESC(gate, "call the monitor through its gate where it offers one (default), or by VMCALL always");

static int __init hyperps_init(void)
{
	static const u64 no_argument[HYPERPS_ARGUMENTS];
	u64 result[HYPERPS_RESULTS];
	int error;

	/* A KVM host with an AMD CPU would answer VMCALL by patching the instruction. */
	if (boot_cpu_data.x86_vendor == X86_VENDOR_AMD || boot_cpu_data.x86_vendor == X86_VENDOR_HYGON) {
		pr_err("HyperPS is not running below this kernel: it needs a CPU with Intel VT-x\n");
		return -ENODEV;
	}
	if (hyperps_call(HYPERPS_CALL_IDENTIFY, no_argument, result)) {
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
	error = hyperps_power_start();
	if (error)
		return error;
	hyperps_crash_start();
	error = misc_register(&hyperps_device);
	if (error) {
		hyperps_crash_stop();
		hyperps_power_stop();
		return error;
	}
	kernel_param_lock(THIS_MODULE);
	running = true;
	/* The monitor's log says why there is none. */
	if (gate && !hyperps_gate_start())
		pr_info("calls go through the gate\n");
	kernel_param_unlock(THIS_MODULE);
	return 0;
}

static void __exit hyperps_exit(void)
{
	misc_deregister(&hyperps_device);
	hyperps_vm_exit();
	kernel_param_lock(THIS_MODULE);
	running = false;
	hyperps_gate_stop();
	kernel_param_unlock(THIS_MODULE);
	hyperps_crash_stop();
	hyperps_power_stop();
}

module_init(hyperps_init);
module_exit(hyperps_exit);

MODULE_DESCRIPTION("Access to the HyperPS monitor below this kernel");
MODULE_LICENSE("GPL");
