/* SPDX-License-Identifier: MIT */
/* Makes the image of a protected VM. Pure: no I/O. */
#ifndef VM_IMAGE_H
#define VM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm_image_parts {
	const void *kernel, *initrd;
	size_t kernel_bytes, initrd_bytes;
	const char *command_line;
	bool is_unprotected; /* it does not ask for protection */
};

/*
 * Makes an image of these parts: allocates it, and says how many bytes it has and how many MiB of RAM its VM needs at least.
 * NULL, with an error, if that can't be.
 */
void *vm_image_make(const struct vm_image_parts *parts, size_t *bytes, uint64_t *memory_mib, char error[200]);

#endif
