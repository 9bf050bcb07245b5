// SPDX-License-Identifier: MIT
/* CPUID, control registers, XSETBV, and instructions that the host may not execute. */
#include "core.h"
#include "host.h"
#include "x86.h"

#define CPUID_1_ECX_OSXSAVE BIT(27)
#define CPUID_7_ECX_OSPKE BIT(4)

/* In VMX root these two bits mirror root's CR4, not the host's. */
static u32 follow_cr4(u32 value, u32 bit, u64 cr4_bit)
{
	return vmread(VMCS_GUEST_CR4) & cr4_bit ? value | bit : value & ~bit;
}

/*
 * What the host does not see: VMX and SMX (used by the monitor, or able to bypass it); an outer hypervisor's leaves
 * (its paravirtual MSRs take physical addresses; its bit in leaf 1 stays, so that Linux looks for no bare-metal
 * devices); features that write memory by an address in an MSR: debug store, Processor Trace, hardware feedback, SGX,
 * PASID; and those whose CR4 bits or MSRs are refused: CET, PKS, UINTR, LAM, FRED, LASS, key locker, architectural LBR,
 * MSR lists, user and immediate MSR instructions, HRESET. Leaves without a case here are the CPU's: vmx/exit.asm answers
 * them itself.
 */
static void filter_cpuid(u32 leaf, u32 subleaf, struct cpuid_result *r)
{
	switch (leaf) {
	case 0x1:
		r->ecx &= ~(u32)(BIT(2) | BIT(4) | BIT(5) | BIT(6));
		r->ecx = follow_cr4(r->ecx, CPUID_1_ECX_OSXSAVE, CR4_OSXSAVE);
		r->edx &= ~(u32)BIT(21);
		break;
	case 0x6:
		r->eax &= ~(u32)(BIT(19) | BIT(23));
		break;
	case 0x7:
		if (subleaf == 0) {
			r->ebx &= ~(u32)(BIT(2) | BIT(25));
			r->ecx &= ~(u32)(BIT(7) | BIT(13) | BIT(23) | BIT(29) | BIT(30) | BIT(31));
			r->ecx = follow_cr4(r->ecx, CPUID_7_ECX_OSPKE, CR4_PKE);
			r->edx &= ~(u32)(BIT(5) | BIT(18) | BIT(19) | BIT(20));
		} else if (subleaf == 1) {
			r->eax &= ~(u32)(BIT(6) | BIT(17) | BIT(18) | BIT(20) | BIT(22) | BIT(26) | BIT(27));
			r->ecx &= ~(u32)BIT(5);
			r->edx &= ~(u32)(BIT(13) | BIT(15) | BIT(18));
		}
		break;
	case 0xd:
		if (subleaf == 1) /* supervisor state in XSS */
			r->ecx = r->edx = 0;
		break;
	case 0x12:
	case 0x14:
	case 0x19:
	case 0x1b:
	case 0x1c:
	case 0x40000000 ... 0x4fffffff:
		*r = (struct cpuid_result){ 0 };
		break;
	}
}

void exit_cpuid(struct guest_registers *regs)
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

/* Gives the read shadow the bits of the value that are in the mask. */
static void follow(vmcs_field_t shadow, u64 mask, u64 value)
{
	vmwrite(shadow, (vmread(shadow) & ~mask) | (value & mask));
}

void cr0_follow(u64 value)
{
	follow(VMCS_CR0_READ_SHADOW, HOST_CR0_OWNED, value);
}

void exit_cr_access(struct guest_registers *regs)
{
	struct cpu *cpu = this_cpu();
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), number = CR_REGISTER(qualification);
	u64 value = number == REGISTER_RSP ? vmread(VMCS_GUEST_RSP) : regs->value[number];

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
	if (CR_NUMBER(qualification) == 4 ? value & ~HOST_CR4_ALLOWED : (value & CR0_NW) && !(value & CR0_CD)) {
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
		follow(VMCS_CR4_READ_SHADOW, CR4_MCE, value);
	else
		cr0_follow(value);
}

bool execute_xsetbv(const struct guest_registers *regs, u64 supported)
{
	u64 value = edx_eax(regs);
	bool done = !privilege_level() && !(u32)regs->value[REGISTER_RCX] && !(value & ~supported) &&
		    xsetbv_checked(0, value);

	if (done)
		skip_instruction();
	else
		inject_exception(VECTOR_GP);
	return done;
}

void exit_xsetbv(struct guest_registers *regs)
{
	if (!execute_xsetbv(regs, monitor.boot->capabilities.xcr0))
		log_refusal(REFUSED_REGISTER, "XSETBV of %lx refused", edx_eax(regs));
}

bool is_undefined_instruction(u32 reason)
{
	static const u8 reasons[] = { EXIT_GETSEC,   EXIT_VMCLEAR, EXIT_VMLAUNCH,        EXIT_VMPTRLD,
				      EXIT_VMPTRST,  EXIT_VMREAD,  EXIT_VMRESUME,        EXIT_VMWRITE,
				      EXIT_VMXOFF,   EXIT_VMXON,   EXIT_MWAIT,           EXIT_MONITOR,
				      EXIT_INVEPT,   EXIT_INVVPID, EXIT_VMFUNC,          EXIT_ENCLS,
				      EXIT_SEAMCALL, EXIT_TDCALL,  EXIT_RDMSR_IMMEDIATE, EXIT_WRMSRNS_IMMEDIATE };

	for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i] == reason)
			return true;
	return false;
}

void exit_refused_instruction(struct guest_registers *regs)
{
	u32 reason = vmread(VMCS_EXIT_REASON) & 0xffff;

	(void)regs;
	if (reason == EXIT_INVD) {
		/*
		 * INVD would drop the monitor's modified cache lines, too; writing them back is what the host can be
		 * given.
		 */
		asm volatile("wbinvd" ::: "memory");
		skip_instruction();
		return;
	}
	log_refusal(REFUSED_INSTRUCTION, "instruction refused: exit reason %u at %016lx", reason,
		    vmread(VMCS_GUEST_RIP));
	inject_exception(reason == EXIT_TASK_SWITCH ? VECTOR_GP : VECTOR_UD);
}
