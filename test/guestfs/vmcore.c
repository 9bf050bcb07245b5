// SPDX-License-Identifier: MIT
/*
 * vmcore FRAME FRAME_OWN: in a crash kernel, reads a page that was given to a VM, and the control, through /proc/vmcore:
 * the first 16 bytes of each as text, or the error.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ULL
#define BYTES 16

static void show(int core, uint64_t address)
{
	char buffer[BYTES + 1] = { 0 };
	Elf64_Ehdr header;
	Elf64_Phdr part;

	if (pread(core, &header, sizeof(header), 0) != sizeof(header)) {
		printf("%llx: no core: %s\n", (unsigned long long)address, strerror(errno));
		return;
	}
	for (int i = 0; i < header.e_phnum; i++) {
		if (pread(core, &part, sizeof(part), header.e_phoff + i * sizeof(part)) != sizeof(part) ||
		    part.p_type != PT_LOAD || address - part.p_paddr >= part.p_memsz)
			continue;
		if (pread(core, buffer, BYTES, part.p_offset + (address - part.p_paddr)) < 0)
			printf("%llx: refused: %s\n", (unsigned long long)address, strerror(errno));
		else
			printf("%llx: bytes '%s'\n", (unsigned long long)address, buffer);
		return;
	}
	printf("%llx: not in the core\n", (unsigned long long)address);
}

int main(int argc, char **argv)
{
	int core = open("/proc/vmcore", O_RDONLY);

	for (int i = 1; i < argc; i++)
		show(core, strtoull(argv[i], NULL, 0) * PAGE);
	return 0;
}
