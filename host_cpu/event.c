// SPDX-License-Identifier: MIT
/* Events for the host: latched NMIs and machine checks, INIT, SIPI, triple fault. */
#include "emulate.h"
#include "event.h"
#include "flush.h"
#include "host_cpu.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"

void end_machine(const char *why)
{
	log_line(LOG_WARNING, "%s in the host at %016lx: resetting the machine", why, vmread(VMCS_GUEST_RIP));
	clear_memory(why);
	reset_machine();
}

/*
 * NMIs exit, and the host's blocking of them is the virtual one, so they are latched and injected at one place only:
 * here. A machine check goes first, a waiting debug trap before an NMI, which would make it vanish. What finds no room, or
 * comes while this runs, waits for the NMI-window exit.
 */
void host_deliver_latched(struct cpu *cpu)
{
	u64 interruptibility = vmread(VMCS_GUEST_INTERRUPTIBILITY);

	if (vmread(VMCS_GUEST_ACTIVITY_STATE) == ACTIVITY_WAIT_FOR_SIPI)
		return;
	if (!(vmread(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID)) {
		if (take_latched(cpu, LATCHED_MACHINE_CHECK)) {
			if (!(vmread(VMCS_CR4_READ_SHADOW) & CR4_MCE))
				end_machine("machine check without CR4.MCE");
			inject(EVENT_TYPE_EXCEPTION | VECTOR_MC);
		} else if (!(interruptibility & (INTERRUPTIBILITY_NMI | INTERRUPTIBILITY_MOV_SS)) &&
			   !(vmread(VMCS_GUEST_PENDING_DEBUG) & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS)) &&
			   take_latched(cpu, LATCHED_NMI)) {
			inject(EVENT_TYPE_NMI | VECTOR_NMI);
		}
	}
	if (cpu->latched)
		vmwrite(VMCS_PRIMARY_CONTROLS, cpu->capabilities.primary | PRIMARY_NMI_WINDOW_EXITING);
}

/* NMIs and machine checks. */
void exit_exception_or_nmi(struct registers *regs)
{
	struct cpu *cpu = this_cpu();
	u64 vectoring = vmread(VMCS_IDT_VECTORING_INFO);

	(void)regs;
	latch_exit(cpu);
	/* A machine check can break off the delivery of an interrupt or NMI, which counts as delivered. */
	if ((vectoring & EVENT_VALID) && (vectoring & EVENT_TYPE) == EVENT_TYPE_EXTERNAL) {
		inject(vectoring & EVENT_VECTOR);
	} else if ((vectoring & EVENT_VALID) && (vectoring & EVENT_TYPE) == EVENT_TYPE_NMI) {
		__atomic_fetch_or(&cpu->latched, LATCHED_NMI, __ATOMIC_SEQ_CST);
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vmread(VMCS_GUEST_INTERRUPTIBILITY) & ~INTERRUPTIBILITY_NMI);
	}
}

void exit_nmi_window(struct registers *regs)
{
	(void)regs;
	/* Before exit_dispatch() looks at `latched`: an NMI after this sets the control again. */
	vmwrite(VMCS_PRIMARY_CONTROLS, this_cpu()->capabilities.primary);
}

void exit_init(struct registers *regs)
{
	/*
	 * Short, and prints nothing: a SIPI that arrives while the CPU is in VMX root is lost. The rest of the reset
	 * state is loaded at the SIPI. INIT never takes a CPU out of VMX, nor to the firmware's reset vector: the boot
	 * CPU waits for a SIPI like the others.
	 */
	if (this_cpu()->nested)
		nested_reset(this_cpu());
	for (unsigned i = 0; i < ARRAY_SIZE(regs->value); i++)
		regs->value[i] = 0;
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	flush_park(this_cpu());
}

void exit_sipi(struct registers *regs)
{
	struct cpu *cpu = this_cpu();
	u64 vector = vmread(VMCS_EXIT_QUALIFICATION) & 0xff;

	flush_unpark(cpu);
	if (cpu->gate.on)
		gate_off(cpu);
	/* NMIs of the time before belong to nobody. */
	__atomic_store_n(&cpu->latched, 0, __ATOMIC_SEQ_CST);
	regs->value[REGISTER_RDX] = cpuid(1, 0).eax;
	host_load_sipi_state(vector, vmread(VMCS_CR0_READ_SHADOW) & (CR0_CD | CR0_NW));
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
}

void exit_triple_fault(struct registers *regs)
{
	(void)regs;
	end_machine("triple fault");
}
