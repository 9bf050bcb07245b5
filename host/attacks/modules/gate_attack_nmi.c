// SPDX-License-Identifier: GPL-2.0
/*
 * NMIs at a CPU that goes through the gate again and again without loading its own CR3 in between, as no honest kernel
 * does: each must arrive, and the CPU must not stop.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <asm/nmi.h>
#include <asm/special_insns.h>

#include "calls.h"
#include "compat.h"
#include "gate_attack.h"
#include "tap.h"

#define NMIS 300
#define CALLS 2000 /* in one attempt */
#define LATE_MICROSECONDS 5000

static atomic_t arrived;
static unsigned int sent, late;
static int target;
static bool finished, rescue;

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	if (raw_smp_processor_id() != target)
		return NMI_DONE;
	atomic_inc(&arrived);
	/* In case the CPU goes round between the monitor and the gate: that waits for a load of CR3. */
	if (READ_ONCE(rescue))
		native_write_cr3(__native_read_cr3());
	return NMI_HANDLED;
}

static void send(void)
{
	unsigned long flags;

	local_irq_save(flags);
	apic->icr_write(APIC_DM_NMI, per_cpu(x86_cpu_to_apicid, target));
	local_irq_restore(flags);
}

static int send_all(void *unused)
{
	int waited;

	for (sent = 0; sent < NMIS; sent++) {
		int before = atomic_read(&arrived);

		ndelay(sent * 7 % 1009);
		send();
		for (waited = 0; atomic_read(&arrived) == before && waited < LATE_MICROSECONDS; waited++)
			udelay(1);
		if (atomic_read(&arrived) == before) {
			late++;
			WRITE_ONCE(rescue, true);
			send();
			for (waited = 0; atomic_read(&arrived) == before && waited < LATE_MICROSECONDS; waited++)
				udelay(1);
			WRITE_ONCE(rescue, false);
		}
	}
	WRITE_ONCE(finished, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

void attack_latched(struct seq_file *out)
{
	/* dec %r12d; jz to the jump that ends the attempt; jmp to the retry offset. */
	static const u8 again[] = { 0x41, 0xff, 0xcc, 0x74, 0x05, 0xe9, 0, 0, 0, 0 };
	s32 distance = HYPERPS_GATE_RETRY - (HYPERPS_GATE_RETURN + (int)sizeof(again));
	int cpu = cpumask_last(cpu_online_mask);
	struct task_struct *task;
	unsigned int wrong = 0, attempts = 0;

	target = raw_smp_processor_id();
	if (cpu == target) {
		tap_check(out, true, "NMIs at calls without a load of CR3 # SKIP there is one CPU only");
		return;
	}
	task = kthread_create(send_all, NULL, "gate_attack");
	if (IS_ERR(task) || register_nmi_handler(NMI_LOCAL, on_nmi, 0, "gate_attack")) {
		tap_check(out, false, "a thread and an NMI handler");
		return;
	}
	kthread_bind(task, cpu);
	wake_up_process(task);
	while (!READ_ONCE(finished)) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		memmove(rig.page + HYPERPS_GATE_RETURN + sizeof(again), rig.page + HYPERPS_GATE_RETURN, 16);
		memcpy(rig.page + HYPERPS_GATE_RETURN, again, sizeof(again));
		memcpy(rig.page + HYPERPS_GATE_RETURN + 6, &distance, sizeof(distance));
		gate_attempt.registers[R12] = CALLS;
		rig_run();
		/* The last of the calls was one of number 0. */
		wrong += gate_attempt.vector != CAME_BACK || gate_attempt.status != (u64)HYPERPS_ERROR_USE_VMCALL;
		attempts++;
		cond_resched();
	}
	kthread_stop(task);
	unregister_nmi_handler(NMI_LOCAL, "gate_attack");
	tap_check(out, attempts && !wrong, "%u times %d calls without a load of CR3 between them (%u wrong)", attempts,
		  CALLS, wrong);
	/* In another hypervisor both CPUs may take turns on one: then an NMI waits for the other's turn. */
	tap_check(out, late <= (boot_cpu_has(X86_FEATURE_HYPERVISOR) ? sent / 10 : 0),
		  "NMIs meanwhile arrive in time (%u sent, %d arrived, %u late)", sent, atomic_read(&arrived), late);
	tap_check(out, rig_call() == CALLED, "the gate works as before");
}
