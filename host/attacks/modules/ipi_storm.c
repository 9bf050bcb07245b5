// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupts that race with the monitor on CPU 1: NMIs sent without waiting for the one before, and INIT, NMI and SIPI
 * at every distance. The CPU must come out alive, and the monitor without a panic. Nothing here is particular to
 * HyperPS.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/smp.h>
#include <asm/nmi.h>

#include "compat.h"
#include "calls.h"
#include "tap.h"

#define NMIS 8000
#define INIT_ROUNDS 3000
/* Below 1 MiB, where Linux keeps nothing but its own start-up code (further up). */
#define REAL_MODE_PAGE 0x50000
#define NMI_VECTOR_ENTRY (2 * 4)

static atomic_t arrived;
static unsigned long progress;

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	atomic_inc(&arrived);
	return NMI_HANDLED;
}

static int execute_cpuid(void *unused)
{
	while (!kthread_should_stop()) {
		int i;

		for (i = 0; i < 1000; i++)
			cpuid_eax(1);
		WRITE_ONCE(progress, progress + 1);
		cond_resched();
	}
	return 0;
}

static void execute_nops(int count)
{
	while (count--)
		asm volatile("nop");
}

static void send(u32 command, int apic_id)
{
	unsigned long flags;

	local_irq_save(flags);
	apic->icr_write(command, apic_id);
	local_irq_restore(flags);
}

static bool makes_progress(void)
{
	unsigned long before = READ_ONCE(progress);
	int waited;

	for (waited = 0; waited < 2000 && READ_ONCE(progress) == before; waited++)
		mdelay(1);
	return READ_ONCE(progress) != before;
}

static void check_nmis(struct seq_file *out, int apic_id)
{
	struct task_struct *task = kthread_create(execute_cpuid, NULL, "ipi_storm");
	bool alive = true;
	int i;

	if (IS_ERR(task) || register_nmi_handler(NMI_LOCAL, on_nmi, 0, "ipi_storm")) {
		tap_check(out, false, "starting a thread and registering an NMI handler");
		return;
	}
	kthread_bind(task, 1);
	wake_up_process(task);
	msleep(20);
	for (i = 0; i < NMIS && alive; i++) {
		send(APIC_DM_NMI, apic_id);
		execute_nops(i * 7 % 97);
		if (i % 1000 == 999)
			alive = makes_progress();
	}
	tap_check(out, alive, "CPU 1 survives NMIs that do not wait for each other (%d sent, %d arrived)", i,
		  atomic_read(&arrived));
	/* A dead CPU never stops its thread. */
	if (alive)
		kthread_stop(task);
	unregister_nmi_handler(NMI_LOCAL, "ipi_storm");
}

static void check_init(struct seq_file *out, int apic_id)
{
	u8 *page = memremap(REAL_MODE_PAGE, PAGE_SIZE, MEMREMAP_WB), *vectors = memremap(0, PAGE_SIZE, MEMREMAP_WB);
	u32 old_code, old_vector;
	int i, error;

	if (!page || !vectors || remove_cpu(1)) {
		tap_check(out, false, "mapping low memory and taking CPU 1 offline");
		return;
	}
	memcpy(&old_code, page, sizeof(old_code));
	memcpy(&old_vector, vectors + NMI_VECTOR_ENTRY, sizeof(old_vector));
	page[0] = 0xeb; /* jmp $ */
	page[1] = 0xfe;
	*(u32 *)(vectors + NMI_VECTOR_ENTRY) = REAL_MODE_PAGE >> 4 << 16;
	mdelay(20);
	for (i = 0; i < INIT_ROUNDS; i++) {
		send(APIC_DM_INIT | APIC_INT_ASSERT, apic_id);
		execute_nops(i % 701);
		send(APIC_DM_NMI, apic_id);
		execute_nops(800);
		send(APIC_DM_STARTUP | REAL_MODE_PAGE >> 12, apic_id);
		execute_nops(1500);
	}
	memcpy(vectors + NMI_VECTOR_ENTRY, &old_vector, sizeof(old_vector));
	error = start_cpu(1);
	memcpy(page, &old_code, sizeof(old_code));
	memunmap(page);
	memunmap(vectors);
	tap_check(out, !error && cpu_online(1), "CPU 1 comes back after %d races of INIT, NMI and SIPI (error %d)", i,
		  error);
}

static int show_storm(struct seq_file *out, void *unused)
{
	int apic_id;

	if (num_online_cpus() < 2) {
		tap_check(out, true, "storms of NMI, INIT and SIPI # SKIP there is one CPU only");
		return 0;
	}
	apic_id = per_cpu(x86_cpu_to_apicid, 1);
	check_nmis(out, apic_id);
	check_init(out, apic_id);
	return 0;
}

TAP_MODULE("ipi_storm", show_storm, "Races interrupts with the monitor");
