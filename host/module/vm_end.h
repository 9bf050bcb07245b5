/* SPDX-License-Identifier: GPL-2.0 */
/* How VMs end. */
#ifndef VM_END_H
#define VM_END_H

#include "vm_memory.h"

/* Takes back a reference; the last one ends the VM. */
void vm_put(struct vm *vm);

/* Ends every VM for good, whoever has it, and gives its memory back to this kernel; none is made or run any more. */
void hyperps_vm_end_all(void);
bool hyperps_vm_are_ended(void);

/* For the module's end, when no VM exists any more. */
void hyperps_vm_exit(void);

#endif
