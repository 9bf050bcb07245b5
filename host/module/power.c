// SPDX-License-Identifier: GPL-2.0
/*
 * Where the machine, a CPU or this kernel would leave the monitor's reach: what the monitor can only prevent by clearing
 * all guests' memory is refused here, or the VMs are ended before. A kernel that goes past this gains nothing.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/notifier.h>
#include <linux/platform_device.h>
#include <linux/reboot.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <asm/smp.h>

#include "power.h"
#include "vm_end.h"

static int online_state;

/* Whether the monitor has the CPU with that local APIC ID in VMX. */
static bool is_under_monitor(u32 apic_id)
{
	u64 words[HYPERPS_RESULTS];
	u64 slot;

	for (slot = 0;; slot++) {
		const u64 argument[HYPERPS_ARGUMENTS] = { HYPERPS_OBJECT_EXITS | slot << 32 };
		const struct hyperps_exits *exits = (const struct hyperps_exits *)words;

		static_assert(offsetofend(struct hyperps_exits, state) <= sizeof(words));
		if (hyperps_call(HYPERPS_CALL_READ, argument, words))
			return false;
		if (exits->apic_id == apic_id && exits->state == HYPERPS_CPU_STATE_IN_VMX)
			return true;
	}
}

/* Before the CPU is started. One that came after the boot would run outside VMX. */
static int cpu_prepare(unsigned int cpu)
{
	u32 apic_id = per_cpu(x86_cpu_to_apicid, cpu);

	if (is_under_monitor(apic_id))
		return 0;
	pr_err("CPU %u (APIC ID %u) is not under the monitor, and stays offline: restart the machine to use it\n", cpu,
	       apic_id);
	return -EPERM;
}

static int refuse_sleep(void)
{
	pr_err("this machine can't sleep: the monitor would not be there afterwards. Unload hyperps to sleep all the "
	       "same; what guests have in memory is lost then\n");
	return -EPERM;
}

/* Before anything is done for hibernation. */
static int on_sleep(struct notifier_block *block, unsigned long action, void *unused)
{
	return action == PM_HIBERNATION_PREPARE ? notifier_from_errno(refuse_sleep()) : NOTIFY_DONE;
}

/*
 * Before any device sleeps: only now Linux says which state it is to be. In suspend-to-idle all CPUs stay in the monitor's
 * reach.
 */
static int on_suspend(struct device *device)
{
	return pm_suspend_target_state == PM_SUSPEND_TO_IDLE ? 0 : refuse_sleep();
}

static const struct dev_pm_ops sleep_operations = { .prepare = on_suspend };
static struct platform_driver sleep_driver = { .driver = { .name = "hyperps", .pm = &sleep_operations } };
static struct platform_device *sleep_device;

/* The next kernel takes all memory for its own, and would not get that of VMs. */
static int on_reboot(struct notifier_block *block, unsigned long action, void *command)
{
	if (action == SYS_RESTART && command && !strcmp(command, "kexec reboot"))
		hyperps_vm_end_all();
	return NOTIFY_DONE;
}

static struct notifier_block sleep_block = { .notifier_call = on_sleep };
static struct notifier_block reboot_block = { .notifier_call = on_reboot };

int hyperps_power_start(void)
{
	int error = platform_driver_register(&sleep_driver);

	if (error)
		return error;
	sleep_device = platform_device_register_simple("hyperps", PLATFORM_DEVID_NONE, NULL, 0);
	error = PTR_ERR_OR_ZERO(sleep_device);
	if (error)
		goto no_device;
	error = register_pm_notifier(&sleep_block);
	if (error)
		goto no_notifier;
	error = register_reboot_notifier(&reboot_block);
	if (error)
		goto no_reboot;
	online_state = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "hyperps:prepare", cpu_prepare, NULL);
	if (online_state >= 0)
		return 0;
	error = online_state;
	unregister_reboot_notifier(&reboot_block);
no_reboot:
	unregister_pm_notifier(&sleep_block);
no_notifier:
	platform_device_unregister(sleep_device);
no_device:
	platform_driver_unregister(&sleep_driver);
	return error;
}

void hyperps_power_stop(void)
{
	cpuhp_remove_state_nocalls(online_state);
	unregister_reboot_notifier(&reboot_block);
	unregister_pm_notifier(&sleep_block);
	platform_device_unregister(sleep_device);
	platform_driver_unregister(&sleep_driver);
}
