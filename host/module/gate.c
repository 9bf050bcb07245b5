// SPDX-License-Identifier: GPL-2.0
/* Switching the monitor's gate on and off, CPU by CPU. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuhotplug.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/string.h>
#include <asm/io.h>
#include <asm/processor.h>
#include <asm/special_insns.h>

#include "gate.h"
#include "vmcall.h"

#define TRIES 128
#define TOP_ENTRIES 512

extern const char hyperps_gate_page[];

static u64 gate_cr3;
u64 hyperps_cr3_bits;
static struct page *top;
static enum cpuhp_state hotplug_state;

u64 hyperps_gate_cr3(void)
{
	return READ_ONCE(gate_cr3);
}

long hyperps_gate_call(u64 number, const u64 argument[4], u64 *value)
{
	struct gate_result result = { .status = -EOPNOTSUPP };
	u64 cr3;

	/* hyperps_gate_stop() waits for this. */
	preempt_disable();
	cr3 = hyperps_gate_cr3();
	if (cr3)
		result = hyperps_gate_enter(argument[0], argument[1], argument[2], cr3, argument[3], number);
	preempt_enable();
	*value = result.value;
	return result.status;
}

static long set_gate(u64 linear, u64 *cr3)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { linear, page_to_phys(top) };
	u64 result[HYPERPS_RESULTS];
	long error = hyperps_vmcall(HYPERPS_CALL_GATE_SET, argument, result);

	*cr3 = result[0];
	return error;
}

/* A CPU on which that fails uses VMCALL: its VMFUNC faults. */
static int gate_online(unsigned int cpu)
{
	u64 cr3;

	set_gate((unsigned long)hyperps_gate_page, &cr3);
	return 0;
}

static int gate_offline(unsigned int cpu)
{
	u64 cr3;

	set_gate(0, &cr3);
	return 0;
}

/*
 * The top-level table while the gate's CR3 is loaded: this kernel's half of the address space, as every process has it,
 * so that an NMI finds all it needs. Its address becomes a part of the monitor's code, which not every one is fit for.
 * Bit 12 clear: with page-table isolation a set bit would mean a user's table. The upper page of the two is the list of
 * those that were refused.
 */
static long find_top(u64 *cr3)
{
	struct page *refused = NULL;
	long error = -EAGAIN;
	int i;

	for (i = 0; i < TRIES && error == -EAGAIN; i++) {
		/* If none of the highest will do, because of an address byte that they share: from the lowest 16 MiB. */
		top = alloc_pages(GFP_KERNEL | (i < TRIES / 2 ? GFP_DMA32 : GFP_DMA) | __GFP_ZERO, 1);
		if (!top) {
			error = -ENOMEM;
			break;
		}
		memcpy((u64 *)page_address(top) + TOP_ENTRIES / 2, (u64 *)__va(read_cr3_pa()) + TOP_ENTRIES / 2,
		       TOP_ENTRIES / 2 * sizeof(u64));
		/* With page-table isolation this entry is the process's own. */
		((u64 *)page_address(top))[pgd_index(LDT_BASE_ADDR)] = 0;
		error = set_gate((unsigned long)hyperps_gate_page, cr3);
		if (error) {
			set_page_private(top, (unsigned long)refused);
			refused = top;
			top = NULL;
		}
	}
	while (refused) {
		struct page *next = (struct page *)page_private(refused);

		set_page_private(refused, 0);
		__free_pages(refused, 1);
		refused = next;
	}
	return error;
}

int hyperps_gate_start(void)
{
	u64 cr3;
	long error = gate_cr3 ? -EBUSY : find_top(&cr3);

	if (error)
		return error;
	hyperps_cr3_bits = cpu_feature_enabled(X86_FEATURE_PCID) && (__read_cr4() & X86_CR4_PCIDE) ? BIT_ULL(63) : 0;
	error = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "hyperps:gate", gate_online, gate_offline);
	if (error < 0) {
		gate_offline(0);
		__free_pages(top, 1);
		return error;
	}
	hotplug_state = error;
	WRITE_ONCE(gate_cr3, cr3);
	return 0;
}

void hyperps_gate_stop(void)
{
	if (!gate_cr3)
		return;
	WRITE_ONCE(gate_cr3, 0);
	synchronize_rcu();
	cpuhp_remove_state(hotplug_state);
	__free_pages(top, 1);
}
