/* SPDX-License-Identifier: MIT */
/* Reading the monitor's objects through /dev/hyperps. */
#ifndef MONITOR_DEVICE_H
#define MONITOR_DEVICE_H

#include <stddef.h>

#include "hyperps/abi.h"

/* Open /dev/hyperps. Returns a file descriptor, or -1 with errno as open(2) sets it. */
int monitor_open(void);

/*
 * Read size bytes of an object (HYPERPS_OBJECT_*) from a byte offset on. Returns 0, or -1 with errno: ENODATA if the
 * object is shorter, else as HYPERPS_IOC_READ sets it.
 */
int monitor_read(int device, uint32_t object, uint32_t index, uint64_t offset, void *buffer, size_t size);

/*
 * Read the status or a CPU slot's exit counters. Errors as monitor_read(), and EPROTO for a status of another layout.
 */
int monitor_read_status(int device, struct hyperps_status *status);
int monitor_read_exits(int device, uint32_t slot, struct hyperps_exits *exits);

#endif
