// SPDX-License-Identifier: MIT
#include "capabilities.h"
#include "vmx.h"
#include "x86.h"

/*
 * One control word ("Reserved Bits, Capability Reporting", appendix "VMX Capability Reporting Facility"): bits 31:0 of
 * the capability MSR must be 1 in it, and bits that are 0 in 63:32 must be 0.
 */
struct control_word {
	u32 true_msr; /* the MSR that lets default1 controls be 0 */
	u64 required; /* refused without them */
	u64 optional;
	u64 must_be_off; /* exits on hot paths; the TRUE MSRs allow 0 on every CPU with EPT */
};

static const struct control_word pin_word = { MSR_IA32_VMX_TRUE_PINBASED_CTLS, PIN_NMI_EXITING | PIN_VIRTUAL_NMIS, 0,
					      0 };
static const struct control_word primary_word = {
	MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_USE_IO_BITMAPS | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS,
	0, PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING | PRIMARY_INVLPG_EXITING
};
/* RDTSCP, INVPCID, XSAVES and the user wait instructions raise #UD in the host unless they are switched on here. */
static const struct control_word secondary_word = { MSR_IA32_VMX_PROCBASED_CTLS2,
						    SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST,
						    SECONDARY_VPID | SECONDARY_RDTSCP | SECONDARY_INVPCID |
							    SECONDARY_XSAVES | SECONDARY_USER_WAIT_PAUSE |
							    SECONDARY_ENCLS_EXITING,
						    0 };
/* A guest's: I/O, HLT, MONITOR, MWAIT, RDPMC and CR8 exit, and whatever is the host's to handle. */
static const struct control_word guest_pin_word = { MSR_IA32_VMX_TRUE_PINBASED_CTLS,
						    PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS,
						    PIN_PREEMPTION_TIMER, 0 };
static const struct control_word guest_primary_word = {
	MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
	PRIMARY_TSC_OFFSETTING | PRIMARY_HLT_EXITING | PRIMARY_RDPMC_EXITING | PRIMARY_CR8_LOAD_EXITING |
		PRIMARY_CR8_STORE_EXITING | PRIMARY_IO_EXITING | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS,
	PRIMARY_MWAIT_EXITING | PRIMARY_MONITOR_EXITING, /* a CPU may have neither these nor the instructions */
	PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING | PRIMARY_INVLPG_EXITING
};
static const struct control_word guest_secondary_word = {
	MSR_IA32_VMX_PROCBASED_CTLS2, SECONDARY_EPT | SECONDARY_WBINVD_EXITING | SECONDARY_UNRESTRICTED_GUEST,
	SECONDARY_VPID | SECONDARY_RDTSCP | SECONDARY_INVPCID | SECONDARY_ENCLS_EXITING, 0
};
static const struct control_word exit_word = { MSR_IA32_VMX_TRUE_EXIT_CTLS,
					       EXIT_HOST_64 | EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_LOAD_PAT |
						       EXIT_SAVE_EFER | EXIT_LOAD_EFER,
					       0, 0 };
static const struct control_word entry_word = { MSR_IA32_VMX_TRUE_ENTRY_CTLS,
						ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | ENTRY_IA32E_GUEST,
						0, 0 };

static bool choose_controls(const struct control_word *word, u32 *out)
{
	u64 capability = rdmsr(word->true_msr);
	u32 must_be_one = (u32)capability, may_be_one = capability >> 32;
	u32 value = must_be_one | (u32)word->required | ((u32)word->optional & may_be_one);

	*out = value;
	return (word->required & ~(u64)may_be_one) == 0 && (must_be_one & word->must_be_off) == 0;
}

static bool has_cpuid_leaf(u32 leaf)
{
	return cpuid(leaf & 0x80000000, 0).eax >= leaf;
}

