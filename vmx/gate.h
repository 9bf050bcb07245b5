/* SPDX-License-Identifier: MIT */
/*
 * The gate: how the host calls the monitor without a VM exit. The design, and the attack behind each rule, is in
 * docs/gate.md. All of it belongs to one CPU: list, views, frames, stack; nothing is shared between CPUs but the
 * monitor's own memory.
 */
#ifndef GATE_H
#define GATE_H

#include "types.h"

struct cpu;
struct guest_registers;

#define GATE_TABLES 32 /* pages for the tables of both views */
#define GATE_STACK_PAGES 2

/* Top of the gate's stack, right below the EPTP list. */
struct gate_frame {
	u8 host_idtr[16]; /* stored by the landing, loaded before it goes back */
	u8 empty_idtr[16]; /* limit 0, written once */
	u64 host_rsp;
	u64 null_selector;
} __attribute__((aligned(16)));

/* A CPU's pages for the gate, contiguous in its cpu_area. */
struct gate_area {
	u8 stack_guard[4096];
	u8 stack[GATE_STACK_PAGES * 4096 - sizeof(struct gate_frame)];
	struct gate_frame frame;
	u64 list[512]; /* EPTP list: 0 host view, 1 airlock, 2 monitor view, filled only while the CPU passes */
	u8 airlock[4096]; /* code */
	u8 landing[4096]; /* code */
	u64 table[GATE_TABLES][512];
};

struct gate {
	bool on; /* VM functions are on: an exit may come from the airlock or the monitor view */
	u64 linear; /* of the gate page */
	u64 top; /* guest-physical address in the gate's CR3; 0 before the first GATE_SET */
	u64 *monitor_top; /* table of PML4 entries that it means in the monitor view */
	u64 *monitor_root; /* of the monitor view's EPT, chosen so that its address is safe code */
	u64 airlock_eptp, monitor_eptp;
	u32 tables_used;
};

/* Boot CPU, once, while only the monitor has the pool: if the gate is offered, a root for each CPU slot. */
void gate_init(void);

/* enum hyperps_gate: whether the gate is offered on this machine, and if not, why. */
extern u32 gate_state;

/*
 * HYPERPS_CALL_GATE_SET on this CPU; see hyperps/abi.h. linear and top: bytes. Returns 0 with *cr3, or an error code;
 * then the gate is off on this CPU. In VMX root, in the host view, under mm_lock.
 */
s64 gate_set(struct cpu *cpu, u64 linear, u64 top, u64 *cr3);

/*
 * Adds 2 MiB from hpa on, which the host has donated to the pool and which the caller has mapped, to the monitor view
 * of every CPU. Two pages of the pool at most. Under mm_lock, in VMX root.
 */
void gate_add_memory(hpa_t hpa);

/* Whether some CPU's gate uses an address in the 2 MiB from hpa on as its CR3: then it can't be donated. */
bool gate_uses(hpa_t hpa);

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

/*
 * To be called first on each exit whose EPT pointer is not the host view's (SDM, "EPTP Switching": VMFUNC changes the
 * VMCS field): a CPU in the airlock goes back to the host view. Returns whether that is all; else the exit is to be
 * handled as one in the host view.
 */
bool gate_exit(struct cpu *cpu, u32 reason);

/* Whether a write of the value to CR0 or CR4 (number 0 or 4) or EFER breaks what the gate needs. */
bool gate_needs(const struct cpu *cpu, unsigned number, u64 value);

#endif
