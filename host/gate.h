/* SPDX-License-Identifier: GPL-2.0 */
/* Calls to the monitor through its gate, without a VM exit. */
#ifndef GATE_H
#define GATE_H

#include <linux/types.h>

/* VMCALL; call.c. Returns 0 with *value = result word 0, or a negative error code. */
long hyperps_vmcall(u64 number, const u64 argument[4], u64 *value);

/* Switches the gate on, on every CPU that is or comes online. Returns 0, or why it stays off; calls then use VMCALL. */
int hyperps_gate_start(void);
void hyperps_gate_stop(void);

/*
 * One call through the gate. -EOPNOTSUPP: it is off on this CPU, or does not serve this call: use VMCALL. Any context
 * but NMI.
 */
long hyperps_gate_call(u64 number, const u64 argument[4], u64 *value);

#endif
