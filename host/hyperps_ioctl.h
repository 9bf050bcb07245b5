/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The interface of /dev/hyperps between hyperps.ko and user space. All errors are negative returns of ioctl(2) with
 * errno; any request may also fail with EFAULT (bad pointer), ENOTTY (no such request on this descriptor) and ENODEV
 * (the monitor does not answer).
 */
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
 * object. Errors: EINVAL no such object or index, offset past its end, or offset + length overflows; EINTR a fatal
 * signal came first.
 */
struct hyperps_read {
	uint32_t object;
	uint32_t index;
	uint64_t offset;
	uint64_t length;
	uint64_t buffer;
};

#define HYPERPS_IOC_READ _IOW('H', 0x50, struct hyperps_read)

/*
 * HYPERPS_IOC_CREATE_VM: a new, empty VM. The argument is 0. Returns a file descriptor, close-on-exec, which is the only
 * name of the VM: fork(2), dup(2) and SCM_RIGHTS share it. When the last one is closed, however its process ends, the
 * VM ends, and its memory goes back to Linux, zeroed by the monitor. While it exists the module can't be removed.
 * Errors: EINVAL the argument is not 0; EMFILE, ENFILE; ENOMEM too many VMs, or no memory here or in the monitor;
 * EPERM not every CPU runs under the monitor.
 *
 * The other requests go to that descriptor, from any number of threads at once. They fail with EINTR when the process
 * is killed while it waits for another one of them, and with ENOENT when the VM is gone, which only code in the kernel
 * can bring about. Addresses and sizes are in bytes, multiples of 4096; gpa + size is at most HYPERPS_VM_GPA_LIMIT;
 * whatever is not fails with EINVAL.
 */
#define HYPERPS_IOC_CREATE_VM _IO('H', 0x51)

#define HYPERPS_VM_GPA_LIMIT (1ULL << 46)

/*
 * HYPERPS_VM_IOC_DECLARE: says that [gpa, gpa + size) is RAM of the VM, with these permissions: 1 read (always), 2
 * write, 4 execute. At most HYPERPS_VM_RANGES ranges, which don't overlap. Returns 0. Errors: EINVAL also for too many
 * ranges and for permissions; EACCES it overlaps another range; EBUSY the VM is sealed.
 */
struct hyperps_vm_declare {
	uint64_t gpa;
	uint64_t size;
	uint64_t permissions;
};

#define HYPERPS_VM_IOC_DECLARE _IOW('H', 0x52, struct hyperps_vm_declare)

/*
 * HYPERPS_VM_IOC_POPULATE: fills [gpa, gpa + size), which lies in one declared range, with new memory: the content of
 * the caller's buffer at the address in source, or zeros if that is 0. Afterwards the VM has the memory and the host
 * does not. It is taken from Linux 2 MiB at a time where gpa is a multiple of that and such a piece is to be had, else
 * page by page; it is charged to the caller's memory cgroup, but counts for no process's size.
 *
 * Returns the bytes done, from gpa on: fewer than size after HYPERPS_VM_POPULATE_MAX bytes, on a signal, or if the rest
 * failed; call again for the rest. With none done the errors are: EINTR a signal came first; ENOMEM no memory, here or
 * in the monitor (no process is killed for it); EACCES the VM has memory there; EPERM it is not in one declared range;
 * EBUSY source is given but the VM is sealed: only zeros go into a sealed VM; EFAULT source can't be read.
 * EAGAIN, whether or not something was done: a CPU did not flush in time; what was done is the VM's, and becomes usable
 * by the next POPULATE or SEAL that succeeds.
 */
struct hyperps_vm_populate {
	uint64_t gpa;
	uint64_t size;
	uint64_t source;
};

#define HYPERPS_VM_IOC_POPULATE _IOW('H', 0x53, struct hyperps_vm_populate)
#define HYPERPS_VM_POPULATE_MAX (1UL << 30)

/*
 * HYPERPS_VM_IOC_SEAL: the ranges are final, and the host puts no more content into the VM. The argument is 0. Returns
 * 0. Errors: EINVAL the argument is not 0; EBUSY the VM is sealed already; EAGAIN a CPU did not flush in time.
 */
#define HYPERPS_VM_IOC_SEAL _IO('H', 0x54)

/* HYPERPS_VM_IOC_INFO: what the monitor knows of the VM. Returns 0. */
#define HYPERPS_VM_IOC_INFO _IOR('H', 0x55, struct hyperps_vm)

#endif
