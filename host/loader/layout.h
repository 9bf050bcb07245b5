/* SPDX-License-Identifier: MIT */
/* Where in a VM's memory the kernel gets what. Pure; hpsctl asks it, too. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "boot_params.h"
#include "image_format.h"

/* Low memory. What is not named here is the firmware's until PROTECT. */
#define STUB_ADDRESS 0x8000 /* the page that stays shared (KVM's emulator reads its instructions) */
#define HANDOVER_ADDRESS 0x9000 /* what the loader tells itself across PROTECT; shared, so that nothing in it is believed */
#define LOW_START STUB_ADDRESS
#define LOW_END 0x80000
#define KERNEL_ADDRESS 0x1000000 /* of the kernel's protected-mode part */
#define ACPI_BYTES (1 << 20) /* the room for copies of ACPI tables */
#define LIMIT_4G (1ULL << 32)

struct layout {
	u64 file; /* the kernel's file begins here */
	u64 entry; /* the kernel's 64-bit entry */
	u64 initrd, acpi;
	u64 end; /* [file, end) must be RAM */
	/* In the payload, from its first byte on: */
	u64 kernel_offset, initrd_offset, command_line_offset, payload_bytes;
};

/* NULL, or what is wrong with the kernel. header: the first bytes of its file. */
const char *layout_find(struct layout *layout, const struct payload *payload, const struct boot_params *header);

#endif
