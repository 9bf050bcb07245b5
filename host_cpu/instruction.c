// SPDX-License-Identifier: MIT
/* CPUID, control registers, XSETBV, and instructions that the host may not execute. */
#include "cpu_features.h"
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"
#include "vmcs.h"

/* In VMX root these two bits mirror root's CR4, not the host's. */
static u32 follow_cr4(u32 value, u64 bit, u64 cr4_bit)
{
	return (u32)(vmread(VMCS_GUEST_CR4) & cr4_bit ? value | bit : value & ~bit);
}

/*
 * What the host does not see: VMX, unless it is offered (nested/), and SMX, which could bypass the monitor; an outer
 * hypervisor's leaves (its paravirtual MSRs take physical addresses; its bit in leaf 1 stays, so that Linux looks for no
 * bare-metal devices); features that write memory by an address in an MSR: debug store, Processor Trace, hardware
 * feedback, SGX, PASID; and those whose CR4 bits or MSRs are refused: CET, PKS, UINTR, LAM, FRED, LASS, key locker,
 * architectural LBR, MSR lists, user and immediate MSR instructions, HRESET. Leaves without a case here are the CPU's:
 * exit.asm answers them itself (CPUID_FILTERED_LEAVES).
 */
void filter_cpuid(u32 leaf, u32 subleaf, struct cpuid_result *r)
{
	switch (leaf) {
	case 0x1:
		r->ecx &= ~(u32)(BIT(CPUID_DTES64) | BIT(CPUID_DS_CPL) | BIT(CPUID_SMX));
		if (!monitor.kvm)
			r->ecx &= ~(u32)BIT(CPUID_VMX);
		r->ecx = follow_cr4(r->ecx, BIT(CPUID_OSXSAVE), CR4_OSXSAVE);
		r->edx &= ~(u32)BIT(CPUID_DS);
		break;
	case 0x6:
		r->eax &= ~(u32)(BIT(CPUID_HFI) | BIT(CPUID_THREAD_DIRECTOR));
		break;
	case 0x7:
		if (subleaf == 0) {
			r->ebx &= ~(u32)(BIT(CPUID_SGX) | BIT(CPUID_PT));
			r->ecx &= ~(u32)(BIT(CPUID_CET_SS) | BIT(CPUID_TME) | BIT(CPUID_KEY_LOCKER) |
					 BIT(CPUID_ENQCMD) | BIT(CPUID_SGX_LC) | BIT(CPUID_PKS));
			r->ecx = follow_cr4(r->ecx, BIT(CPUID_OSPKE), CR4_PKE);
			r->edx &= ~(u32)(BIT(CPUID_UINTR) | BIT(CPUID_PCONFIG) | BIT(CPUID_ARCH_LBR) |
					 BIT(CPUID_CET_IBT));
		} else if (subleaf == 1) {
			r->eax &= ~(u32)(BIT(CPUID_LASS) | BIT(CPUID_FRED) | BIT(CPUID_LKGS) | BIT(CPUID_NMI_SOURCE) |
					 BIT(CPUID_HRESET) | BIT(CPUID_LAM) | BIT(CPUID_MSRLIST));
			r->ecx &= ~(u32)BIT(CPUID_MSR_IMM);
			r->edx &= ~(u32)(BIT(CPUID_UTMR) | BIT(CPUID_USER_MSR) | BIT(CPUID_CET_SSS));
		}
		break;
	case 0xd:
		if (subleaf == 1) /* supervisor state in XSS */
			r->ecx = r->edx = 0;
		break;
	case 0x12: /* SGX, Processor Trace, key locker, PCONFIG, architectural LBR */
	case 0x14:
	case 0x19:
	case 0x1b:
	case 0x1c:
	case 0x40000000 ... 0x4fffffff:
		*r = (struct cpuid_result){ 0 };
		break;
	}
}

