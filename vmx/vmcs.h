/* SPDX-License-Identifier: MIT */
/* VMXON, and what the VMCS of the host's CPUs and those of guests have in common. */
#ifndef VMCS_H
#define VMCS_H

#include "cpu.h"

/* CR4 bits that the host may change as it likes; any other is refused with #GP. Guests may change some of them. */
#define CR4_ALLOWED                                                                                                    \
	(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |         \
	 CR4_OSXMMEXCPT | CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |         \
	 CR4_PKE)

/* MCE the host only believes to change: without it a machine check shuts the CPU down, and that is no VM exit. */
#define CR4_OWNED (~CR4_ALLOWED | CR4_MCE)

/*
 * CR0 bits that the host only believes to change: NE is fixed to 1 in VMX operation, and with CD or NW set root would
 * run without caches. The host sees its own values through the read shadow.
 */
#define CR0_OWNED (CR0_NE | CR0_CD | CR0_NW)

/* What the host may have in other registers. DEBUGCTL: LBR, BTF, bus lock, freezes. */
#define DEBUGCTL_ALLOWED (BIT(0) | BIT(1) | BIT(2) | BIT(11) | BIT(12) | BIT(14))
#define EFER_ALLOWED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* VMXON on this CPU. Locks IA32_FEATURE_CONTROL if the firmware left it open. A failure panics. */
void vmx_switch_on(struct cpu *cpu);

/* The state after a reset; only CR0.ET is set, and CS is that of real mode at 0. */
extern const struct boot_cpu_state reset_state;

/*
 * Parts of any VMCS, the current one: what is the same for host and guests; their registers, with what VMX operation
 * needs of CR0 and CR4; and root's own state on this CPU with exits arriving at rip.
 */
void vmcs_write_defaults(u32 secondary);
void vmcs_write_state(const struct boot_cpu_state *state);
void vmcs_write_root_state(struct cpu *cpu, u64 rip);

/* Of the host's VMCS, the current one: what may change of its secondary controls. */
static inline void vmcs_write_secondary(const struct cpu *cpu)
{
	vmwrite(VMCS_SECONDARY_CONTROLS, cpu->capabilities.secondary | (cpu->gate.on ? SECONDARY_VM_FUNCTIONS : 0) |
						 (cpu->shadowing ? SECONDARY_VMCS_SHADOWING : 0));
}

/* Makes this CPU's VMCS of the host the current one again. What has been latched meanwhile the caller sees to. */
void vmcs_load_host(struct cpu *cpu);

#endif
