/* SPDX-License-Identifier: MIT */
/* What a guest begins with: from an image file to pages, ranges and vCPUs, and their measurement. Pure: no I/O. */
#ifndef IMAGE_H
#define IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "hyperps_ioctl.h"

#define IMAGE_PAGE 4096ULL
#define IMAGE_MEMORY_MIN (64ULL << 10)
#define IMAGE_MEMORY_MAX (1ULL << 40)

/* Pages that an image fills: page i is for gpa[i], in ascending order, and has its content at data + i * IMAGE_PAGE. */
struct image {
	size_t pages;
	uint64_t *gpa;
	uint8_t *data;
	struct hyperps_vm_create_vcpu start;
};

/* A VM as it is when it is sealed. */
struct guest {
	struct image image;
	struct hyperps_vm_declare range[HYPERPS_VM_RANGES];
	size_t ranges;
	size_t vcpus; /* all start alike */
};

/*
 * Lays an image file out for a guest whose RAM is [0, memory), which is a multiple of IMAGE_PAGE. arguments: its command
 * line. The kind of the file is found by its content:
 *
 *   ELF with a multiboot header: HYPERPS_VCPU_PROTECTED; argument = multiboot information: memory, memory map, command
 *     line (after the word "guest", as a file's name would change the measurement)
 *   other ELF for x86-64: HYPERPS_VCPU_LONG with page tables that map all of the RAM to itself; argument = command line
 *   anything else: HYPERPS_VCPU_REAL at 0x7c00; argument = command line
 *
 * Segments lie at their physical addresses. What else the guest gets lies in free pages, from 0x9000 on (real mode:
 * 0x1000). Returns whether it worked; if not, error says why. image_free() in either case.
 */
bool image_load(struct image *image, const void *file, size_t size, uint64_t memory, const char *arguments,
		char error[200]);
void image_free(struct image *image);

/* The measurement that the monitor takes of it; see hyperps/abi.h. */
void guest_measure(const struct guest *guest, uint8_t digest[32]);

#endif
