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
 * VM ends, and its memory goes back to Linux, zeroed by the monitor; but not before those of its vCPUs are closed, too.
 * While it exists the module can't be removed.
 * Errors: EINVAL the argument is not 0; EMFILE, ENFILE; ENOMEM too many VMs, or no memory here or in the monitor;
 * EPERM not every CPU runs under the monitor; ESHUTDOWN another kernel is about to be started by kexec.
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
 * write, 4 execute; or HYPERPS_RANGE_MMIO: no RAM, accesses are for user space to answer. At most HYPERPS_VM_RANGES
 * ranges, which don't overlap. Returns 0. Errors: EINVAL also for too many ranges and for permissions; EACCES it
 * overlaps another range; EBUSY the VM is sealed.
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
 * does not. It is taken from Linux 2 MiB at a time where gpa is a multiple of that, no page is there yet and such a
 * piece is to be had, else page by page; it is charged to the caller's memory cgroup, but counts for no process's size.
 *
 * Returns the bytes done, from gpa on: fewer than size after HYPERPS_VM_POPULATE_MAX bytes, on a signal, or if the rest
 * failed; call again for the rest. With none done the errors are: EINTR a signal came first; ENOMEM no memory, here or
 * in the monitor (no process is killed for it); EADDRNOTAVAIL Linux has no memory left that the monitor counts as the host's
 * (what it has else is kept aside until the VM's end, down to an eighth of all memory); EACCES the VM has memory there; EPERM it is not in one declared range;
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
 * HYPERPS_VM_IOC_SEAL: the monitor measures the VM, after which the ranges are final, the host puts no more content into
 * it, and its vCPUs can run. The argument is 0. Returns 0. Errors: EINVAL the argument is not 0; EBUSY the VM is sealed
 * already; EAGAIN a CPU did not flush in time; EINTR the process is killed: the VM is half sealed then, and SEAL goes on
 * from there.
 */
#define HYPERPS_VM_IOC_SEAL _IO('H', 0x54)

/* HYPERPS_VM_IOC_INFO: what the monitor knows of the VM. Returns 0. */
#define HYPERPS_VM_IOC_INFO _IOR('H', 0x55, struct hyperps_vm)

/* HYPERPS_VM_IOC_MEASUREMENT: what the monitor measured. Returns 0. Errors: ENODATA the VM is not sealed. */
#define HYPERPS_VM_IOC_MEASUREMENT _IOR('H', 0x56, struct hyperps_measurement)

/*
 * HYPERPS_VM_IOC_CREATE_VCPU: one more vCPU of a VM that is not sealed yet; the fields are those of VCPU_CREATE in
 * hyperps/abi.h. Returns a file descriptor, close-on-exec, for the requests HYPERPS_VCPU_IOC_*. mmap(2) of one page of
 * it, MAP_SHARED from offset 0, gives its struct hyperps_run. Errors: EINVAL a wrong value, or HYPERPS_VCPUS are there; EBUSY the
 * VM is sealed; EMFILE, ENFILE; ENOMEM no memory, here or in the monitor.
 */
struct hyperps_vm_create_vcpu {
	uint64_t mode; /* enum hyperps_vcpu_mode */
	uint64_t argument;
	uint64_t entry;
	uint64_t cr3;
};

#define HYPERPS_VM_IOC_CREATE_VCPU _IOW('H', 0x57, struct hyperps_vm_create_vcpu)

/*
 * HYPERPS_VM_IOC_READ_SHARED, _WRITE_SHARED: copy [gpa, gpa + size), of any alignment, between the guest's memory and
 * the address in buffer. The guest must share its pages (HYPERPS_EXIT_SHARED), and may take them back at any time.
 * Returns the bytes done: fewer than size after HYPERPS_READ_MAX bytes, on a signal, or if the rest failed. With none
 * done the errors are: EINTR a fatal signal came first; EACCES the guest does not share the page; EFAULT buffer is
 * wrong, or the guest took the page back in that moment.
 */
struct hyperps_vm_shared {
	uint64_t gpa;
	uint64_t size;
	uint64_t buffer;
};

#define HYPERPS_VM_IOC_READ_SHARED _IOW('H', 0x58, struct hyperps_vm_shared)
#define HYPERPS_VM_IOC_WRITE_SHARED _IOW('H', 0x59, struct hyperps_vm_shared)

/*
 * HYPERPS_VM_IOC_FRAME: the number of the frame that lies at gpa, a multiple of 4096. The host has lent it, so this is no
 * secret. Returns 0. Errors: ENODATA the VM has no page there.
 */
struct hyperps_vm_frame {
	uint64_t gpa;
	uint64_t frame; /* the result */
};

#define HYPERPS_VM_IOC_FRAME _IOWR('H', 0x5a, struct hyperps_vm_frame)

/*
 * What user space and a vCPU tell each other; a page that both map. The fields of the request are read once, when
 * HYPERPS_VCPU_IOC_RUN begins; the others are never read. Those after `exit` hold when RUN has returned 0.
 */
struct hyperps_run {
	uint64_t flags; /* HYPERPS_RUN_* */
	uint64_t answer; /* what the guest's IN or MMIO read gets, after such an exit */
	uint64_t
		event; /* HYPERPS_EVENT_*, or 0; RUN sets it to 0 once the guest has it, also if RUN fails afterwards */
	uint64_t index; /* of this vCPU; set when it is created */
	uint32_t exit; /* enum hyperps_exit */
	uint32_t ready; /* whether the guest could take an external interrupt now */
	union {
		uint64_t words[7]; /* as VCPU_RUN gave them, from word 1 on */
		struct {
			uint64_t port, size, data;
		} io; /* HYPERPS_EXIT_OUT, _IN (without data) */
		struct {
			uint64_t gpa, size, data;
		} mmio; /* HYPERPS_EXIT_MMIO_WRITE, _MMIO_READ (without data) */
		struct {
			uint64_t gpa, access;
		} memory; /* HYPERPS_EXIT_MEMORY */
		struct {
			uint64_t bytes;
			char text[40];
		} console; /* HYPERPS_EXIT_CONSOLE */
		struct {
			uint64_t gpa, count;
		} pages; /* HYPERPS_EXIT_SHARED */
		uint64_t code; /* HYPERPS_EXIT_SHUTDOWN */
		uint64_t failure; /* HYPERPS_EXIT_FAILED: enum hyperps_failure */
	};
};

/* Flags, besides HYPERPS_RUN_INTERRUPT_WINDOW: RAM that the guest touches and has not got yet is populated by RUN. */
#define HYPERPS_RUN_LAZY (1ULL << 63)

/*
 * HYPERPS_VCPU_IOC_RUN: runs the vCPU until there is something for user space to do. The argument is 0. Returns 0, with
 * the exit in struct hyperps_run. These exits it serves itself, and never returns:
 *
 *   HYPERPS_EXIT_INTERRUPTED
 *   HYPERPS_EXIT_MEMORY     of a page that is there: VM_SYNC. With HYPERPS_RUN_LAZY else: a new page, or 2 MiB as
 *                           POPULATE does it, charged to the caller
 *   HYPERPS_EXIT_UNSHARED   VM_SYNC
 *   HYPERPS_EXIT_RELEASED   VM_RECLAIM; the memory goes back to Linux
 *   HYPERPS_EXIT_ROOM       VM_SYNC and VM_RECLAIM; if that is not enough, memory for the monitor's pool
 *
 * After an error RUN can be called again, and goes on from there. Errors: EINVAL the argument is not 0, or a flag or an
 * event is none; EBUSY another thread runs it, the VM is not sealed, or the vCPU has ended (HYPERPS_EXIT_FAILED); EINTR
 * a signal came; EAGAIN the guest can't take the event now (HYPERPS_RUN_INTERRUPT_WINDOW says when), or a CPU did not
 * flush in time; ENOMEM no memory, here or in the monitor; EADDRNOTAVAIL as for POPULATE; ESHUTDOWN another kernel is about to be started by kexec.
 */
#define HYPERPS_VCPU_IOC_RUN _IO('H', 0x60)

#endif
