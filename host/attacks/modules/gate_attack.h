/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What an attacker with ring 0 of the host brings to the gate of one CPU: a gate page, top-level page table and interrupt
 * descriptor table of its own, and one way in, with every register under its control. One attempt at a time.
 */
#ifndef GATE_ATTACK_H
#define GATE_ATTACK_H

#include <linux/seq_file.h>
#include <linux/types.h>
#include <asm/desc_defs.h>

#define MONITOR_LINEAR 0xfffff00000000000ULL /* where the monitor view has the monitor's memory */
#define DIRECT_LINEAR 0xffffec0000000000ULL /* its direct map of donated memory, up to MONITOR_LINEAR */
/* From the EPTP list's page, in the airlock, to the gate page. */
#define LIST_TO_GATE 0x6f6f6000ULL
#define LANDING 0x797 /* offset of the landing in the gate page */
#define VMFUNC_BYTES 3

/* In the order in which gate_attempt.S knows them. */
enum { RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, REGISTERS };

/* Everything that is loaded before one attempt, and what came of it. gate_attempt.S knows the offsets. */
struct gate_attempt {
	u64 registers[REGISTERS];
	u64 rip, cs, flags, rsp, ss; /* for IRETQ */
	u64 cr3;
	u64 dr[4], dr7;
	struct desc_ptr idtr, gdtr;
	u64 done, vector, error, fault_rip, result, status;
};

#define CAME_BACK (~0ULL) /* in `vector`: at the gate page's return offset */

extern struct gate_attempt gate_attempt;

/* Runs the attempt with interrupts off, and restores all it loaded. Any fault ends it, and so does the return offset. */
void gate_attempt_run(void);

enum outcome {
	CALLED, /* a correct call */
	REFUSED, /* #UD at the VMFUNC, or on the gate page */
	PASSED, /* VMFUNC did nothing, or an interrupt came before anything happened */
	WRONG, /* anything else */
	OUTCOMES
};

struct gate_rig {
	u64 *top; /* two pages: the top-level table, and one that is never loaded */
	u64 gate, list; /* linear addresses */
	u64 top_address; /* guest-physical; C of hyperps/abi.h */
	u64 cr3; /* as GATE_SET gave it */
	u8 *page; /* what is at `gate` in the host view */
	u8 *before; /* the page before that one */
	u8 *stack;
	gate_desc *idt;
};

extern struct gate_rig rig;

/* All of the rig, and the gate switched on on this CPU. Returns 0 or an error. */
long rig_start(void);
void rig_stop(void);

/* Switches the gate on on this CPU, with the rig's addresses. HYPERPS_ERROR_PERMISSION: there is none; all else is there. */
long rig_on(void);

/* GATE_SET on this CPU. */
long gate_set(u64 linear, u64 top);

/* Maps a page in the rig's tables. flags: _PAGE_GLOBAL or 0. */
bool rig_map(u64 linear, const void *page, u64 flags);

/*
 * Prepares an attempt whose VMFUNC(1) ends at this offset of the gate page, after these bytes of code. All registers are
 * those of a call of IDENTIFY; the caller may change them before rig_run().
 */
void rig_prepare(unsigned int offset, const u8 *before, unsigned int count);
enum outcome rig_run(void);

/* rig_prepare() and rig_run() for the way that the interface describes. */
enum outcome rig_call(void);

/* VMFUNC from the module itself: the vector, or VECTOR_NONE. Interrupts off. */
int try_vmfunc(u32 leaf, u64 index);

/* How many of the indices VMFUNC does not refuse. */
unsigned int indices_open(unsigned int first, unsigned int last);

/* Throws away all of the TLB, global entries, too. */
void flush_global(void);

/* The attacks, by file. */
void attack_entries(struct seq_file *out);
void attack_offsets(struct seq_file *out);
void attack_registers(struct seq_file *out);
void attack_tables(struct seq_file *out);
void attack_stale(struct seq_file *out);
void attack_modes(struct seq_file *out);
void attack_set(struct seq_file *out);
void attack_latched(struct seq_file *out);

#endif
