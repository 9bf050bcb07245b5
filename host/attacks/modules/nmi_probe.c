// SPDX-License-Identifier: GPL-2.0
/*
 * An NMI that a CPU sends to itself or to another one arrives, each exactly once; also while the other CPU spends most
 * of its time in the monitor.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/smp.h>
#include <asm/nmi.h>

#include "compat.h"
#include "counted_nmi.h"
#include "tap.h"

#define NMIS_PER_CPU 10
#define NMIS_IN_MONITOR 2000

/* Under the monitor, leaf 1 is an exit with some 150 instructions in VMX root; without it, a plain instruction. */
static int execute_cpuid(void *unused)
{
	while (!kthread_should_stop()) {
		int i;

		for (i = 0; i < 1000; i++)
			cpuid_eax(1);
		cond_resched();
	}
	return 0;
}

static void check_in_monitor(struct seq_file *out, int cpu)
{
	struct task_struct *task = kthread_create(execute_cpuid, NULL, "nmi_probe/%d", cpu);
	int got;

	if (IS_ERR(task)) {
		tap_check(out, false, "starting a thread on CPU %d", cpu);
		return;
	}
	kthread_bind(task, cpu);
	wake_up_process(task);
	msleep(20);
	got = send_counted_nmis(cpu, NMIS_IN_MONITOR);
	kthread_stop(task);
	tap_check(out, got == NMIS_IN_MONITOR, "NMIs reach CPU %d while it executes CPUID all the time (%d of %d)", cpu,
		  got, NMIS_IN_MONITOR);
}

static int show_nmi(struct seq_file *out, void *unused)
{
	int cpu, got;

	if (register_nmi_handler(NMI_LOCAL, count_nmi, 0, "nmi_probe")) {
		tap_check(out, false, "registering an NMI handler");
		return 0;
	}
	cpus_read_lock();
	for_each_online_cpu(cpu)
	{
		got = send_counted_nmis(cpu, NMIS_PER_CPU);
		tap_check(out, got == NMIS_PER_CPU, "positive control: NMIs reach CPU %d (%d of %d)", cpu, got,
			  NMIS_PER_CPU);
		/* The reader of this file is bound to CPU 0. */
		if (cpu != 0)
			check_in_monitor(out, cpu);
	}
	cpus_read_unlock();
	unregister_nmi_handler(NMI_LOCAL, "nmi_probe");
	return 0;
}

TAP_MODULE("nmi_probe", show_nmi, "Checks that NMIs arrive");