static void fill_features(struct vmx_capabilities *out, u64 secondary_allowed)
{
	u32 leaf7_ebx = has_cpuid_leaf(7) ? cpuid(7, 0).ebx : 0;
	u32 leaf7_edx = has_cpuid_leaf(7) ? cpuid(7, 0).edx : 0;
	u64 pin_allowed = rdmsr(MSR_IA32_VMX_TRUE_PINBASED_CTLS) >> 32;

	out->feature[HYPERPS_FEATURE_EPT_1G] = out->ept_vpid & EPT_CAP_1G;
	out->feature[HYPERPS_FEATURE_EPT_EXECUTE_ONLY] = out->ept_vpid & EPT_CAP_EXECUTE_ONLY;
	out->feature[HYPERPS_FEATURE_VPID] = out->secondary & SECONDARY_VPID;
	out->feature[HYPERPS_FEATURE_UNRESTRICTED_GUEST] = out->secondary & SECONDARY_UNRESTRICTED_GUEST;
	/* IA32_VMX_VMFUNC exists only where the control can be 1; bit 0 is EPTP switching. */
	out->feature[HYPERPS_FEATURE_VMFUNC] =
		(secondary_allowed & SECONDARY_VM_FUNCTIONS) && (rdmsr(MSR_IA32_VMX_VMFUNC) & BIT(0));
	out->feature[HYPERPS_FEATURE_MODE_BASED_EXECUTE] = secondary_allowed & SECONDARY_MODE_BASED_EXECUTE;
	out->feature[HYPERPS_FEATURE_PREEMPTION_TIMER] = pin_allowed & PIN_PREEMPTION_TIMER;
	out->feature[HYPERPS_FEATURE_SMEP] = leaf7_ebx & BIT(7);
	out->feature[HYPERPS_FEATURE_SMAP] = leaf7_ebx & BIT(20);
	out->feature[HYPERPS_FEATURE_RDCL_NO] = (leaf7_edx & BIT(29)) && (rdmsr(MSR_IA32_ARCH_CAPABILITIES) & BIT(0));
	out->feature[HYPERPS_FEATURE_VTD] = false;
}

