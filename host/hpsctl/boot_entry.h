/* SPDX-License-Identifier: MIT */
/* UEFI's boot entries, as its variables hold them: "Boot Manager" in the UEFI specification. Pure. */
#ifndef BOOT_ENTRY_H
#define BOOT_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_partition {
	uint32_t number; /* from 1 */
	uint64_t start, size; /* in logical blocks */
};

struct boot_entry {
	bool active;
	bool has_partition;
	struct boot_partition partition;
	char description[64]; /* cut if longer; '?' for what is not ASCII */
	char path[512]; /* of the program, with backslashes; empty: none, too long, or not ASCII */
	char options[1024]; /* its command line; empty: none, or no text */
};

/* Reads an EFI_LOAD_OPTION, the value of a variable Boot####. False: it is damaged. */
bool boot_entry_parse(const uint8_t *data, size_t size, struct boot_entry *entry);

#endif
