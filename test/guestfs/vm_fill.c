// SPDX-License-Identifier: MIT
/*
 * vm_fill LEAVE ADDRESS...: gives a VM all free memory but LEAVE MiB, and stays until it is killed. Each page begins with a
 * text; 4 MiB that this process keeps do with another one (dump_text.h). No page of the VM's may be one at these physical
 * addresses.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dump_text.h"
#include "hyperps_ioctl.h"
#include "monitor_device.h"
#include "tap.h"

#define MIB ((uint64_t)1 << 20)
#define PAGE ((uint64_t)4096)
#define PIECE (2 * MIB)
#define OWN (4 * MIB)

static uint64_t free_mib(void)
{
	char line[128];
	uint64_t kib = 0;
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && !kib && fgets(line, sizeof(line), file))
		sscanf(line, "MemFree: %" SCNu64 " kB", &kib);
	if (file)
		fclose(file);
	return kib >> 10;
}

static char *new_text(uint64_t size, enum dump_text text)
{
	uint64_t words[DUMP_TEXT_WORDS];
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	dump_text(words, text);
	for (uint64_t at = 0; at < size; at += PAGE)
		memcpy(memory + at, words, sizeof(words));
	memset(words, 0, sizeof(words));
	return memory;
}

/* Returns the bytes that the VM got. */
static uint64_t fill(int vm, char *source, uint64_t leave)
{
	uint64_t done = 0;

	while (free_mib() > leave) {
		struct hyperps_vm_populate request = { done, PIECE, (uintptr_t)source };
		long bytes = value(ioctl(vm, HYPERPS_VM_IOC_POPULATE, &request));

		if (bytes <= 0)
			break;
		done += bytes;
	}
	return done;
}

/* How many of the VM's pages are at one of these addresses. */
static int count_at(int vm, uint64_t size, int count, char **addresses)
{
	int found = 0;

	for (struct hyperps_vm_frame request = { 0 }; request.gpa < size; request.gpa += PAGE) {
		if (ioctl(vm, HYPERPS_VM_IOC_FRAME, &request))
			continue;
		for (int i = 0; i < count; i++) {
			if (request.frame == strtoull(addresses[i], NULL, 16) / PAGE) {
				printf("# the VM has %s\n", addresses[i]);
				found++;
			}
		}
	}
	return found;
}

int main(int argc, char **argv)
{
	uint64_t leave = argc > 1 ? strtoull(argv[1], NULL, 10) : 64;
	struct hyperps_vm_declare range = { 0, 1ULL << 40, 7 };
	char *own = new_text(OWN, DUMP_TEXT_PROCESS), *source = new_text(PIECE, DUMP_TEXT_VM);
	int device = monitor_open(), vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	uint64_t size;

	if (!own || !source || vm < 0 || ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range)) {
		check(false, "setup: a VM");
		return summary();
	}
	size = fill(vm, source, leave);
	memset(source, 0, PIECE);
	check(size >= 64 * MIB, "setup: a VM has %" PRIu64 " MiB", size / MIB);
	check(argc > 2 && !count_at(vm, size, argc - 2, argv + 2), "no page of the VM's holds one of %d EFI tables",
	      argc - 2);
	printf("# filled\n");
	fflush(stdout);
	pause();
	return 0;
}
