// SPDX-License-Identifier: MIT
#include "emulate.h"
#include "event.h"
#include "vmcs.h"

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

void follow(vmcs_field_t shadow, u64 mask, u64 value)
{
	vmwrite(shadow, (vmread(shadow) & ~mask) | (value & mask));
}

void cr0_follow(u64 value)
{
	follow(VMCS_CR0_READ_SHADOW, CR0_OWNED, value);
}

bool execute_xsetbv(const struct registers *regs, u64 supported)
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
