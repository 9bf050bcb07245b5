/* SPDX-License-Identifier: MIT */
/* The de-privileged host's CPU: its VMCS, its exits, its calls, its gate, and how all of its CPUs are taken. */
#ifndef HOST_CPU_H
#define HOST_CPU_H

#include "cpu.h"

/*
 * Builds this CPU's VMCS for the host. state: where it resumes, or NULL for a CPU that waits for a SIPI (every CPU but
 * the boot CPU). Leaves the VMCS current.
 */
void host_vmcs_init(struct cpu *cpu, const struct boot_cpu_state *state);

/*
 * Loads the architectural state after INIT ("Processor State After INIT") and a SIPI with that vector into the current
 * VMCS. cr0_kept: what the host believes of CR0.CD and NW, which INIT keeps. Leaves the activity state alone.
 */
void host_load_sipi_state(u64 vector, u64 cr0_kept);

/*
 * The first VM entry, with all general registers 0. Does not return: VM exits arrive in exit_dispatch(). exit.asm.
 */
void host_launch(void) __attribute__((noreturn));

/*
 * Queues a latched NMI or machine check for the next VM entry, if there is room; else sees to it that the host exits
 * again.
 */
void host_deliver_latched(struct cpu *cpu);

/* CPUID leaves below 32 that filter_cpuid() changes: exit.asm answers the others itself, and of leaf 0xd all but subleaf 1. */
#define CPUID_FILTERED_LEAVES                                                                                          \
	(BIT(0x1) | BIT(0x6) | BIT(0x7) | BIT(0xd) | BIT(0x12) | BIT(0x14) | BIT(0x19) | BIT(0x1b) | BIT(0x1c))

/* What the host sees of the CPU's answer. */
void filter_cpuid(u32 leaf, u32 subleaf, struct cpuid_result *r);

/* What shuts a CPU down: without a monitor the chipset resets the machine then. Does not come back. */
void end_machine(const char *why);

/* Exit handlers by family, for the table in exit.c. regs: the host's general registers but RSP. */
void exit_cpuid(struct registers *regs);
void exit_rdmsr(struct registers *regs);
void exit_wrmsr(struct registers *regs);
void exit_cr_access(struct registers *regs);
void exit_xsetbv(struct registers *regs);
void exit_exception_or_nmi(struct registers *regs);
void exit_nmi_window(struct registers *regs);
void exit_init(struct registers *regs);
void exit_sipi(struct registers *regs);
void exit_triple_fault(struct registers *regs);
void exit_refused_instruction(struct registers *regs);
void exit_ept_violation(struct registers *regs);
void exit_io(struct registers *regs);

/* The I/O bitmaps of the host's VMCS, the same on all CPUs. Boot CPU, once; and into the VMCS that is current. port.c. */
void port_init(void);
void port_write_bitmaps(void);

/* Serves a call of the host's (hyperps/abi.h); regs hold its registers. Never fails otherwise than by an error code. */
void serve_call(struct registers *regs);

/* Starts every other CPU and takes it into VMX; takeover.c. Returns a HYPERPS_* code. Boot CPU only, once. */
s64 take_other_cpus(void);

/* Holds a started CPU (not the boot CPU) back until all have arrived. */
void wait_for_permission_to_enter(void);

/*
 * HYPERPS_CALL_GATE_SET on this CPU; see hyperps/abi.h. linear and top: bytes. Returns 0 with *cr3, or an error code;
 * then the gate is off on this CPU. In VMX root, in the host view, under mm_lock.
 */
s64 gate_set(struct cpu *cpu, u64 linear, u64 top, u64 *cr3);

/*
 * After an exit from the monitor view: the host exits when it next loads CR3, which it does right after it has come
 * back. What is latched is delivered then.
 */
void gate_wait_for_cr3(const struct cpu *cpu);

/*
 * Bits of IA32_DEBUGCTL that switch the gate off: last-branch records would go on in the monitor view, and traps on
 * branches would wait for its first one.
 */
#define GATE_DEBUGCTL_REFUSED (BIT(0) | BIT(1))

/* Switches VM functions off on this CPU, and gives it back the register bits that the gate pinned. Host view. */
void gate_off(struct cpu *cpu);

/* After the host's state was loaded as a whole: the gate is off if it does not fit that. Host view. */
void gate_check(struct cpu *cpu);

/*
 * To be called first on each exit whose EPT pointer is not the host view's (SDM, "EPTP Switching": VMFUNC changes the
 * VMCS field): a CPU in the airlock goes back to the host view. Returns whether that is all; else the exit is to be
 * handled as one in the host view.
 */
bool gate_exit(struct cpu *cpu, u32 reason);

/* Whether a write of the value to CR0 or CR4 (number 0 or 4) breaks what the gate needs. */
bool gate_needs(const struct cpu *cpu, unsigned number, u64 value);

#endif
