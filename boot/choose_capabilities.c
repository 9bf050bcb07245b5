// SPDX-License-Identifier: MIT
/* What the monitor uses of the boot CPU's VMX. The other CPUs must be able to do the same: vmx/capabilities.c. */
#include "choose_capabilities.h"
#include "cpu_features.h"

#define USE_NEWER "Use a CPU of 2010 or later (Westmere or newer)"
#define HOT_EXITS (PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING | PRIMARY_INVLPG_EXITING)

/*
 * The control words ("Reserved Bits, Capability Reporting", appendix "VMX Capability Reporting Facility"): bits 31:0 of
 * the capability MSR must be 1 in one, and bits that are 0 in 63:32 must be 0.
 */
static const struct control_word {
	u32 msr; /* if there are two, the TRUE one, which lets default1 controls be 0 */
	u32 offset; /* in struct vmx_capabilities */
	u32 required, optional;
	u32 must_be_off; /* exits on hot paths; the TRUE MSRs allow 0 on every CPU with EPT */
	const char *missing; /* what the CPU is refused with if it lacks something required */
} words[] = {
	{ MSR_IA32_VMX_TRUE_PROCBASED_CTLS, offsetof(struct vmx_capabilities, primary),
	  PRIMARY_USE_IO_BITMAPS | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS, 0, HOT_EXITS,
	  "this CPU's VT-x lacks secondary controls, or I/O or MSR bitmaps. Use a CPU with EPT" },
	{ MSR_IA32_VMX_PROCBASED_CTLS2, offsetof(struct vmx_capabilities, secondary), SECONDARY_EPT, 0, 0,
	  "this CPU's VT-x lacks EPT (extended page tables). " USE_NEWER },
	/* RDTSCP, INVPCID, XSAVES and the user wait instructions raise #UD in the host unless they are switched on here. */
	{ MSR_IA32_VMX_PROCBASED_CTLS2, offsetof(struct vmx_capabilities, secondary),
	  SECONDARY_EPT | SECONDARY_UNRESTRICTED_GUEST,
	  SECONDARY_VPID | SECONDARY_RDTSCP | SECONDARY_INVPCID | SECONDARY_XSAVES | SECONDARY_USER_WAIT_PAUSE |
		  SECONDARY_ENCLS_EXITING,
	  0, "this CPU's VT-x lacks unrestricted guest. " USE_NEWER },
	{ MSR_IA32_VMX_TRUE_PINBASED_CTLS, offsetof(struct vmx_capabilities, pin), PIN_NMI_EXITING | PIN_VIRTUAL_NMIS,
	  0, 0, "this CPU's VT-x lacks virtual NMIs. " USE_NEWER },
	{ MSR_IA32_VMX_TRUE_EXIT_CTLS, offsetof(struct vmx_capabilities, exit),
	  EXIT_HOST_64 | EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER, 0, 0,
	  "this CPU's VT-x can't save and load PAT, EFER and debug registers. " USE_NEWER },
	{ MSR_IA32_VMX_TRUE_ENTRY_CTLS, offsetof(struct vmx_capabilities, entry),
	  ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | ENTRY_IA32E_GUEST, 0, 0,
	  "this CPU's VT-x can't load PAT, EFER and debug registers. " USE_NEWER },
	/* A guest's: I/O, HLT, MONITOR, MWAIT, RDPMC and CR8 exit, and whatever is the host's to handle. */
	{ MSR_IA32_VMX_TRUE_PINBASED_CTLS, offsetof(struct vmx_capabilities, guest_pin),
	  PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER, 0, 0,
	  "this CPU's VT-x lacks exits at interrupts, or the preemption timer. " USE_NEWER },
	/* A CPU may have neither the exits of MONITOR and MWAIT nor the instructions. */
	{ MSR_IA32_VMX_TRUE_PROCBASED_CTLS, offsetof(struct vmx_capabilities, guest_primary),
	  PRIMARY_TSC_OFFSETTING | PRIMARY_HLT_EXITING | PRIMARY_RDPMC_EXITING | PRIMARY_CR8_LOAD_EXITING |
		  PRIMARY_CR8_STORE_EXITING | PRIMARY_IO_EXITING | PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS,
	  PRIMARY_MWAIT_EXITING | PRIMARY_MONITOR_EXITING, HOT_EXITS,
	  "this CPU's VT-x lacks exits that guests need. " USE_NEWER },
	{ MSR_IA32_VMX_PROCBASED_CTLS2, offsetof(struct vmx_capabilities, guest_secondary),
	  SECONDARY_EPT | SECONDARY_WBINVD_EXITING | SECONDARY_UNRESTRICTED_GUEST,
	  SECONDARY_VPID | SECONDARY_RDTSCP | SECONDARY_INVPCID | SECONDARY_ENCLS_EXITING, 0,
	  "this CPU's VT-x lacks the exit at WBINVD. " USE_NEWER },
};

static u32 *word_of(const struct vmx_capabilities *capabilities, const struct control_word *word)
{
	return (u32 *)((u8 *)capabilities + word->offset);
}

/* Returns NULL, or what is missing. */
static const char *choose_controls(struct vmx_capabilities *out)
{
	for (const struct control_word *word = words; word < words + ARRAY_SIZE(words); word++) {
		u64 capability = rdmsr(word->msr);
		u32 must_be_one = (u32)capability, may_be_one = capability >> 32;

		*word_of(out, word) = must_be_one | word->required | (word->optional & may_be_one);
		if ((word->required & ~may_be_one) || (must_be_one & word->must_be_off))
			return word->missing;
	}
	return NULL;
}

const char *choose_capabilities(struct vmx_capabilities *out)
{
	const char *missing;
	u64 feature_control;

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
		return "this CPU's VT-x lacks the TRUE control MSRs. " USE_NEWER;
	missing = choose_controls(out);
	if (missing)
		return missing;
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
	out->cr4_fixed0 = rdmsr(MSR_IA32_VMX_CR4_FIXED0);
	out->xcr0 = vmx_xcr0();
	out->physical_address_bits = physical_address_bits();
	out->ept_levels = 4;
	if (out->physical_address_bits > 48) {
		if (out->ept_vpid & EPT_CAP_WALK_5)
			out->ept_levels = 5;
		else
			out->physical_address_bits = 48;
	}
	if (out->ept_levels == 4)
		out->ept_vpid &= ~EPT_CAP_WALK_5;
	vmx_read_features(out);
	return NULL;
}
