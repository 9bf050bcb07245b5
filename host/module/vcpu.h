/* SPDX-License-Identifier: GPL-2.0 */
#ifndef VCPU_H
#define VCPU_H

#include "vm_memory.h"

/* HYPERPS_VM_IOC_CREATE_VCPU: the new file descriptor, or a negative error code. */
long vcpu_create(struct vm *vm, const struct hyperps_vm_create_vcpu *request);

#endif
