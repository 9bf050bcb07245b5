/* SPDX-License-Identifier: MIT */
/* Where in a VM's memory the kernel gets what. Pure; hpsctl asks it, too. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "boot_params.h"
#include "image_format.h"
#include "ranges.h"

/* Low memory. What is not named here is the firmware's until PROTECT. */
#define STUB_ADDRESS 0x8000 /* the page that stays shared (KVM's emulator reads its instructions) */
#define HANDOVER_ADDRESS                                                                                               \
	0x9000 /* what the loader tells itself across PROTECT; shared, so that nothing in it is believed */
#define LIST_ADDRESS 0xa000 /* PROTECT's list */
#define LOW_START STUB_ADDRESS
#define LOW_END 0x80000
/* At the same address whatever the image, so that the same machine's tables have the same measurement. */
#define ACPI_ADDRESS 0xd00000
#define KERNEL_ADDRESS 0x1000000 /* of the kernel's protected-mode part */
#define ACPI_BYTES (1 << 20) /* the room for copies of ACPI tables */
#define LIMIT_4G (1ULL << 32)

struct layout {
	u64 acpi, command_line, parameters;
	u64 file; /* the kernel's file begins here */
	u64 entry; /* the kernel's 64-bit entry */
	u64 initrd;
	u64 end; /* [ACPI_ADDRESS, end) must be RAM */
	/* In the payload, from its first byte on: */
	u64 kernel_offset, initrd_offset, command_line_offset, payload_bytes;
};

/* What a VM has as RAM: all from 0 on below 4 GiB, and all above. */
struct ram {
	u64 low_end, high_end; /* high_end: 4 GiB if there is none above */
};

#define RAM_RANGES 4

/* The ranges that PROTECT is told: without the stub, and what lies between 640 KiB and 1 MiB. Returns how many. */
u64 layout_ranges(const struct ram *ram, struct range range[RAM_RANGES]);

/* The page that the kernel is started with; all that is not said in words elsewhere is in it. ranges: its RAM. */
void layout_parameters(const struct layout *layout, const struct payload *payload, const struct boot_params *header,
		       const struct ranges *ranges, struct boot_params *parameters);

/* NULL, or what is wrong with the kernel. header: the first bytes of its file. */
const char *layout_find(struct layout *layout, const struct payload *payload, const struct boot_params *header);

#endif
