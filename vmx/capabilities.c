// SPDX-License-Identifier: MIT
#include "capabilities.h"
#include "cpu_features.h"

void vmx_read_features(struct vmx_capabilities *out)
{
	u64 secondary_allowed = rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32;
	struct cpuid_result leaf7 = cpuid_or_zero(7);
	u64 ept_vpid = rdmsr(MSR_IA32_VMX_EPT_VPID_CAP);
	u64 pin_allowed = rdmsr(MSR_IA32_VMX_TRUE_PINBASED_CTLS) >> 32;

	out->cr0_fixed1 = rdmsr(MSR_IA32_VMX_CR0_FIXED1);
	out->cr4_fixed1 = rdmsr(MSR_IA32_VMX_CR4_FIXED1);
	out->feature[HYPERPS_FEATURE_EPT_1G] = ept_vpid & EPT_CAP_1G;
	out->feature[HYPERPS_FEATURE_EPT_EXECUTE_ONLY] = ept_vpid & EPT_CAP_EXECUTE_ONLY;
	out->feature[HYPERPS_FEATURE_VPID] = out->secondary & SECONDARY_VPID;
	out->feature[HYPERPS_FEATURE_UNRESTRICTED_GUEST] = out->secondary & SECONDARY_UNRESTRICTED_GUEST;
	/* IA32_VMX_VMFUNC exists only where the control can be 1; bit 0 is EPTP switching. */
	out->feature[HYPERPS_FEATURE_VMFUNC] =
		(secondary_allowed & SECONDARY_VM_FUNCTIONS) && (rdmsr(MSR_IA32_VMX_VMFUNC) & BIT(0));
	out->feature[HYPERPS_FEATURE_MODE_BASED_EXECUTE] = secondary_allowed & SECONDARY_MODE_BASED_EXECUTE;
	out->feature[HYPERPS_FEATURE_PREEMPTION_TIMER] = pin_allowed & PIN_PREEMPTION_TIMER;
	out->feature[HYPERPS_FEATURE_SMEP] = leaf7.ebx & BIT(CPUID_SMEP);
	out->feature[HYPERPS_FEATURE_SMAP] = leaf7.ebx & BIT(CPUID_SMAP);
	out->feature[HYPERPS_FEATURE_RDCL_NO] =
		(leaf7.edx & BIT(CPUID_ARCH_CAPABILITIES)) && (rdmsr(MSR_IA32_ARCH_CAPABILITIES) & BIT(0));
	out->gate = out->feature[HYPERPS_FEATURE_VMFUNC] && out->feature[HYPERPS_FEATURE_EPT_EXECUTE_ONLY] &&
		    out->feature[HYPERPS_FEATURE_SMEP] && out->feature[HYPERPS_FEATURE_SMAP];
}

u64 vmx_xcr0(void)
{
	struct cpuid_result supported = cpuid(0xd, 0);

	return rdmsr(MSR_IA32_VMX_CR4_FIXED1) & CR4_OSXSAVE ? (u64)supported.edx << 32 | supported.eax : 0;
}

/* "Reserved Controls and Default Settings": bits 31:0 must be 1 in the word, and what is 0 in 63:32 must be 0. */
static bool allows(u32 msr, u32 word)
{
	u64 capability = rdmsr(msr);

	return !((u32)capability & ~word) && !(word & ~(capability >> 32));
}

const char *vmx_compare_this_cpu(const struct vmx_capabilities *first)
{
	u32 bits = physical_address_bits();

	/* Revision and memory type of VMCS regions; the rest of IA32_VMX_BASIC does not matter to us. */
	if ((first->basic ^ rdmsr(MSR_IA32_VMX_BASIC)) & 0x003cffff7fffffffULL)
		return "its VMCS revision or format differs";
	if (!allows(MSR_IA32_VMX_TRUE_PINBASED_CTLS, first->pin) ||
	    !allows(MSR_IA32_VMX_TRUE_PINBASED_CTLS, first->guest_pin) ||
	    !allows(MSR_IA32_VMX_TRUE_PROCBASED_CTLS, first->primary) ||
	    !allows(MSR_IA32_VMX_TRUE_PROCBASED_CTLS, first->guest_primary) ||
	    !allows(MSR_IA32_VMX_PROCBASED_CTLS2, first->secondary) ||
	    !allows(MSR_IA32_VMX_PROCBASED_CTLS2, first->guest_secondary) ||
	    !allows(MSR_IA32_VMX_TRUE_EXIT_CTLS, first->exit) || !allows(MSR_IA32_VMX_TRUE_ENTRY_CTLS, first->entry))
		return "its VM-execution, exit or entry controls differ";
	if ((rdmsr(MSR_IA32_VMX_MISC) & (VMX_MISC_TIMER_RATE | VMX_MISC_WAIT_FOR_SIPI)) !=
	    (first->timer_rate | VMX_MISC_WAIT_FOR_SIPI))
		return "its VMX preemption timer has another rate, or it lacks the wait-for-SIPI state";
	if (first->ept_levels == 4 && bits > 48)
		bits = 48;
	if (first->physical_address_bits != bits)
		return "its physical-address width differs";
	if (first->ept_vpid & ~rdmsr(MSR_IA32_VMX_EPT_VPID_CAP) & EPT_CAP_USED)
		return "its EPT lacks a page size or an invalidation that the first CPU has";
	if (first->cr0_fixed0 != rdmsr(MSR_IA32_VMX_CR0_FIXED0) || first->cr4_fixed0 != rdmsr(MSR_IA32_VMX_CR4_FIXED0))
		return "its fixed bits of CR0 or CR4 differ";
	if (first->xcr0 != vmx_xcr0())
		return "its vector registers differ";
	return NULL;
}