const char *vmx_check_this_cpu(struct vmx_capabilities *out)
{
	u64 feature_control, secondary_allowed;

	*out = (struct vmx_capabilities){ 0 };
	if (!(cpuid(1, 0).ecx & BIT(5)))
		return "this CPU has no VT-x, or the firmware or an outer hypervisor hides it. "
		       "Use an Intel CPU with VT-x, and switch nested virtualization on in an outer hypervisor";
	feature_control = rdmsr(MSR_IA32_FEATURE_CONTROL);
	if ((feature_control & FEATURE_CONTROL_LOCK) && !(feature_control & FEATURE_CONTROL_VMX))
		return "VT-x is switched off and locked by the firmware. "
		       "Switch on \"Intel Virtualization Technology\" (VMX) in the firmware setup, then power-cycle";
	out->basic = rdmsr(MSR_IA32_VMX_BASIC);
	if (!(out->basic & VMX_BASIC_TRUE_CONTROLS))
		return "this CPU's VT-x lacks the TRUE control MSRs. Use a CPU of 2010 or later (Westmere or newer)";
	if (!choose_controls(&primary_word, &out->primary))
		return "this CPU's VT-x lacks secondary controls, or I/O or MSR bitmaps. Use a CPU with EPT";
	secondary_allowed = rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32;
	if (!(secondary_allowed & SECONDARY_EPT))
		return "this CPU's VT-x lacks EPT (extended page tables). Use a CPU of 2010 or later (Westmere or "
		       "newer)";
	if (!(secondary_allowed & SECONDARY_UNRESTRICTED_GUEST))
		return "this CPU's VT-x lacks unrestricted guest. Use a CPU of 2010 or later (Westmere or newer)";
	choose_controls(&secondary_word, &out->secondary);
	if (!choose_controls(&pin_word, &out->pin) || !choose_controls(&exit_word, &out->exit) ||
	    !choose_controls(&entry_word, &out->entry))
		return "this CPU's VT-x can't save and load PAT, EFER and debug registers, or lacks virtual NMIs. "
		       "Use a CPU of 2010 or later (Westmere or newer)";
	if (!choose_controls(&guest_pin_word, &out->guest_pin) ||
	    !choose_controls(&guest_primary_word, &out->guest_primary) ||
	    !choose_controls(&guest_secondary_word, &out->guest_secondary))
		return "this CPU's VT-x lacks exits that guests need. Use a CPU of 2010 or later (Westmere or newer)";
	out->timer_rate = rdmsr(MSR_IA32_VMX_MISC) & VMX_MISC_TIMER_RATE;
	out->ept_vpid = rdmsr(MSR_IA32_VMX_EPT_VPID_CAP);
	if (!(out->ept_vpid & EPT_CAP_WB) || !(out->ept_vpid & EPT_CAP_2M) || !(out->ept_vpid & EPT_CAP_WALK_4) ||
	    !(out->ept_vpid & EPT_CAP_INVEPT) || !(out->ept_vpid & EPT_CAP_INVEPT_ALL))
		return "this CPU's EPT lacks write-back tables, 2 MiB pages or INVEPT. Use a newer CPU";
	if ((out->secondary & SECONDARY_VPID) &&
	    (!(out->ept_vpid & EPT_CAP_INVVPID) || !(out->ept_vpid & EPT_CAP_INVVPID_ALL)))
		out->secondary &= ~(u32)SECONDARY_VPID;
	out->guest_secondary &= out->secondary | ~(u32)SECONDARY_VPID;
	if (!(rdmsr(MSR_IA32_VMX_MISC) & VMX_MISC_WAIT_FOR_SIPI))
		return "this CPU's VT-x lacks the wait-for-SIPI state. Use a newer CPU or outer hypervisor";
	out->cr0_fixed0 = rdmsr(MSR_IA32_VMX_CR0_FIXED0);
	out->cr0_fixed1 = rdmsr(MSR_IA32_VMX_CR0_FIXED1);
	out->cr4_fixed0 = rdmsr(MSR_IA32_VMX_CR4_FIXED0);
	out->cr4_fixed1 = rdmsr(MSR_IA32_VMX_CR4_FIXED1);
	if (out->cr4_fixed1 & CR4_OSXSAVE)
		out->xcr0 = (u64)cpuid(0xd, 0).edx << 32 | cpuid(0xd, 0).eax;
	out->physical_address_bits = physical_address_bits();
	out->ept_levels = 4;
	if (out->physical_address_bits > 48) {
		if (out->ept_vpid & EPT_CAP_WALK_5)
			out->ept_levels = 5;
		else
			out->physical_address_bits = 48;
	}
	fill_features(out, secondary_allowed);
	return NULL;
}

const char *vmx_compare_capabilities(const struct vmx_capabilities *first, const struct vmx_capabilities *other)
{
	/* Revision and memory type of VMCS regions; the rest of IA32_VMX_BASIC does not matter to us. */
	if ((first->basic ^ other->basic) & 0x003cffff7fffffffULL)
		return "its VMCS revision or format differs";
	if (first->pin != other->pin || first->primary != other->primary || first->secondary != other->secondary ||
	    first->exit != other->exit || first->entry != other->entry || first->guest_pin != other->guest_pin ||
	    first->guest_primary != other->guest_primary || first->guest_secondary != other->guest_secondary ||
	    first->timer_rate != other->timer_rate)
		return "its VM-execution, exit or entry controls differ";
	if (first->ept_levels != other->ept_levels || first->physical_address_bits != other->physical_address_bits)
		return "its physical-address width differs";
	if (first->ept_vpid & ~other->ept_vpid & (EPT_CAP_1G | EPT_CAP_INVVPID_ALL))
		return "its EPT lacks a page size or an invalidation that the first CPU has";
	if (first->cr0_fixed0 != other->cr0_fixed0 || first->cr4_fixed0 != other->cr4_fixed0)
		return "its fixed bits of CR0 or CR4 differ";
	if (first->xcr0 != other->xcr0)
		return "its vector registers differ";
	return NULL;
}
