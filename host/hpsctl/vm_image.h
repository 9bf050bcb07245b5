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

/* Whether a file is such an image. */
bool vm_image_is(const void *file, size_t bytes);

#define VM_IMAGE_DIGEST 48 /* SHA-384 */
#define VM_IMAGE_RTMRS 3

/* What the measurement depends on besides the image. */
struct vm_image_machine {
	uint64_t memory; /* bytes of RAM */
	uint64_t low_memory; /* how much of it is below 4 GiB if not all is; see vm_image_low_memory() */
	unsigned shared_bit;
	const uint8_t
		*acpi; /* digest of the ACPI tables, as the loader prints it; NULL: not known, and RTMR 0 neither */
};

struct vm_image_measurement {
	uint8_t mrtd[VM_IMAGE_DIGEST], rtmr[VM_IMAGE_RTMRS][VM_IMAGE_DIGEST];
};

/* How much RAM QEMU's machine puts below 4 GiB. 0: no such machine. */
uint64_t vm_image_low_memory(const char *machine, uint64_t memory);

/* The measurement that the monitor will have of a VM. False, with an error: it is no good image, or the VM is too small. */
bool vm_image_measure(const void *file, size_t bytes, const struct vm_image_machine *machine,
		      struct vm_image_measurement *measurement, char error[200]);

#endif
