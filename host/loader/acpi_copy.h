/* SPDX-License-Identifier: MIT */
/* Copies the firmware's ACPI tables to where nobody else can change them. */
#ifndef ACPI_COPY_H
#define ACPI_COPY_H

#include "types.h"

struct acpi_copy {
	/* Reads what the host may change meanwhile; false if there is no such memory. */
	bool (*read)(void *to, u64 address, u64 bytes);
	u8 *area; /* the copies, the RSDP first */
	u64 address; /* of area, as the kernel sees it; a multiple of 64 */
	u64 size, used; /* of area, in bytes */
	const char *error; /* what was wrong, for people */
};

/*
 * Copies the tables that an RSDP leads to: those of the kinds in acpi_copy.c, and the FADT's DSDT and FACS. Other kinds, which
 * may point to more memory, are left out. No byte is read twice; what the area holds afterwards, all of it, is what is to be
 * measured. False, with an error, if the tables are no good.
 */
bool acpi_copy(struct acpi_copy *copy, u64 rsdp);

/* Of the FADT as the firmware has it: the port and the value by which ACPI mode is switched on, and PM1a's control port. */
struct acpi_enable {
	u32 command_port, control_port;
	u8 value;
};
bool acpi_find_enable(bool (*read)(void *to, u64 address, u64 bytes), u64 rsdp, struct acpi_enable *enable);

#endif
