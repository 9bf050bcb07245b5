/* SPDX-License-Identifier: GPL-2.0 */
/* Events at every instruction of a call through the gate: gate_sweep.c, and gate_sweep_cpu.S for a CPU without Linux. */
#ifndef GATE_SWEEP_H
#define GATE_SWEEP_H

#define SWEEP_PAGE 0x50000 /* below 1 MiB, where Linux keeps nothing but its own start-up code (further up) */
#define SWEEP_LEAD 60 /* ticks by which a call begins later than the first event is sent */

#ifndef __ASSEMBLY__
#include <linux/types.h>
#include <asm/desc_defs.h>

struct seq_file;

/* NMI, flush and INIT at each instruction; the gate must be on. On CPU 0 of a machine with two CPUs. */
void check_sweeps(struct seq_file *out);

/* What the CPU without Linux is told, and tells. gate_sweep_cpu.S knows the offsets. */
struct sweep_cpu {
	u64 top; /* for GATE_SET */
	u64 moment; /* of the call: then + SWEEP_LEAD, by the TSC; 0: wait */
	u64 ready; /* how often it has come that far */
	u64 error; /* of GATE_SET */
	u64 entered, done; /* the call */
	u64 status, value;
	u32 set_number, call_number;
};

extern struct sweep_cpu sweep_cpu;
extern struct desc_ptr sweep_idtr;
#endif

#endif
