// SPDX-License-Identifier: MIT
/* The gate on this CPU: VM functions on and off, and exits while the CPU is in it. Every rule here is one of docs/gate.md. */
#include "emulate.h"
#include "event.h"
#include "flush.h"
#include "gate_view.h"
#include "host_cpu.h"
#include "monitor.h"
#include "stop.h"
#include "vmcs.h"

/* What must be set while VM functions are on; a write that clears one switches them off. */
#define CR0_NEEDED (CR0_PE | CR0_PG | CR0_WP)
#define CR4_NEEDED (CR4_PAE | CR4_SMEP | CR4_SMAP)
#define EFER_NEEDED (EFER_LME | EFER_LMA | EFER_NXE)

static bool paging_is_fit(void)
{
	return !(vmread(VMCS_GUEST_IA32_DEBUGCTL) & GATE_DEBUGCTL_REFUSED) &&
	       (vmread(VMCS_GUEST_CR0) & CR0_NEEDED) == CR0_NEEDED &&
	       (vmread(VMCS_GUEST_CR4) & CR4_NEEDED) == CR4_NEEDED &&
	       (vmread(VMCS_GUEST_IA32_EFER) & EFER_NEEDED) == EFER_NEEDED;
}

static void pin(vmcs_field_t mask, vmcs_field_t shadow, u64 owned, u64 bits, u64 value)
{
	vmwrite(mask, owned | bits);
	vmwrite(shadow, (vmread(shadow) & ~bits) | (value & bits));
}

static void switch_on(struct cpu *cpu)
{
	pin(VMCS_CR0_MASK, VMCS_CR0_READ_SHADOW, CR0_OWNED, CR0_NEEDED, vmread(VMCS_GUEST_CR0));
	pin(VMCS_CR4_MASK, VMCS_CR4_READ_SHADOW, CR4_OWNED, CR4_NEEDED | CR4_LA57, vmread(VMCS_GUEST_CR4));
	vmwrite(VMCS_EPTP_LIST_ADDRESS, hpa_of(cpu_area_of(cpu)->gate.list).value);
	vmwrite(VMCS_VM_FUNCTION_CONTROLS, VM_FUNCTION_EPTP_SWITCHING);
	cpu->gate.on = true;
	vmcs_write_secondary(cpu);
}

void gate_off(struct cpu *cpu)
{
	cpu->gate.on = false;
	vmcs_write_secondary(cpu);
	vmwrite(VMCS_CR0_MASK, CR0_OWNED);
	vmwrite(VMCS_CR4_MASK, CR4_OWNED);
}

void gate_check(struct cpu *cpu)
{
	if (cpu->gate.on && (!paging_is_fit() || (vmread(VMCS_GUEST_CR4) & CR4_LA57) != cpu->gate.la57))
		gate_off(cpu);
}

bool gate_needs(const struct cpu *cpu, unsigned number, u64 value)
{
	if (!cpu->gate.on)
		return false;
	if (number == 0)
		return (value & CR0_NEEDED) != CR0_NEEDED;
	return ((value ^ vmread(VMCS_GUEST_CR4)) & (CR4_NEEDED | CR4_LA57)) != 0;
}

s64 gate_set(struct cpu *cpu, u64 linear, u64 top, u64 *cr3)
{
	unsigned levels = vmread(VMCS_GUEST_CR4) & CR4_LA57 ? 5 : 4;

	if (cpu->gate.on)
		gate_off(cpu);
	cpu->gate.top = 0;
	if (!linear)
		return HYPERPS_OK;
	if (gate_state != HYPERPS_GATE_OFFERED || !monitor.other_cpus_taken || !cpu->capabilities.gate ||
	    !paging_is_fit())
		return HYPERPS_ERROR_PERMISSION;
	if (!gate_views_fit(linear, top, levels))
		return HYPERPS_ERROR_INVALID;

	*cr3 = gate_views_build(cpu, linear, top, levels);
	/* The tables at these addresses may have been others before. */
	flush_this_cpu(cpu);
	if (cpu->capabilities.secondary & SECONDARY_VPID)
		invvpid_all();
	/* Last, on what is in memory now. */
	if (!gate_views_are_safe(cpu, *cr3))
		return HYPERPS_ERROR_AGAIN;
	cpu->gate.top = top;
	cpu->gate.la57 = vmread(VMCS_GUEST_CR4) & CR4_LA57;
	switch_on(cpu);
	return HYPERPS_OK;
}

/*
 * In the monitor view, between a call's first instruction and its last: what arrives waits until the host has its own
 * CR3 back, that is, until it next loads CR3. That exits even if nothing waits: a machine check may come meanwhile.
 */
void gate_wait_for_cr3(const struct cpu *cpu)
{
	vmwrite(VMCS_PRIMARY_CONTROLS, cpu->capabilities.primary | PRIMARY_CR3_LOAD_EXITING);
}

static void latch_in_monitor_view(struct cpu *cpu, u32 reason)
{
	if (reason == EXIT_INIT)
		__atomic_fetch_or(&cpu->latched, LATCHED_INIT, __ATOMIC_SEQ_CST);
	else if (reason == EXIT_EXCEPTION_OR_NMI)
		latch_exit(cpu);
	else if (reason != EXIT_NMI_WINDOW)
		panic("VM exit %u in the monitor view", reason);
	gate_wait_for_cr3(cpu);
}

bool gate_exit(struct cpu *cpu, u32 reason)
{
	u64 eptp = vmread(VMCS_EPTP), rip, vectoring;
	bool on_gate_page;

	if (eptp == cpu->gate.monitor_eptp) {
		latch_in_monitor_view(cpu, reason);
		return true;
	}
	/* The airlock: nothing has happened yet that could not happen again. */
	gate_reset_list(cpu);
	vmwrite(VMCS_EPTP, monitor.host_eptp);
	/* Outside 64-bit mode a fetch wraps at 4 GiB, and VM entry refuses what lies above. */
	rip = is_64bit() ? vmread(VMCS_GUEST_RIP) : (u32)vmread(VMCS_GUEST_RIP);
	on_gate_page = rip - cpu->gate.linear < PAGE_SIZE;
	if (reason == EXIT_EXCEPTION_OR_NMI || reason == EXIT_NMI_WINDOW || reason == EXIT_INIT ||
	    reason == EXIT_CR_ACCESS) {
		vmwrite(VMCS_GUEST_RIP, on_gate_page ? cpu->gate.linear + HYPERPS_GATE_RETRY : rip);
		return false;
	}
	log_refusal(REFUSED_GATE, "gate entered in a wrong way: exit reason %u at %016lx", reason, rip);
	vectoring = vmread(VMCS_IDT_VECTORING_INFO);
	if ((vectoring & EVENT_VALID) && (vectoring & EVENT_TYPE) == EVENT_TYPE_EXTERNAL) {
		inject(vectoring & EVENT_VECTOR);
		return true;
	}
	/* At the VMFUNC, where it is known: elsewhere than on the gate page nothing was executed after it. */
	if (!on_gate_page)
		rip = is_64bit() ? rip - 3 : (u32)(rip - 3);
	vmwrite(VMCS_GUEST_RIP, rip);
	inject_exception(VECTOR_UD);
	return true;
}