void exit_cpuid(struct registers *regs)
{
	u32 leaf = (u32)regs->value[REGISTER_RAX], subleaf = (u32)regs->value[REGISTER_RCX];
	struct cpuid_result r = cpuid(leaf, subleaf);

	filter_cpuid(leaf, subleaf, &r);
	regs->value[REGISTER_RAX] = r.eax;
	regs->value[REGISTER_RBX] = r.ebx;
	regs->value[REGISTER_RCX] = r.ecx;
	regs->value[REGISTER_RDX] = r.edx;
	skip_instruction();
}

void exit_cr_access(struct registers *regs)
{
	struct cpu *cpu = this_cpu();
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), number = CR_REGISTER(qualification);
	u64 value = number == REGISTER_RSP ? vmread(VMCS_GUEST_RSP) : regs->value[number];
	u64 vmxe = monitor.kvm ? CR4_VMXE : 0;

	/* Outside 64-bit mode the operand has 32 bits, and nobody knows what lies above. */
	value = is_64bit() ? value : (u32)value;
	/* Something waited until the host left the gate: it is delivered now, before the instruction is executed again. */
	if (CR_NUMBER(qualification) == 3 && CR_ACCESS_TYPE(qualification) == CR_ACCESS_MOV_TO) {
		vmwrite(VMCS_PRIMARY_CONTROLS, cpu->capabilities.primary);
		return;
	}
	if (CR_ACCESS_TYPE(qualification) != CR_ACCESS_MOV_TO ||
	    (CR_NUMBER(qualification) != 0 && CR_NUMBER(qualification) != 4))
		panic("unexpected control-register access, qualification %lx", qualification);
	/* Like the firmware's real mode, a host that turns paging or its protections off has no gate. */
	if (gate_needs(cpu, CR_NUMBER(qualification), value)) {
		gate_off(cpu);
		return;
	}
	/* "Restrictions on VMX Operation": what any CPU refuses in it. */
	if (cpu->nested && cpu->nested->state != NESTED_OFF &&
	    !(value & (CR_NUMBER(qualification) == 4 ? CR4_VMXE : CR0_NE))) {
		inject_exception(VECTOR_GP);
		return;
	}
	if (CR_NUMBER(qualification) == 4 ? value & ~(CR4_ALLOWED | vmxe) : (value & CR0_NW) && !(value & CR0_CD)) {
		log_refusal(REFUSED_REGISTER, "write of %lx to CR%lu refused, at %016lx", value,
			    CR_NUMBER(qualification), vmread(VMCS_GUEST_RIP));
		inject_exception(VECTOR_GP);
		return;
	}
	/*
	 * The host writes other values of the bits that the monitor owns than the shadow has. Give the shadow these and
	 * let the CPU execute the instruction again: now it does not exit, and every check and side effect of the write
	 * is the hardware's.
	 */
	if (CR_NUMBER(qualification) == 4)
		follow(VMCS_CR4_READ_SHADOW, CR4_MCE | vmxe, value);
	else
		cr0_follow(value);
}

void exit_xsetbv(struct registers *regs)
{
	if (!execute_xsetbv(regs, monitor.boot->capabilities.xcr0))
		log_refusal(REFUSED_REGISTER, "XSETBV of %lx refused", edx_eax(regs));
}

void exit_refused_instruction(struct registers *regs)
{
	u32 reason = vmread(VMCS_EXIT_REASON) & 0xffff;

	(void)regs;
	if (reason == EXIT_INVD) {
		/*
		 * INVD would drop the monitor's modified cache lines, too; writing them back is what the host can be
		 * given.
		 */
		wbinvd();
		skip_instruction();
		return;
	}
	log_refusal(REFUSED_INSTRUCTION, "instruction refused: exit reason %u at %016lx", reason,
		    vmread(VMCS_GUEST_RIP));
	inject_exception(reason == EXIT_TASK_SWITCH ? VECTOR_GP : VECTOR_UD);
}
