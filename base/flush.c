// SPDX-License-Identifier: MIT
/*
 * Flushing EPT translations on all CPUs (TLB shootdown). A CPU counts as flushed only by its own acknowledgement, or
 * while it waits for a SIPI, since it flushes before it runs host code again. A CPU that does not answer makes the
 * flush fail, never pass.
 */
#include "flush.h"
#include "apic.h"
#include "monitor.h"
#include "spinlock.h"
#include "stop.h"

#define ANSWER_LIMIT_US 1000000 /* a hypervisor below may have run another CPU meanwhile */

/*
 * One flush at a time, so that no CPU has more than one of the monitor's NMIs on its way: two would look like one of the
 * monitor's and one of the host's. A CPU that waits for this lock answers by its NMI handler.
 */
static struct spinlock flush_lock;

/* The latest epoch that every CPU is asked to flush for; grows only, under flush_lock. */
static volatile u64 requested;

void flush_this_cpu(struct cpu *cpu)
{
	/* Read first: what is asked for after this is not covered by the flush below. */
	u64 epoch = __atomic_load_n(&requested, __ATOMIC_SEQ_CST), seen = cpu->flushed;

	invept_all();
	/* The NMI handler may have flushed for a later epoch in between. */
	while (seen < epoch &&
	       !__atomic_compare_exchange_n(&cpu->flushed, &seen, epoch, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

bool flush_take_kick(struct cpu *cpu)
{
	stop_if_asked();
	if (!__atomic_exchange_n(&cpu->kicked, false, __ATOMIC_SEQ_CST))
		return false;
	flush_this_cpu(cpu);
	return true;
}

void flush_park(struct cpu *cpu)
{
	__atomic_store_n(&cpu->parked, true, __ATOMIC_SEQ_CST);
}

void flush_unpark(struct cpu *cpu)
{
	/* In this order: whoever still saw the CPU parked had changed the tables before this flush. */
	__atomic_store_n(&cpu->parked, false, __ATOMIC_SEQ_CST);
	flush_this_cpu(cpu);
}

/*
 * Whether every CPU has flushed for the epoch; with kicks: and no NMI of the monitor's may still arrive somewhere. A CPU
 * that waits for a SIPI counts as flushed, and takes an NMI only afterwards.
 */
static bool all_flushed(u64 epoch, bool with_kicks)
{
	FOR_EACH_CPU (cpu)
		if (cpu->state == HYPERPS_CPU_STATE_IN_VMX && !__atomic_load_n(&cpu->parked, __ATOMIC_SEQ_CST) &&
		    (__atomic_load_n(&cpu->flushed, __ATOMIC_SEQ_CST) < epoch || (with_kicks && cpu->kicked)))
			return false;
	return true;
}

/* Under flush_lock. */
static bool kick_and_wait(const struct cpu *self, u64 epoch)
{
	/* The NMI goes to all, whatever IDs the host gave their APICs; each is to take it for the monitor's own. */
	FOR_EACH_CPU (cpu)
		if (cpu != self && cpu->state == HYPERPS_CPU_STATE_IN_VMX)
			__atomic_store_n(&cpu->kicked, true, __ATOMIC_SEQ_CST);
	apic_send_to_others(APIC_NMI);
	for (u64 i = 0; i < ANSWER_LIMIT_US / 10 && !all_flushed(epoch, true); i++)
		delay_us(10);
	return all_flushed(epoch, false);
}

bool flush_all_cpus(u64 epoch)
{
	struct cpu *self = this_cpu();
	bool done;

	spin_lock(&flush_lock);
	if (requested < epoch)
		__atomic_store_n(&requested, epoch, __ATOMIC_SEQ_CST);
	flush_this_cpu(self);
	done = all_flushed(epoch, false) || kick_and_wait(self, epoch);
	spin_unlock(&flush_lock);
	return done;
}
