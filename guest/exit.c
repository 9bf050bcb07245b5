// SPDX-License-Identifier: MIT
/* VM exits of guests, by reason. What is not the host's to handle is decided here, by the tables of policy.c. */
#include "emulate.h"
#include "event.h"
#include "manager.h"
#include "monitor.h"
#include "policy.h"
#include "vcpu.h"

#define APIC_BASE_RESET 0xfee00000ULL
#define MISC_ENABLE_FAST_STRINGS 1

static u64 *cr_register(struct vcpu *vcpu, u64 number)
{
	vcpu->regs.value[REGISTER_RSP] = vmread(VMCS_GUEST_RSP);
	return &vcpu->regs.value[number];
}

static void exit_cpuid_of_guest(struct vcpu *vcpu)
{
	u64 *regs = vcpu->regs.value;
	struct cpuid_result r = cpuid((u32)regs[REGISTER_RAX], (u32)regs[REGISTER_RCX]);
	const struct guest_cpuid_state state = { .cr4 = vmread(VMCS_GUEST_CR4),
						 .xcr0_supported = guest_xcr0,
						 .xsave_bytes = guest_xsave_bytes,
						 .index = vcpu->index,
						 .vcpus = vcpu->vm->vcpus };

	guest_cpuid((u32)regs[REGISTER_RAX], (u32)regs[REGISTER_RCX], &state, &r);
	regs[REGISTER_RAX] = r.eax;
	regs[REGISTER_RBX] = r.ebx;
	regs[REGISTER_RCX] = r.ecx;
	regs[REGISTER_RDX] = r.edx;
	skip_instruction();
}

static bool read_msr(struct vcpu *vcpu, u32 msr, u64 *value)
{
	switch (msr) {
	case MSR_IA32_TSC_ADJUST:
		*value = vcpu->tsc_adjust;
		return true;
	case MSR_IA32_APIC_BASE: /* not enabled: there is none */
		*value = APIC_BASE_RESET | (vcpu->index ? 0 : APIC_BASE_BSP);
		return true;
	case MSR_IA32_MISC_ENABLE:
		*value = MISC_ENABLE_FAST_STRINGS;
		return true;
	case MSR_IA32_BIOS_SIGN_ID:
	case MSR_IA32_DEBUGCTL:
		*value = 0;
		return true;
	}
	return false;
}

static bool write_msr(struct vcpu *vcpu, u32 msr, u64 value)
{
	u64 moved, now = monitor_time() + vcpu->tsc_offset;

	switch (msr) {
	case MSR_IA32_TSC:
	case MSR_IA32_TSC_ADJUST:
		moved = msr == MSR_IA32_TSC ? value - now : value - vcpu->tsc_adjust;
		vcpu->tsc_adjust += moved;
		vcpu->tsc_offset += moved;
		vmwrite(VMCS_TSC_OFFSET, vmread(VMCS_TSC_OFFSET) + moved);
		return true;
	case MSR_IA32_APIC_BASE:
	case MSR_IA32_BIOS_SIGN_ID:
		return true;
	case MSR_IA32_DEBUGCTL:
		return !value;
	}
	return false;
}

static void exit_msr(struct vcpu *vcpu, bool write)
{
	u64 *regs = vcpu->regs.value, value = edx_eax(&vcpu->regs);
	u32 msr = (u32)regs[REGISTER_RCX];

	if (write ? guest_msr_access(msr, true) == MSR_HANDLE && write_msr(vcpu, msr, value)
		  : guest_msr_access(msr, false) == MSR_HANDLE && read_msr(vcpu, msr, &value)) {
		if (!write) {
			regs[REGISTER_RAX] = (u32)value;
			regs[REGISTER_RDX] = value >> 32;
		}
		skip_instruction();
	} else {
		inject_exception(VECTOR_GP);
	}
}

/* MOV CR8 stays here: there is no APIC. Of CR0 and CR4 the bits exit that the monitor owns (exit_cr_access()). */
static void exit_cr(struct vcpu *vcpu)
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), number = CR_NUMBER(qualification);
	u64 *reg = cr_register(vcpu, CR_REGISTER(qualification)), value = is_64bit() ? *reg : (u32)*reg;

	if (number == 8 && CR_ACCESS_TYPE(qualification) == 1) {
		*reg = vcpu->cr8;
		vmwrite(VMCS_GUEST_RSP, vcpu->regs.value[REGISTER_RSP]);
		skip_instruction();
	} else if (number == 8 && *reg <= 15) {
		vcpu->cr8 = *reg;
		skip_instruction();
	} else if (number == 4 && !CR_ACCESS_TYPE(qualification) && !(value & vmread(VMCS_CR4_MASK) & ~CR4_MCE)) {
		/* As cr0_follow(): the guest sees what it wrote, and executes the instruction again. */
		vmwrite(VMCS_CR4_READ_SHADOW, value & CR4_MCE);
	} else if (number == 0 && !CR_ACCESS_TYPE(qualification) && (!(*reg & CR0_NW) || (*reg & CR0_CD))) {
		cr0_follow(*reg);
	} else {
		inject_exception(VECTOR_GP);
	}
}

