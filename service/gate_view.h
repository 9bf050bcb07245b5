/* SPDX-License-Identifier: MIT */
/*
 * The gate: how the host calls the monitor without a VM exit. The design, and the attack behind each rule, is in
 * docs/gate.md. All of it belongs to one CPU: list, views, frames, stack; nothing is shared between CPUs but the
 * monitor's own memory.
 */
#ifndef GATE_VIEW_H
#define GATE_VIEW_H

#include "cpu.h"

/* Boot CPU, once, while only the monitor has the pool: if the gate is offered, a root for each CPU slot. */
void gate_init(void);

/* enum hyperps_gate: whether the gate is offered on this machine, and if not, why. */
extern u32 gate_state;

/*
 * Adds 2 MiB from hpa on, which the host has donated to the pool and which the caller has mapped, to the monitor view
 * of every CPU. Two pages of the pool at most. Under mm_lock, in VMX root.
 */
void gate_add_memory(hpa_t hpa);

/* Whether some CPU's gate uses an address in the 2 MiB from hpa on as its CR3: then it can't be donated. */
bool gate_uses(hpa_t hpa);

/* Whether a gate page at this linear address and a copy of a top-level table at guest-physical `top` are possible. Bytes. */
bool gate_views_fit(u64 linear, u64 top, unsigned levels);

/*
 * Builds this CPU's airlock, monitor view, landing and list; levels: 4 or 5, of the host's paging. The gate is off.
 * Returns the value for CR3. What the tables were before may still be cached. Under mm_lock.
 */
u64 gate_views_build(struct cpu *cpu, u64 linear, u64 top, unsigned levels);

/* Whether the airlock's code, as it is in memory now, is what was meant, and safe at each offset. */
bool gate_views_are_safe(struct cpu *cpu, u64 cr3);

/* Rewrites the whole EPTP list: host view and airlock, all others empty. */
void gate_reset_list(struct cpu *cpu);

#endif
