// SPDX-License-Identifier: MIT
/*
 * efi_table: points the entry of the EFI stub's INITRD table to a page that Linux has freed, as it is on a machine whose early
 * allocations lie elsewhere (above 4 GiB), and prints the addresses of all tables that the EFI system table names. Any
 * kernel that is started afterwards reads them.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define FREE (32 << 20)
#define SYSTEM_LOW 0x1c4 /* efi_info in struct boot_params */
#define SYSTEM_HIGH 0x1d8
#define SYSTEM_TABLES 104 /* EFI_SYSTEM_TABLE: NumberOfTableEntries */
#define TABLES_LIMIT 128
#define PRESENT (1ULL << 63)
#define FRAME ((1ULL << 55) - 1)

struct table {
	uint8_t guid[16];
	uint64_t address;
};

static const uint8_t initrd_guid[16] = { 0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f,
					 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68 };

static bool get(const char *path, uint64_t offset, void *buffer, size_t size)
{
	int file = open(path, O_RDONLY);
	bool result = pread(file, buffer, size, (off_t)offset) > 0;

	if (!result)
		fprintf(stderr, "%s at %llx: %m\n", path, (unsigned long long)offset);
	close(file);
	return result;
}

/* A page of the kernel's free memory, or 0: amid much that is free, so that no process gets it soon. */
static uint64_t free_page(void)
{
	char *memory = mmap(NULL, FREE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t entry = 0;

	if (memory == MAP_FAILED ||
	    !get("/proc/self/pagemap", ((uintptr_t)memory + FREE / 2) / PAGE * sizeof(entry), &entry, sizeof(entry)))
		return 0;
	munmap(memory, FREE);
	return entry & PRESENT ? (entry & FRAME) * PAGE : 0;
}

int main(void)
{
	static struct table table[TABLES_LIMIT];
	uint64_t page = free_page(), count = 0, tables;
	uint32_t system[2] = { 0 };
	char text[32] = "";
	int memory = open("/dev/mem", O_RDWR);

	if (!page || !get("/sys/kernel/boot_params/data", SYSTEM_LOW, &system[0], sizeof(system[0])) ||
	    !get("/sys/kernel/boot_params/data", SYSTEM_HIGH, &system[1], sizeof(system[1])) ||
	    !get("/sys/firmware/efi/config_table", 0, text, sizeof(text) - 1) ||
	    !get("/dev/mem", (system[0] | (uint64_t)system[1] << 32) + SYSTEM_TABLES, &count, sizeof(count)) ||
	    count > TABLES_LIMIT)
		return 1;
	tables = strtoull(text, NULL, 16);
	if (!get("/dev/mem", tables, table, count * sizeof(table[0])))
		return 1;
	for (uint64_t i = 0; i < count; i++) {
		if (!memcmp(table[i].guid, initrd_guid, sizeof(initrd_guid))) {
			table[i].address = page;
			if (pwrite(memory, &page, sizeof(page),
				   (off_t)((char *)&table[i].address - (char *)table + tables)) != sizeof(page))
				return 1;
		}
		printf("%llx\n", (unsigned long long)table[i].address);
	}
	return 0;
}
