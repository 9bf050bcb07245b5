// SPDX-License-Identifier: MIT
#include "loader.h"

/* QEMU's "fw_cfg" device: an item is chosen by its number, and then read byte by byte. Numbers are big-endian. */
#define SELECTOR_PORT 0x510
#define DATA_PORT 0x511
#define ITEM_SIGNATURE 0
#define ITEM_DIRECTORY 0x19
#define FILES_MOST 256

struct file {
	u32 bytes;
	u16 item, reserved;
	char name[56];
};

static void read_item(void *to, u64 bytes)
{
	for (u64 i = 0; i < bytes; i++)
		((u8 *)to)[i] = inb(DATA_PORT);
}

bool qemu_ram(struct ram *ram)
{
	struct e820_entry entry;
	struct file file;
	char signature[4];
	u32 files;

	*ram = (struct ram){ 0, LIMIT_4G };
	outw(SELECTOR_PORT, ITEM_SIGNATURE);
	read_item(signature, sizeof(signature));
	if (memcmp(signature, "QEMU", sizeof(signature)))
		return false;
	outw(SELECTOR_PORT, ITEM_DIRECTORY);
	read_item(&files, sizeof(files));
	do {
		if (!files || __builtin_bswap32(files) > FILES_MOST)
			return false;
		read_item(&file, sizeof(file));
		files = __builtin_bswap32(__builtin_bswap32(files) - 1);
	} while (memcmp(file.name, "etc/e820", sizeof("etc/e820")));
	outw(SELECTOR_PORT, __builtin_bswap16(file.item));
	for (u64 at = 0; at + sizeof(entry) <= __builtin_bswap32(file.bytes); at += sizeof(entry)) {
		u64 end;

		read_item(&entry, sizeof(entry));
		end = entry.address + entry.bytes;
		if (entry.type != E820_RAM)
			continue;
		if (end > LIMIT_4G && end > ram->high_end)
			ram->high_end = end;
		else if (end <= LIMIT_4G && end > ram->low_end)
			ram->low_end = end;
	}
	return ram->low_end > 0;
}
