/* SPDX-License-Identifier: GPL-2.0 */
/* How hyperps.ko calls the monitor: through its gate where that is on, else by VMCALL. */
#ifndef CALL_H
#define CALL_H

#include "hyperps_ioctl.h"
#include "vmcall.h"

/*
 * Returns 0 with the result words, or a negative error code: the monitor's own, or -ENODEV if VMCALL faulted or gave a
 * value that the monitor never gives; what was asked for may then have been done or not.
 */
long hyperps_call(u64 number, const u64 argument[HYPERPS_ARGUMENTS], u64 result[HYPERPS_RESULTS]);

/* A call about a VM. Result word 0, which is never negative, or an error code. */
long vm_call(u64 number, u64 handle, u64 a, u64 b, u64 c);

/* Reads the object of that kind of the VM in a slot, or with a handle: HYPERPS_READ_BYTES bytes. */
long vm_read_object(u64 slot_or_handle, u64 object, void *out);

#endif
