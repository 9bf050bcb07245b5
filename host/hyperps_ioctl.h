/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/* The interface of /dev/hyperps between hyperps.ko and user space. */
#ifndef HYPERPS_IOCTL_H
#define HYPERPS_IOCTL_H

#include "hyperps/abi.h"

#ifdef __KERNEL__
#include <linux/ioctl.h>
#else
#include <sys/ioctl.h>
#endif

#define HYPERPS_DEVICE "/dev/hyperps"

/* The bytes that one HYPERPS_IOC_READ copies at most. */
#define HYPERPS_READ_MAX (1UL << 20)

/*
 * HYPERPS_IOC_READ: copy the bytes [offset, offset + length) of an object of the monitor (HYPERPS_OBJECT_*) to the
 * address in buffer. Returns the bytes copied: fewer than length at the object's end, after HYPERPS_READ_MAX bytes, or
 * on a signal. The monitor pads an object's last piece to HYPERPS_READ_BYTES with zeros, and these count as part of the
 * object. Errors: EINVAL no such object or index, offset past its end, or offset + length overflows; EFAULT bad buffer;
 * EINTR a fatal signal came first; ENODEV the monitor does not answer (on this CPU).
 */
struct hyperps_read {
	uint32_t object;
	uint32_t index;
	uint64_t offset;
	uint64_t length;
	uint64_t buffer;
};

#define HYPERPS_IOC_READ _IOW('H', 0x50, struct hyperps_read)

#endif
