/* SPDX-License-Identifier: MIT */
/* Makes a VM through /dev/hyperps of what image.h describes. */
#ifndef VM_H
#define VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyperps_ioctl.h"
#include "image.h"

/* All 0: no VM. Descriptors below 1 are none. */
struct vm {
	int fd;
	struct vm_vcpu {
		int fd;
		struct hyperps_run *run;
	} vcpu[HYPERPS_VCPUS];
	uint8_t measurement[32]; /* by the monitor */
	const char *failed; /* what could not be done; errno has the reason */
};

/* A sealed VM with the image's pages and all vCPUs. False: vm->failed. vm_close() in either case. */
bool vm_make(struct vm *vm, int device, const struct guest *guest);
void vm_close(struct vm *vm);

/* Fills [gpa, gpa + size) with memory: a copy of source, or zeros if that is NULL. False: vm->failed. */
bool vm_populate(struct vm *vm, uint64_t gpa, uint64_t size, const void *source);

/* The text for an errno of these, or of a vCPU's run. */
const char *vm_error(int error);

/* A file's content, or NULL, and errno. */
void *read_file(const char *path, size_t *size);

#endif
