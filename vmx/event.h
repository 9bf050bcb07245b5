/* SPDX-License-Identifier: MIT */
/* Events for, and the mode of, the virtual CPU whose VMCS is current: the host's or a guest's. */
#ifndef EVENT_H
#define EVENT_H

#include "cpu.h"

/* Queues an exception for the next VM entry. An error code is 0, unless the caller writes another one. */
void inject_exception(u32 vector);

/* Queues any event: EVENT_TYPE_* and a vector. */
void inject(u64 information);

/*
 * Queues a #GP, or what it becomes if it came while the event with this IDT-vectoring information was being delivered
 * (SDM, "Interrupt 8 - Double Fault Exception"). False if that is a triple fault; then nothing is queued.
 */
bool inject_gp_during(u64 vectoring);

/*
 * Queues the #DB or #AC that has just made this CPU exit, with what its delivery would have done to DR6 and DR7. False, and
 * nothing is queued: it was another event.
 */
bool reflect_exception(void);

#define PENDING_DEBUG_ENABLED BIT(12)
#define PENDING_DEBUG_BS BIT(14)
#define DEBUGCTL_BTF BIT(1)

/* SDM, "Information for VM Exits That Occur During Event Delivery": the event is delivered at the next entry. */
void deliver_again(void);

/* SDM, "NMI unblocking due to IRET": an EPT violation's IRET will be executed again, until then NMIs are blocked. */
void block_nmi_again(u64 qualification, u64 vectoring);

/* Latches the NMI or machine check that has just made this CPU exit, unless it was an NMI for a flush; NMIs are not blocked any more. */
void latch_exit(struct cpu *cpu);

/* Whether the event (LATCHED_*) waited. It does not any more. */
bool take_latched(struct cpu *cpu, u32 event);

/* Whether 64-bit code runs, at CPL 0: the only place from which the host may call the monitor. */
bool is_64bit_ring0(void);

/* Whether 64-bit code runs: its instruction pointer does not wrap at 4 GiB. */
bool is_64bit(void);

/* Current privilege level. */
unsigned privilege_level(void);

#endif
