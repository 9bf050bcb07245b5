// SPDX-License-Identifier: MIT
/*
 * Events for the host: exceptions, latched NMIs and machine checks, INIT, SIPI, triple fault; and skipping an
 * instruction.
 */
#include "core.h"
#include "host.h"
#include "x86.h"

bool is_64bit(void)
{
	return (vmread(VMCS_GUEST_IA32_EFER) & EFER_LMA) &&
	       (vmread(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) & ACCESS_RIGHTS_LONG);
}

unsigned privilege_level(void)
{
	return vmread(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_SS)) >> ACCESS_RIGHTS_DPL_SHIFT & 3;
}

bool is_64bit_ring0(void)
{
	return is_64bit() && privilege_level() == 0;
}

void skip_instruction(void)
{
	skip_bytes(vmread(VMCS_EXIT_INSTRUCTION_LENGTH));
}

void skip_bytes(u64 bytes)
{
	u64 from = vmread(VMCS_GUEST_RIP), to = from + bytes;
	u64 interruptibility = vmread(VMCS_GUEST_INTERRUPTIBILITY);

	/* Outside 64-bit mode RIP wraps at 4 GiB. */
	vmwrite(VMCS_GUEST_RIP, (from ^ to) >> 32 && !is_64bit() ? (u32)to : to);
	if (interruptibility & INTERRUPTIBILITY_SHADOWS)
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, interruptibility & ~INTERRUPTIBILITY_SHADOWS);
	/* Single-stepping over an emulated instruction traps after it, like over any other. */
	if ((vmread(VMCS_GUEST_RFLAGS) & RFLAGS_TF) && !(vmread(VMCS_GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF))
		vmwrite(VMCS_GUEST_PENDING_DEBUG, vmread(VMCS_GUEST_PENDING_DEBUG) | PENDING_DEBUG_BS);
}

void inject(u64 information)
{
	/* Neither outlives the delivery of an event, and VM entry allows them with few ("Event Injection"). */
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vmread(VMCS_GUEST_INTERRUPTIBILITY) & ~INTERRUPTIBILITY_SHADOWS);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | information);
	vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, 0);
}

void inject_exception(u32 vector)
{
	u32 with_error_code = BIT(VECTOR_DF) | BIT(VECTOR_GP) | BIT(VECTOR_PF) | BIT(VECTOR_AC);

	/* SDM, "Instruction-Breakpoint Exception Condition": the flags that a fault saves have RF set; not by VM entry. */
	vmwrite(VMCS_GUEST_RFLAGS, vmread(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
	/* Real mode pushes none, and VM entry insists on the right choice ("VM-Entry Event Injection" checks). */
	if ((BIT(vector) & with_error_code) && (vmread(VMCS_GUEST_CR0) & CR0_PE))
		vector |= EVENT_ERROR_CODE;
	inject(EVENT_TYPE_EXCEPTION | vector);
}

/* SDM, "Interrupt 8 - Double Fault Exception": a #GP while one of these is delivered becomes a double fault. */
#define CONTRIBUTORY_VECTORS (BIT(0) | BIT(VECTOR_DF) | BIT(10) | BIT(11) | BIT(12) | BIT(VECTOR_GP) | BIT(VECTOR_PF))

bool inject_gp_during(u64 vectoring)
{
	if (!(vectoring & EVENT_VALID) || (vectoring & EVENT_TYPE) != EVENT_TYPE_EXCEPTION ||
	    !(CONTRIBUTORY_VECTORS & BIT(vectoring & 31)))
		inject_exception(VECTOR_GP);
	else if ((vectoring & EVENT_VECTOR) == VECTOR_DF)
		return false;
	else
		inject_exception(VECTOR_DF);
	return true;
}

static bool take_latched(struct cpu *cpu, u32 event)
{
	return __atomic_fetch_and(&cpu->latched, ~event, __ATOMIC_SEQ_CST) & event;
}

/* What shuts a CPU down: without a monitor the chipset resets the machine then. */
static void end_machine(const char *why)
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

void latch_exit(struct cpu *cpu)
{
	bool is_machine_check = (vmread(VMCS_EXIT_INTERRUPTION_INFO) & EVENT_VECTOR) == VECTOR_MC;

	if (is_machine_check || !flush_take_kick(cpu))
		__atomic_fetch_or(&cpu->latched, is_machine_check ? LATCHED_MACHINE_CHECK : LATCHED_NMI,
				  __ATOMIC_SEQ_CST);
}

/* NMIs and machine checks. */
void exit_exception_or_nmi(struct guest_registers *regs)
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

void exit_nmi_window(struct guest_registers *regs)
{
	(void)regs;
	/* Before exit_dispatch() looks at `latched`: an NMI after this sets the control again. */
	vmwrite(VMCS_PRIMARY_CONTROLS, this_cpu()->capabilities.primary);
}

void exit_init(struct guest_registers *regs)
{
	/*
	 * Short, and prints nothing: a SIPI that arrives while the CPU is in VMX root is lost. The rest of the reset
	 * state is loaded at the SIPI. INIT never takes a CPU out of VMX, nor to the firmware's reset vector: the boot
	 * CPU waits for a SIPI like the others.
	 */
	for (unsigned i = 0; i < ARRAY_SIZE(regs->value); i++)
		regs->value[i] = 0;
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	flush_park(this_cpu());
}

void exit_sipi(struct guest_registers *regs)
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

void exit_triple_fault(struct guest_registers *regs)
{
	(void)regs;
	end_machine("triple fault");
}
