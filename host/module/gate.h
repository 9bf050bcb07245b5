/* SPDX-License-Identifier: GPL-2.0 */
/* Calls to the monitor through its gate, without a VM exit. */
#ifndef GATE_H
#define GATE_H

#include <linux/linkage.h>
#include <linux/types.h>

/* Switches the gate on, on every CPU that is or comes online. Returns 0, or why it stays off; calls then use VMCALL. */
int hyperps_gate_start(void);
void hyperps_gate_stop(void);

struct gate_result {
	long status;
	u64 value;
};

/* What gate_page.S sets in the CR3 with which this kernel goes on. */
extern u64 hyperps_cr3_bits;

/* The gate's own code; gate_page.S. gate_cr3 as GATE_SET gave it. */
asmlinkage struct gate_result hyperps_gate_enter(u64 argument1, u64 argument2, u64 argument3, u64 gate_cr3,
						 u64 argument4, u64 number);

/* Set in the CR3 with which this kernel goes on: keep the TLB, where that can be said. */
extern u64 hyperps_cr3_bits;

/* The gate's CR3; 0 if it is off. */
u64 hyperps_gate_cr3(void);

/*
 * One call through the gate. -EOPNOTSUPP: it is off on this CPU, or does not serve this call: use VMCALL. Any context
 * but NMI.
 */
long hyperps_gate_call(u64 number, const u64 argument[4], u64 *value);

#endif
