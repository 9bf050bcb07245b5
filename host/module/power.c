// SPDX-License-Identifier: GPL-2.0
/*
 * Where the machine, a CPU or this kernel would leave the monitor's reach: what the monitor can only prevent by clearing
 * all guests' memory is refused here, or the VMs are ended before. A kernel that goes past this gains nothing.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/notifier.h>
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

static int on_sleep(struct notifier_block *block, unsigned long action, void *unused)
{
	bool ends_monitor = action == PM_HIBERNATION_PREPARE ||
			    (action == PM_SUSPEND_PREPARE && pm_suspend_target_state != PM_SUSPEND_TO_IDLE);

	if (!ends_monitor)
		return NOTIFY_DONE;
	pr_err("this machine can't sleep: the monitor would not be there afterwards. Unload hyperps to sleep all the "
	       "same; what guests have in memory is lost then\n");
	return notifier_from_errno(-EPERM);
}

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
	int error = register_pm_notifier(&sleep_block);

	if (error)
		return error;
	error = register_reboot_notifier(&reboot_block);
	if (!error) {
		online_state = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "hyperps:prepare", cpu_prepare, NULL);
		error = min(online_state, 0);
		if (error)
			unregister_reboot_notifier(&reboot_block);
	}
	if (error)
		unregister_pm_notifier(&sleep_block);
	return error;
}

void hyperps_power_stop(void)
{
	cpuhp_remove_state_nocalls(online_state);
	unregister_reboot_notifier(&reboot_block);
	unregister_pm_notifier(&sleep_block);
}
