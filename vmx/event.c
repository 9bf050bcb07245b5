// SPDX-License-Identifier: MIT
#include "event.h"
#include "flush.h"

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

void inject(u64 information)
{
	/* Neither outlives the delivery of an event, and VM entry allows them with few ("Event Injection"). */
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vmread(VMCS_GUEST_INTERRUPTIBILITY) & ~INTERRUPTIBILITY_SHADOWS);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_VALID | information);
	vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, 0);
}

void inject_exception(u32 vector)
{
	u32 with_error_code = BIT(VECTOR_DF) | BIT(VECTOR_SS) | BIT(VECTOR_GP) | BIT(VECTOR_PF) | BIT(VECTOR_AC);

	/* SDM, "Instruction-Breakpoint Exception Condition": the flags that a fault saves have RF set; not by VM entry. */
	vmwrite(VMCS_GUEST_RFLAGS, vmread(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
	/* Real mode pushes none, and VM entry insists on the right choice ("VM-Entry Event Injection" checks). */
	if ((BIT(vector) & with_error_code) && (vmread(VMCS_GUEST_CR0) & CR0_PE))
		vector |= EVENT_ERROR_CODE;
	inject(EVENT_TYPE_EXCEPTION | vector);
}

/* Exit qualification of a debug exception. */
#define DEBUG_CAUSES (0xfULL | BIT(13) | BIT(14))
#define DR6_BREAKPOINTS 0xfULL
#define DR7_GD BIT(13)

bool reflect_exception(void)
{
	u64 information = vmread(VMCS_EXIT_INTERRUPTION_INFO), type = information & EVENT_TYPE;

	switch (information & EVENT_VECTOR) {
	case VECTOR_DB:
		/* An INT1 is no debug exception. Else the exit has changed neither DR6 nor DR7 ("Debug Exceptions"). */
		if (type >= EVENT_TYPE_SOFTWARE) {
			vmwrite(VMCS_ENTRY_INSTRUCTION_LENGTH, vmread(VMCS_EXIT_INSTRUCTION_LENGTH));
		} else {
			WRITE_REGISTER(dr6, (READ_REGISTER(dr6) & ~DR6_BREAKPOINTS) |
						    (vmread(VMCS_EXIT_QUALIFICATION) & DEBUG_CAUSES));
			vmwrite(VMCS_GUEST_DR7, vmread(VMCS_GUEST_DR7) & ~DR7_GD);
		}
		inject(type | VECTOR_DB);
		return true;
	case VECTOR_AC:
		inject_exception(VECTOR_AC);
		return true;
	}
	return false;
}

/* SDM, "Interrupt 8 - Double Fault Exception": a #GP while one of these is delivered becomes a double fault. */
#define CONTRIBUTORY_VECTORS                                                                                           \
	(BIT(0) | BIT(VECTOR_DF) | BIT(10) | BIT(11) | BIT(VECTOR_SS) | BIT(VECTOR_GP) | BIT(VECTOR_PF))

void deliver_again(void)
{
	u64 vectoring = vmread(VMCS_IDT_VECTORING_INFO), type = vectoring & EVENT_TYPE;

	/* VM entry leaves no event behind. */
	if (!(vectoring & EVENT_VALID))
		return;
	if (type == EVENT_TYPE_NMI)
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vmread(VMCS_GUEST_INTERRUPTIBILITY) & ~INTERRUPTIBILITY_NMI);
	if (type >= EVENT_TYPE_SOFTWARE)
		vmwrite(VMCS_ENTRY_INSTRUCTION_LENGTH, vmread(VMCS_EXIT_INSTRUCTION_LENGTH));
	vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, vmread(VMCS_IDT_VECTORING_ERROR_CODE));
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, vectoring & (EVENT_VALID | EVENT_TYPE | EVENT_ERROR_CODE | EVENT_VECTOR));
}

void block_nmi_again(u64 qualification, u64 vectoring)
{
	if (!(vectoring & EVENT_VALID) && (qualification & EPT_VIOLATION_NMI_UNBLOCKED))
		vmwrite(VMCS_GUEST_INTERRUPTIBILITY, vmread(VMCS_GUEST_INTERRUPTIBILITY) | INTERRUPTIBILITY_NMI);
}

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

bool take_latched(struct cpu *cpu, u32 event)
{
	return __atomic_fetch_and(&cpu->latched, ~event, __ATOMIC_SEQ_CST) & event;
}

void latch_exit(struct cpu *cpu)
{
	bool is_machine_check = (vmread(VMCS_EXIT_INTERRUPTION_INFO) & EVENT_VECTOR) == VECTOR_MC;

	if (is_machine_check || !flush_take_kick(cpu))
		__atomic_fetch_or(&cpu->latched, is_machine_check ? LATCHED_MACHINE_CHECK : LATCHED_NMI,
				  __ATOMIC_SEQ_CST);
	/*
	 * The VM entry ends the blocking that the exit has begun, says the SDM; but KVM keeps it for all later stays in root,
	 * and a CPU that waits there for flush_lock would never answer the one that has it.
	 */
	if (!is_machine_check)
		unblock_nmi();
}
