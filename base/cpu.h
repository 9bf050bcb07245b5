/* SPDX-License-Identifier: MIT */
/* Per-CPU state of VMX root. Each CPU slot has one area of monitor memory; GS points to its struct cpu. */
#ifndef CPU_H
#define CPU_H

#include "boot_info.h"
#include "gate_state.h"
#include "instructions.h"

/*
 * General registers in hardware-encoding order, so that CR and MSR exits decode by index. [4] (RSP) lies in the VMCS.
 */
struct registers {
	u64 value[16];
};

enum { REGISTER_RAX, REGISTER_RCX, REGISTER_RDX, REGISTER_RBX, REGISTER_RSP, REGISTER_RBP, REGISTER_RSI, REGISTER_RDI };
enum { REGISTER_R8 = 8, REGISTER_R9, REGISTER_R10, REGISTER_R11 };

/* The operand of WRMSR and XSETBV. */
static inline u64 edx_eax(const struct registers *regs)
{
	return regs->value[REGISTER_RDX] << 32 | (u32)regs->value[REGISTER_RAX];
}

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS 0x18 /* two entries */
#define GDT_ENTRIES 5

struct tss {
	u8 stacks[36]; /* not used: root has no other privilege level */
	u64 ist[7];
	u8 reserved[10];
	u16 io_map;
} __attribute__((packed));

#define IST_NMI 1 /* NMIs come at any instruction */
#define IST_DF 2 /* also machine check, which comes in the middle of the NMI handler, too */

#define CPU_STACK_PAGES 4
#define LOG_SIZE 65536 /* bytes of the log ring, a power of two */

/* XSAVE area of what a guest may use: x87, SSE, AVX, AVX-512 and PKRU in the standard format. */
#define GUEST_FPU_BYTES 2752

/* Events that arrived while this CPU was in VMX root, for the host at its next entry. */
#define LATCHED_NMI BIT(0)
#define LATCHED_MACHINE_CHECK BIT(1)
#define LATCHED_INIT BIT(2) /* one that came in the middle of the gate */

struct nested;

struct cpu {
	struct cpu *self; /* read through GS */
	u32 slot;
	u32 apic_id; /* initial APIC ID, from CPUID */
	volatile u32 state; /* HYPERPS_CPU_STATE_* */
	volatile u32 latched; /* LATCHED_*; set by the NMI and #MC handlers with a locked OR */
	volatile bool vmcs_current; /* a VMCS is current and complete: the NMI handler may use VMWRITE */
	volatile bool timer_wakes; /* the current VMCS is VMCS02: what waits makes it exit by its preemption timer */
	bool shadowing; /* L1's VMREAD and VMWRITE use a shadow VMCS: nested/shadow_vmcs.c */
	struct nested *nested; /* nested/nested.h; NULL: VMX is not offered */
	u64 exit_rip_l2; /* where exits arrive of VMs that the host runs */
	volatile u32 primary; /* its primary controls, but for the exiting at an NMI window */
	volatile u64 flushed; /* epoch after whose beginning this CPU has flushed its EPT translations; base/flush.c */
	volatile bool parked; /* waits for a SIPI, and flushes before it runs host code again */
	volatile bool kicked; /* an NMI for a flush is on its way: not one of the host's */
	u8 *window; /* one page of linear addresses for work on a frame; base/address_space.c */
	volatile u64 *window_entry; /* its page-table entry */
	u64 tsc_written; /* by how much the host has moved this CPU's TSC */
	u64 exits[HYPERPS_EXIT_REASONS];
	u64 exits_vmcall;
	struct mtrr_state mtrr; /* what the host believes; MTRR writes change this alone */
	struct vmx_capabilities capabilities;
	struct gate gate;
	u8 host_fpu[GUEST_FPU_BYTES] __attribute__((aligned(64))); /* the host's, while a guest runs */
	u64 gdt[GDT_ENTRIES];
	struct tss tss;
};

/* One CPU slot's memory. The page below each stack is not mapped, to catch an overflow. */
struct cpu_area {
	u8 stack_guard[PAGE_SIZE];
	u8 stack[CPU_STACK_PAGES * PAGE_SIZE];
	u8 nmi_stack_guard[PAGE_SIZE];
	u8 nmi_stack[PAGE_SIZE];
	u8 double_fault_stack_guard[PAGE_SIZE];
	u8 double_fault_stack[PAGE_SIZE];
	u8 vmxon[PAGE_SIZE];
	u8 vmcs[PAGE_SIZE];
	struct gate_area gate;
	struct cpu cpu __attribute__((aligned(PAGE_SIZE)));
} __attribute__((aligned(PAGE_SIZE)));

/* The CPU this runs on. Valid in VMX root once load_descriptor_tables() has loaded GS. */
static inline struct cpu *this_cpu(void)
{
	return read_gs_0();
}

static inline struct cpu_area *cpu_area_of(struct cpu *cpu)
{
	return (struct cpu_area *)((u8 *)cpu - offsetof(struct cpu_area, cpu));
}

/* The monitor's IDT, one for all CPUs: gates of 16 bytes. */
extern u64 idt[32][2];

/* Builds GDT, TSS and IDT of this CPU's slot and loads them. Called once per CPU, from the entry path. */
void cpu_load_tables(struct cpu *cpu);

#endif
