/* SPDX-License-Identifier: GPL-2.0 */
/* NMIs at a CPU, one after the other, each counted when it arrives. */
#ifndef COUNTED_NMI_H
#define COUNTED_NMI_H

#include <linux/delay.h>
#include <linux/smp.h>
#include <asm/nmi.h>

#include "compat.h"

#define NMI_WAIT_MICROSECONDS 200000

static atomic_t nmi_expected_cpu = ATOMIC_INIT(-1), nmis_arrived;

static int count_nmi(unsigned int type, struct pt_regs *regs)
{
	if (atomic_cmpxchg(&nmi_expected_cpu, raw_smp_processor_id(), -1) != raw_smp_processor_id())
		return NMI_DONE;
	atomic_inc(&nmis_arrived);
	return NMI_HANDLED;
}

/* Each goes out when the one before has arrived. How many arrived in time; fewer than count: the last one did not. */
static int __maybe_unused send_counted_nmis(int cpu, int count)
{
	int i, waited;

	atomic_set(&nmis_arrived, 0);
	for (i = 0; i < count; i++) {
		/* Another moment of the other CPU's loop each time. */
		ndelay(i * 7 % 1009);
		atomic_set(&nmi_expected_cpu, cpu);
		apic->send_IPI_mask(cpumask_of(cpu), NMI_VECTOR);
		for (waited = 0; atomic_read(&nmi_expected_cpu) != -1 && waited < NMI_WAIT_MICROSECONDS; waited++)
			udelay(1);
		if (atomic_read(&nmi_expected_cpu) != -1)
			break;
	}
	atomic_set(&nmi_expected_cpu, -1);
	return atomic_read(&nmis_arrived);
}

#endif