static enum next guest_io(struct vcpu *vcpu, u64 words[8])
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), bytes = IO_BYTES(qualification);

	/* INS and OUTS: no device that a guest has is driven by them. */
	if (qualification & IO_STRING) {
		inject_exception(VECTOR_GP);
		return RESUME_GUEST;
	}
	words[1] = IO_PORT(qualification);
	words[2] = bytes;
	if (qualification & IO_IN) {
		words[0] = HYPERPS_EXIT_IN;
		vcpu->answer = ANSWER_IN;
		vcpu->access =
			(struct mmio_instruction){ .bytes = bytes, .destination_bytes = bytes, .reg = REGISTER_RAX };
	} else {
		words[0] = HYPERPS_EXIT_OUT;
		words[3] = vcpu->regs.value[REGISTER_RAX] & (BIT(8 * bytes) - 1);
	}
	skip_instruction();
	return RETURN_TO_HOST;
}

static enum next dispatch(struct cpu *cpu, struct vcpu *vcpu, u64 words[8])
{
	u64 full_reason = vmread(VMCS_EXIT_REASON);
	u32 reason = full_reason & 0xffff;

	if (full_reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MACHINE_CHECK)) {
		__atomic_fetch_or(&cpu->latched, LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
		return RESUME_GUEST;
	}
	if (full_reason & EXIT_REASON_ENTRY_FAILURE)
		return vcpu_fail(vcpu, words, HYPERPS_FAILURE_STATE);
	if (reason == EXIT_CPUID) {
		exit_cpuid_of_guest(vcpu);
		return RESUME_GUEST;
	}
	if (reason == EXIT_VMCALL)
		return guest_hypercall(vcpu, words);
	deliver_again();
	switch (reason) {
	case EXIT_EXCEPTION_OR_NMI:
		/* Else NMI or machine check: or not, because of what is latched. */
		if (!reflect_exception())
			latch_exit(cpu);
		return RESUME_GUEST;
	case EXIT_INIT:
		__atomic_fetch_or(&cpu->latched, LATCHED_INIT, __ATOMIC_SEQ_CST);
		return RESUME_GUEST;
	case EXIT_EXTERNAL_INTERRUPT:
	case EXIT_NMI_WINDOW:
	case EXIT_PREEMPTION_TIMER:
		return RETURN_TO_HOST; /* HYPERPS_EXIT_INTERRUPTED is 0 */
	case EXIT_INTERRUPT_WINDOW:
		words[0] = HYPERPS_EXIT_INTERRUPT_WINDOW;
		return RETURN_TO_HOST;
	case EXIT_TRIPLE_FAULT:
		return vcpu_fail(vcpu, words, HYPERPS_FAILURE_TRIPLE_FAULT);
	case EXIT_HLT:
		skip_instruction();
		/* Single-stepped, it ends at once with a #DB. */
		if (vmread(VMCS_GUEST_PENDING_DEBUG))
			return RESUME_GUEST;
		words[0] = HYPERPS_EXIT_HLT;
		return RETURN_TO_HOST;
	case EXIT_INVD: /* its caches are coherent, and not its own */
	case EXIT_WBINVD:
		skip_instruction();
		return RESUME_GUEST;
	case EXIT_CR_ACCESS:
		exit_cr(vcpu);
		return RESUME_GUEST;
	case EXIT_IO_INSTRUCTION:
		return guest_io(vcpu, words);
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		exit_msr(vcpu, reason == EXIT_WRMSR);
		return RESUME_GUEST;
	case EXIT_XSETBV:
		execute_xsetbv(&vcpu->regs, guest_xcr0);
		return RESUME_GUEST;
	case EXIT_EPT_VIOLATION:
		return guest_ept_violation(vcpu, words);
	case EXIT_RDPMC:
		inject_exception(VECTOR_GP);
		return RESUME_GUEST;
	case EXIT_TASK_SWITCH: /* of tasks in hardware: never needed by 64-bit code */
		return vcpu_fail(vcpu, words, HYPERPS_FAILURE_INSTRUCTION);
	default:
		if (!is_undefined_instruction(reason))
			return vcpu_fail(vcpu, words, HYPERPS_FAILURE_STATE);
		inject_exception(VECTOR_UD);
		return RESUME_GUEST;
	}
}

enum next guest_exit_dispatch(struct vcpu *vcpu, struct cpu *cpu, u64 words[8])
{
	u32 reason = EXIT_PREEMPTION_TIMER;

	if (dispatch(cpu, vcpu, words) == RETURN_TO_HOST)
		reason = vmread(VMCS_EXIT_REASON) & 0xffff;
	/* An NMI after this look makes the guest exit at once: latch_event(). */
	else if (!cpu->latched && rdtsc() - vcpu->slice_start < guest_slice)
		return RESUME_GUEST;
	/* Only what the host learns anyway: the others would tell what the guest does, such as its random numbers and its CR8. */
	if (reason < HYPERPS_EXIT_REASONS)
		vcpu->exits[reason]++;
	return RETURN_TO_HOST;
}
