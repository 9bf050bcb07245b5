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
#include "tap.h"

#define NMIS_PER_CPU 10
#define NMIS_IN_MONITOR 2000
#define WAIT_MICROSECONDS 200000

static atomic_t expected_cpu = ATOMIC_INIT(-1);
static atomic_t arrived;

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	if (atomic_cmpxchg(&expected_cpu, raw_smp_processor_id(), -1) != raw_smp_processor_id())
		return NMI_DONE;
	atomic_inc(&arrived);
	return NMI_HANDLED;
}

static void send_nmi(int cpu)
{
	apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
}

/* Sends that many NMIs to a CPU, each after the one before it has arrived; returns how many arrived in time. */
static int send_and_wait(int cpu, int count)
{
	int i, waited;

	atomic_set(&arrived, 0);
	for (i = 0; i < count; i++) {
		/* Another moment of the other CPU's loop each time. */
		ndelay(i * 7 % 1009);
		atomic_set(&expected_cpu, cpu);
		send_nmi(cpu);
		for (waited = 0; atomic_read(&expected_cpu) != -1 && waited < WAIT_MICROSECONDS; waited++)
			udelay(1);
		if (atomic_read(&expected_cpu) != -1)
			break;
	}
	atomic_set(&expected_cpu, -1);
	return i == count ? atomic_read(&arrived) : i;
}

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
	got = send_and_wait(cpu, NMIS_IN_MONITOR);
	kthread_stop(task);
	tap_check(out, got == NMIS_IN_MONITOR, "NMIs reach CPU %d while it executes CPUID all the time (%d of %d)", cpu,
		  got, NMIS_IN_MONITOR);
}

static int show_nmi(struct seq_file *out, void *unused)
{
	int cpu, got;

	if (register_nmi_handler(NMI_LOCAL, on_nmi, 0, "nmi_probe")) {
		tap_check(out, false, "registering an NMI handler");
		return 0;
	}
	cpus_read_lock();
	for_each_online_cpu(cpu)
	{
		got = send_and_wait(cpu, NMIS_PER_CPU);
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
