/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The interface of /dev/hyperps_demo between hyperps_demo.ko, which plays a hostile kernel, and hpsctl demo. Errors of
 * ioctl(2): EINVAL a wrong value, EFAULT; an attack that the monitor refuses is no error.
 */
#ifndef HYPERPS_DEMO_H
#define HYPERPS_DEMO_H

#include "hyperps_ioctl.h"

#define DEMO_DEVICE "/dev/hyperps_demo"
#define DEMO_PAGES 8
#define DEMO_VALUE 0x656e69732065766fULL /* what the attacker's own pages begin with */
#define DEMO_WRITTEN 0x21646e656b6f7262ULL /* what it writes over others */
#define DEMO_NO_FAULT (-1)

/* What the attacker has of its own: pages, and a VM with RAM at [0, DEMO_PAGES * 4096). Both live as long as the file. */
struct demo_own {
	uint64_t frame[DEMO_PAGES];
	uint64_t vm;
};

#define DEMO_IOC_OWN _IOR('H', 0x70, struct demo_own)

enum demo_mapping { DEMO_DIRECT = 0, DEMO_FRESH, DEMO_MAPPINGS };

/*
 * Reads or writes the 8 bytes at an offset, a multiple of 8, of a frame of RAM: through the kernel's direct mapping, or
 * one that is made for it. A write that works is read back and undone.
 */
struct demo_access {
	uint64_t frame;
	uint32_t offset;
	uint32_t mapping; /* enum demo_mapping */
	uint32_t write;
	int32_t fault; /* result: the exception's vector, or DEMO_NO_FAULT */
	uint64_t value; /* result: what was read. Of a write: what to put there afterwards; result: what it left */
};

#define DEMO_IOC_ACCESS _IOWR('H', 0x71, struct demo_access)

/* Reads all of a frame through the direct mapping. */
struct demo_look {
	uint64_t frame;
	int32_t fault; /* result: likewise */
	uint32_t words; /* result: how many of its 512 words of 8 bytes are not zero */
};

#define DEMO_IOC_LOOK _IOWR('H', 0x72, struct demo_look)

/* VM_MAP of one frame. */
struct demo_map {
	uint64_t vm, gpa, frame;
	int64_t result; /* the monitor's answer */
};

#define DEMO_IOC_MAP _IOWR('H', 0x73, struct demo_map)

/*
 * A call to the monitor with all registers but RSP set; afterwards what they hold. It must be HYPERPS_CALL_IDENTIFY or
 * HYPERPS_CALL_VCPU_RUN; after so many nanoseconds an interrupt comes.
 */
enum demo_register {
	DEMO_RAX = 0,
	DEMO_RCX,
	DEMO_RDX,
	DEMO_RBX,
	DEMO_RSP, /* not used */
	DEMO_RBP,
	DEMO_RSI,
	DEMO_RDI,
	DEMO_R8, /* to R15 */
	DEMO_REGISTERS = 16
};

struct demo_call {
	uint64_t general[DEMO_REGISTERS];
	uint64_t xmm[2 * DEMO_REGISTERS];
	uint64_t interrupt;
};

#define DEMO_IOC_CALL _IOWR('H', 0x74, struct demo_call)

/* VM_DESTROY and VM_RECLAIM of any VM: what it had is the host's again. The argument points to its handle. */
#define DEMO_IOC_END _IOW('H', 0x75, uint64_t)

#endif
