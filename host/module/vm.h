/* SPDX-License-Identifier: GPL-2.0 */
#ifndef VM_H
#define VM_H

/* HYPERPS_IOC_CREATE_VM: the new file descriptor, or a negative error code. */
long hyperps_vm_create(void);

#endif
