// SPDX-License-Identifier: GPL-2.0
/* An NMI that a CPU sends to itself or to another one arrives, each exactly once. */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/smp.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/nmi.h>

#include "tap.h"

#define NMIS_PER_CPU 10
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
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	__apic_send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
#else
	apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
#endif
}

static int show_nmi(struct seq_file *out, void *unused)
{
	int cpu, i, waited, sent = 0;

	if (register_nmi_handler(NMI_LOCAL, on_nmi, 0, "nmi_probe")) {
		tap_check(out, false, "registering an NMI handler");
		return 0;
	}
	cpus_read_lock();
	for_each_online_cpu(cpu)
	{
		atomic_set(&arrived, 0);
		for (i = 0; i < NMIS_PER_CPU; i++) {
			atomic_set(&expected_cpu, cpu);
			send_nmi(cpu);
			for (waited = 0; atomic_read(&expected_cpu) != -1 && waited < WAIT_MICROSECONDS; waited++)
				udelay(1);
			if (atomic_read(&expected_cpu) != -1)
				break;
		}
		sent = i;
		atomic_set(&expected_cpu, -1);
		tap_check(out, sent == NMIS_PER_CPU && atomic_read(&arrived) == sent, "NMIs reach CPU %d (%d of %d)",
			  cpu, atomic_read(&arrived), NMIS_PER_CPU);
	}
	cpus_read_unlock();
	unregister_nmi_handler(NMI_LOCAL, "nmi_probe");
	return 0;
}

TAP_MODULE("nmi_probe", show_nmi, "Checks that NMIs arrive");
