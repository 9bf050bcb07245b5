/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of hyperps.ko know of each other. */
#ifndef HYPERPS_H
#define HYPERPS_H

#include <linux/types.h>

#include "hyperps_ioctl.h"

#define HYPERPS_ARGUMENTS 4
#define HYPERPS_RESULTS (HYPERPS_READ_BYTES / sizeof(u64))

/*
 * Call the monitor, through its gate where that is on. Returns 0 with the result words, or a negative error code: the monitor's own, or -ENODEV if VMCALL
 * faulted or gave a value that the monitor never gives; what was asked for may then have been done or not.
 */
long hyperps_call(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS]);

/* HYPERPS_IOC_CREATE_VM: the new file descriptor, or a negative error code. */
long hyperps_vm_create(void);

/* Ends every VM for good, whoever has it, and gives its memory back to this kernel; none is made or run any more. */
void hyperps_vm_end_all(void);
bool hyperps_vm_are_ended(void);

/* power.c: from now on sleep is refused, and so are CPUs that the monitor does not have; until the module's end. */
int hyperps_power_start(void);
void hyperps_power_stop(void);

/* For the module's end, when no VM exists any more. */
void hyperps_vm_exit(void);

#endif
