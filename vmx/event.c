// SPDX-License-Identifier: MIT
/* Events for the host: exceptions, latched NMIs and machine checks, INIT, SIPI, triple fault; and skipping an instruction. */
#include "core.h"
#include "host.h"
#include "x86.h"

#define PENDING_DEBUG_BS BIT(14)
#define DEBUGCTL_BTF BIT(1)

bool host_is_64bit(void)
{
	return (vmread(VMCS_GUEST_IA32_EFER) & EFER_LMA) && (vmread(VMCS_GUEST_CS_ACCESS_RIGHTS) & ACCESS_RIGHTS_LONG);
}

bool host_is_64bit_ring0(void)
{
	return host_is_64bit() && (vmread(VMCS_GUEST_SS_ACCESS_RIGHTS) >> ACCESS_RIGHTS_DPL_SHIFT & 3) == 0;
}

void host_skip_instruction(void)
{
	u64 from = vmread(VMCS_GUEST_RIP), to = from + vmread(VMCS_EXIT_INSTRUCTION_LENGTH);
	u64 interruptibility = vmread(VMCS_GUEST_INTERRUPTIBILITY);

	/* Outside 64-bit mode RIP wraps at 4 GiB. */
	vmwrite(VMCS_GUEST_RIP, (from ^ to) >> 32 && !host_is_64bit() ? (u32)to : to);
	if (interruptibility & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS))
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY,
			interruptibility & ~(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
	/* Single-stepping over an emulated instruction traps after it, like over any other. */
	if ((vmread(VMCS_GUEST_RFLAGS) & RFLAGS_TF) && !(vmread(VMCS_GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF))
		vmwrite(VMCS_GUEST_PENDING_DEBUG, vmread(VMCS_GUEST_PENDING_DEBUG) | PENDING_DEBUG_BS);
}

static void inject(struct cpu *cpu, u64 information, u64 error_code)
{
	/* An NMI that arrives between here and the end of this block is only latched; one already queued goes back. */
	cpu->injecting = true;
	asm volatile("" ::: "memory");
	if (vmread(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID)
		__atomic_fetch_or(&cpu->latched,
				  (vmread(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR) == VECTOR_NMI
					  ? LATCHED_NMI
					  : LATCHED_MACHINE_CHECK,
				  __ATOMIC_SEQ_CST);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | information);
	vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, error_code);
	asm volatile("" ::: "memory");
	cpu->injecting = false;
}

void host_inject_ud(struct cpu *cpu)
{
	inject(cpu, EVENT_TYPE_EXCEPTION | VECTOR_UD, 0);
}

/* Real mode pushes no error code, and VM entry insists on the right choice ("VM-Entry Event Injection" checks). */
static u64 error_code_if_protected(void)
{
	return vmread(VMCS_GUEST_CR0) & CR0_PE ? EVENT_ERROR_CODE : 0;
}

void host_inject_gp(struct cpu *cpu)
{
	inject(cpu, EVENT_TYPE_EXCEPTION | error_code_if_protected() | VECTOR_GP, 0);
}

void host_inject_df(struct cpu *cpu)
{
	inject(cpu, EVENT_TYPE_EXCEPTION | error_code_if_protected() | VECTOR_DF, 0);
}

void host_deliver_latched(struct cpu *cpu)
{
	if (!(vmread(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID) &&
	    vmread(VMCS_GUEST_ACTIVITY_STATE) != ACTIVITY_WAIT_FOR_SIPI) {
		if (cpu->latched & LATCHED_MACHINE_CHECK) {
			__atomic_fetch_and(&cpu->latched, ~(u32)LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
			vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_MC);
		} else if (cpu->latched & LATCHED_NMI) {
			__atomic_fetch_and(&cpu->latched, ~(u32)LATCHED_NMI, __ATOMIC_SEQ_CST);
			vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
		}
		/* MOV SS and STI block an NMI for one instruction; the entry checks refuse the combination. */
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY,
			vmread(VMCS_GUEST_INTERRUPTIBILITY) & ~(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
	}
	/* No room for what is left: exit again right after the event that goes first. */
	if (cpu->latched && cpu->capabilities.feature[HYPERPS_FEATURE_PREEMPTION_TIMER]) {
		vmwrite(VMCS_PREEMPTION_TIMER, 0);
		vmwrite(VMCS_PIN_CONTROLS, cpu->capabilities.pin | PIN_PREEMPTION_TIMER);
	}
}

void exit_init(struct cpu *cpu, struct guest_registers *regs)
{
	/*
	 * Short, and prints nothing: a SIPI that arrives while the CPU is in VMX root is lost. INIT never takes a CPU out of
	 * VMX, nor to the firmware's reset vector: the boot CPU waits for a SIPI like the others.
	 */
	for (unsigned i = 0; i < ARRAY_SIZE(regs->value); i++)
		regs->value[i] = 0;
	regs->value[REGISTER_RDX] = cpuid(1, 0).eax;
	__atomic_store_n(&cpu->latched, 0, __ATOMIC_SEQ_CST);
	host_load_reset_state(cpu, vmread(VMCS_GUEST_CR0) & (CR0_CD | CR0_NW));
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
}

void exit_sipi(struct cpu *cpu)
{
	u64 vector = vmread(VMCS_EXIT_QUALIFICATION) & 0xff;

	host_load_reset_state(cpu, vmread(VMCS_GUEST_CR0) & (CR0_CD | CR0_NW));
	vmwrite(VMCS_GUEST_CS_SELECTOR, vector << 8);
	vmwrite(VMCS_GUEST_BASE(SEGMENT_CS), vector << 12);
	vmwrite(VMCS_GUEST_RIP, 0);
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
}

void exit_triple_fault(void)
{
	/* On a CPU without a monitor the chipset resets the machine: do that. */
	log_line(LOG_WARNING, "triple fault in the host at %016lx: resetting the machine", vmread(VMCS_GUEST_RIP));
	outb(0xcf9, 0x02);
	outb(0xcf9, 0x06);
	delay_us(50000);
	outb(0x64, 0xfe);
	delay_us(50000);
	panic("the machine did not reset");
}
