/* SPDX-License-Identifier: MIT */
/* The de-privileged host's virtual CPU: its VMCS, its policy, and one handler for each family of exit reasons. */
#ifndef HOST_H
#define HOST_H

#include "cpu.h"
#include "boot_info.h"
#include "vmx.h"

/* CR4 bits that the host may change as it likes; any other is refused with #GP. */
#define HOST_CR4_ALLOWED                                                                                               \
	(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |         \
	 CR4_OSXMMEXCPT | CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |         \
	 CR4_PKE)

/* MCE the host only believes to change: without it a machine check shuts the CPU down, and that is no VM exit. */
#define HOST_CR4_OWNED (~HOST_CR4_ALLOWED | CR4_MCE)

/*
 * CR0 bits that the host only believes to change: NE is fixed to 1 in VMX operation, and with CD or NW set root would
 * run without caches. The host sees its own values through the read shadow.
 */
#define HOST_CR0_OWNED (CR0_NE | CR0_CD | CR0_NW)

/* Of the virtual CPU whose VMCS is current, the host's or a guest's; event.c. */

/* Moves past the instruction that exited, or past so many bytes, as the CPU would have. */
void skip_instruction(void);
void skip_bytes(u64 bytes);

/* Queues an exception for the next VM entry. An error code is 0, unless the caller writes another one. */
void inject_exception(u32 vector);

/* Queues any event: EVENT_TYPE_* and a vector. */
void inject(u64 information);

/*
 * Queues a #GP, or what it becomes if it came while the event with this IDT-vectoring information was being delivered
 * (SDM, "Interrupt 8 - Double Fault Exception"). False if that is a triple fault; then nothing is queued.
 */
bool inject_gp_during(u64 vectoring);

#define PENDING_DEBUG_ENABLED BIT(12)
#define PENDING_DEBUG_BS BIT(14)
#define DEBUGCTL_BTF BIT(1)

/* Latches the NMI or machine check that has just made this CPU exit, unless it was an NMI for a flush. */
void latch_exit(struct cpu *cpu);

/* Whether 64-bit code runs, at CPL 0: the only place from which the host may call the monitor. */
bool is_64bit_ring0(void);

/* Whether 64-bit code runs: its instruction pointer does not wrap at 4 GiB. */
bool is_64bit(void);

/* Current privilege level. */
unsigned privilege_level(void);

/* VMXON on this CPU. Locks IA32_FEATURE_CONTROL if the firmware left it open. A failure panics. */
void vmx_switch_on(struct cpu *cpu);

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

/* The state after a reset; only CR0.ET is set, and CS is that of real mode at 0. */
extern const struct boot_cpu_state reset_state;

/*
 * Parts of any VMCS, the current one: what is the same for host and guests; their registers, with what VMX operation
 * needs of CR0 and CR4; and root's own state on this CPU with exits arriving at rip.
 */
void vmcs_write_defaults(u32 secondary);
void vmcs_write_state(const struct boot_cpu_state *state);
void vmcs_write_root_state(struct cpu *cpu, u64 rip);

/*
 * The first VM entry, with all general registers 0. Does not return: VM exits arrive in exit_dispatch(). vmx/exit.asm.
 */
void host_launch(void) __attribute__((noreturn));

/* Makes this CPU's VMCS of the host the current one again. */
void host_vmcs_load(struct cpu *cpu);

/* Lets the bits of CR0 that the monitor owns read as in value, in the current VMCS. */
void cr0_follow(u64 value);

/*
 * Queues a latched NMI or machine check for the next VM entry, if there is room; else sees to it that the host exits
 * again.
 */
void host_deliver_latched(struct cpu *cpu);

/*
 * XSETBV as the CPU would, with these bits of XCR0 supported, or a #GP for it. Returns whether it was done. The CPU
 * itself judges which combinations of bits are valid.
 */
bool execute_xsetbv(const struct guest_registers *regs, u64 supported);

/* Whether a basic exit reason is an instruction that raises #UD in hosts and guests, wherever it is executed. */
bool is_undefined_instruction(u32 reason);

/* Exit handlers by family, for the table in core/exit.c. regs: the host's general registers but RSP. */
void exit_cpuid(struct guest_registers *regs);
void exit_rdmsr(struct guest_registers *regs);
void exit_wrmsr(struct guest_registers *regs);
void exit_cr_access(struct guest_registers *regs);
void exit_xsetbv(struct guest_registers *regs);
void exit_exception_or_nmi(struct guest_registers *regs);
void exit_nmi_window(struct guest_registers *regs);
void exit_init(struct guest_registers *regs);
void exit_sipi(struct guest_registers *regs);
void exit_triple_fault(struct guest_registers *regs);
void exit_refused_instruction(struct guest_registers *regs);
void exit_ept_violation(struct guest_registers *regs);
void exit_io(struct guest_registers *regs);

/* The I/O bitmaps of the host's VMCS, the same on all CPUs. Boot CPU, once; and into the VMCS that is current. port.c. */
void port_init(void);
void port_write_bitmaps(void);

#endif
