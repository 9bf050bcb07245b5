/* SPDX-License-Identifier: MIT */
/* The de-privileged host's virtual CPU: its VMCS, its policy, and one handler for each family of exit reasons. */
#ifndef HOST_H
#define HOST_H

#include "cpu.h"
#include "vmx.h"

/* CR4 bits that the host may change as it likes; any other is refused with #GP. */
#define HOST_CR4_ALLOWED                                                                                               \
	(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |         \
	 CR4_OSXMMEXCPT | CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |         \
	 CR4_PKE)

/* VMXON on this CPU. Locks IA32_FEATURE_CONTROL if the firmware left it open. A failure panics. */
void vmx_switch_on(struct cpu *cpu);

/*
 * Builds this CPU's VMCS for the host. state: where it resumes, or NULL for a CPU that waits for a SIPI (every CPU but the boot
 * CPU). Leaves the VMCS current.
 */
void host_vmcs_init(struct cpu *cpu, const struct boot_cpu_state *state);

/*
 * Loads the architectural state after INIT ("Processor State After INIT") into the current VMCS. cr0_kept: CR0.CD and NW as
 * they were, which INIT keeps. Leaves the activity state alone.
 */
void host_load_reset_state(struct cpu *cpu, u64 cr0_kept);

/* The first VM entry, with all general registers 0. Does not return: VM exits arrive in exit_dispatch(). vmx/exit.asm. */
void host_launch(void) __attribute__((noreturn));

/* Reads all MTRRs of this CPU; zeros (all uncacheable) if it has none. msr.c. */
void mtrr_read_all(struct mtrr_state *mtrr);

/* Moves the host past the instruction that exited, as the CPU would have. */
void host_skip_instruction(void);

/* Queues an exception for the next VM entry. #GP and #DF have error code 0. */
void host_inject_ud(struct cpu *cpu);
void host_inject_df(struct cpu *cpu);
void host_inject_gp(struct cpu *cpu);

/* Queues latched NMIs and machine checks for the next VM entry as far as there is room. Also called by the NMI handler. */
void host_deliver_latched(struct cpu *cpu);

/* Whether the host runs 64-bit code at CPL 0: the only place from which it may call the monitor. */
bool host_is_64bit_ring0(void);

/* True if VMX works in the host's paging mode as 64-bit: instruction and stack pointers are 64 bits wide. */
bool host_is_64bit(void);

/* Exit handlers by family. regs: the host's general registers but RSP. */
void exit_cpuid(struct guest_registers *regs);
void exit_rdmsr(struct cpu *cpu, struct guest_registers *regs);
void exit_wrmsr(struct cpu *cpu, struct guest_registers *regs);
void exit_cr_access(struct cpu *cpu, struct guest_registers *regs);
void exit_xsetbv(struct cpu *cpu, struct guest_registers *regs);
void exit_init(struct cpu *cpu, struct guest_registers *regs);
void exit_sipi(struct cpu *cpu);
void exit_triple_fault(void);
void exit_refused_instruction(struct cpu *cpu, u32 reason);
void exit_ept_violation(struct cpu *cpu);

#endif
