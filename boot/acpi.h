/* SPDX-License-Identifier: MIT */
/* The firmware's ACPI tables, as far as the loader reads them. */
#ifndef ACPI_H
#define ACPI_H

#include "boot_info.h"

struct acpi_table {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
} __attribute__((packed));

/* The first table with this signature, or NULL. */
const struct acpi_table *acpi_table(const char *signature);

/* Of four bytes that may be anywhere. */
u32 acpi_read_u32(const u8 *p);

/*
 * Fills end[BOOT_END_PORTS + 1] with the I/O ports by which this machine is reset, or put to sleep. False if it also has
 * a register for that which is no I/O port.
 */
bool acpi_end_ports(struct boot_end_port *end);

#endif
