/* SPDX-License-Identifier: MIT */
/* What `hpsctl measure` says about the image of a protected VM. */
#ifndef IMAGE_COMMAND_H
#define IMAGE_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

/* As the options say it. */
struct image_vm {
	uint64_t memory; /* bytes */
	const char *machine;
	uint32_t shared_bit; /* 0: this machine's */
	const char *acpi; /* 96 hexadecimal digits, or NULL */
};

bool image_is_machine(const char *name);

/* Whether a file can be read, and is the image of a protected VM. */
bool image_is_file(const char *path);

/* Prints the measurement; returns the exit status. */
int image_measure(const char *path, const struct image_vm *vm);

#endif
